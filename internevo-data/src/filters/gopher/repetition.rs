//! Gopher's repetition rules (Rae et al. 2021, table A1): repeated lines, paragraphs and n-grams.
//!
//! Not here: what counts as a repetition: that is the mode's (`datatrove.rs` and its neighbours).

use std::{collections::BTreeMap, iter};

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GopherMode, Meaning};
use crate::{
    features::Features,
    filter::{Filter, Measure, Verdict},
    filters::{LanguageTable, language},
};

const TOP_REASONS: [&str; 3] = ["top_2_gram", "top_3_gram", "top_4_gram"];
const DUPLICATE_REASONS: [&str; 6] = [
    "duplicate_5_grams",
    "duplicate_6_grams",
    "duplicate_7_grams",
    "duplicate_8_grams",
    "duplicate_9_grams",
    "duplicate_10_grams",
];

/// Thresholds of [`GopherRepetition`]. A document is dropped when it is above one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GopherRepetitionConfig {
    /// Whose meaning of the rules.
    pub mode: GopherMode,
    /// Share of lines that repeat an earlier line.
    pub duplicate_lines: f64,
    /// Share of paragraphs that repeat an earlier paragraph.
    pub duplicate_paragraphs: f64,
    /// Share of characters in such lines. Unset: 0.2; in `dolma` 0.3.
    pub duplicate_line_chars: Option<f64>,
    /// Share of characters in such paragraphs.
    pub duplicate_paragraph_chars: f64,
    /// Share of characters in the most frequent 2-, 3- and 4-gram.
    pub top_ngram_chars: [f64; 3],
    /// Share of characters in repeated 5- to 10-grams.
    pub duplicate_ngram_chars: [f64; 6],
    /// What differs by language (ISO 639-1 code), in `datatrove`. A language that is not listed here has the thresholds of
    /// FineWeb-2, which has no rules for paragraphs and for characters of lines.
    pub languages: BTreeMap<String, RepetitionLimits>,
}

/// Thresholds by language.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepetitionLimits {
    /// Share of lines that repeat an earlier line.
    pub duplicate_lines: Option<f64>,
    /// Share of characters in the most frequent 2-, 3- and 4-gram.
    pub top_ngram_chars: Option<[f64; 3]>,
    /// Share of characters in repeated 5- to 10-grams.
    pub duplicate_ngram_chars: Option<[f64; 6]>,
}

impl Default for GopherRepetitionConfig {
    fn default() -> Self {
        Self {
            mode: GopherMode::default(),
            duplicate_lines: 0.30,
            duplicate_paragraphs: 0.30,
            duplicate_line_chars: None,
            duplicate_paragraph_chars: 0.20,
            top_ngram_chars: [0.20, 0.18, 0.16],
            duplicate_ngram_chars: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
            languages: BTreeMap::new(),
        }
    }
}

/// The filter `gopher_repetition`. Source code is kept untouched.
pub struct GopherRepetition {
    config: GopherRepetitionConfig,
    lang: Option<String>,
}

/// The thresholds of one language.
#[derive(Clone, Copy, Debug)]
struct Limits {
    paragraphs: f64,
    paragraph_chars: f64,
    lines: f64,
    line_chars: f64,
    top: [f64; 3],
    duplicate: [f64; 6],
}

impl Plugin for GopherRepetition {
    const NAME: &'static str = "gopher_repetition";
    const ABOUT: &'static str = "Gopher's repetition rules: repeated lines, paragraphs and n-grams.";
    type Config = GopherRepetitionConfig;
}

crate::register_filter!(GopherRepetition { config, lang });

impl Filter for GopherRepetition {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        self.with_rules(document, |rules| Measure::verdict(rules)).unwrap_or(Verdict::Keep)
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.with_rules(document, |rules| rules.collect()).unwrap_or_default()
    }
}

impl GopherRepetition {
    /// Hands over the rules, each of which is measured when it is asked for; `None` for source code.
    fn with_rules<T>(
        &self,
        document: &Features<'_>,
        take: impl FnOnce(&mut dyn Iterator<Item = Measure>) -> T,
    ) -> Option<T> {
        if document.is_code() {
            return None;
        }
        if document.text().is_empty() && self.config.mode == GopherMode::Datatrove {
            return Some(take(&mut iter::once(Measure::at_least("gopher_empty", 0.0, 1.0))));
        }
        let lang = language(self.lang.as_deref(), document);
        let (limits, meaning) = (self.limits(lang), self.config.mode.meaning(document, lang));
        Some(take(&mut block_rules(&*meaning, document, &limits).chain(ngram_rules(&*meaning, document, &limits))))
    }

    fn limits(&self, lang: Option<&str>) -> Limits {
        let config = &self.config;
        let english = Limits {
            paragraphs: config.duplicate_paragraphs,
            paragraph_chars: config.duplicate_paragraph_chars,
            lines: config.duplicate_lines,
            line_chars: config.duplicate_line_chars.unwrap_or(if config.mode == GopherMode::Dolma { 0.3 } else { 0.2 }),
            top: config.top_ngram_chars,
            duplicate: config.duplicate_ngram_chars,
        };
        let Some(lang) = lang.filter(|_| config.mode == GopherMode::Datatrove) else { return english };
        let base = LanguageTable::of(lang).map_or(english, |table| Limits {
            paragraphs: f64::INFINITY,
            paragraph_chars: f64::INFINITY,
            lines: table.duplicate_lines,
            line_chars: f64::INFINITY,
            top: table.top_ngram_chars,
            duplicate: table.duplicate_ngram_chars,
        });
        let Some(own) = config.languages.get(lang) else { return base };
        Limits {
            lines: own.duplicate_lines.unwrap_or(base.lines),
            top: own.top_ngram_chars.unwrap_or(base.top),
            duplicate: own.duplicate_ngram_chars.unwrap_or(base.duplicate),
            ..base
        }
    }
}

fn block_rules<'d>(
    meaning: &'d dyn Meaning,
    document: &'d Features<'_>,
    limits: &'d Limits,
) -> impl Iterator<Item = Measure> {
    let paragraphs = iter::once_with(|| {
        let found = meaning.paragraphs(document);
        [
            Measure::at_most("duplicate_paragraphs", found.blocks, limits.paragraphs),
            Measure::at_most("duplicate_paragraph_chars", found.chars, limits.paragraph_chars),
        ]
    });
    let lines = iter::once_with(|| {
        let found = meaning.lines(document);
        [
            Measure::at_most("duplicate_lines", found.blocks, limits.lines),
            Measure::at_most("duplicate_line_chars", found.chars, limits.line_chars),
        ]
    });
    paragraphs.flatten().chain(lines.flatten())
}

fn ngram_rules<'d>(
    meaning: &'d dyn Meaning,
    document: &'d Features<'_>,
    limits: &'d Limits,
) -> impl Iterator<Item = Measure> {
    let top = (2..).zip(limits.top).zip(TOP_REASONS);
    let duplicate = (5..).zip(limits.duplicate).zip(DUPLICATE_REASONS);
    let top = top.map(|((n, limit), reason)| Measure::at_most(reason, meaning.top_ngram(document, n), limit));
    top.chain(
        duplicate.map(|((n, limit), reason)| Measure::at_most(reason, meaning.duplicate_ngrams(document, n), limit)),
    )
}
