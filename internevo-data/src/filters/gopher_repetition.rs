//! Gopher's repetition rules (Rae et al. 2021, table A1) with datatrove's meaning of each.
//!
//! Where tools differ: a first occurrence is no duplicate; after a duplicated n-gram the next n words are passed over; all
//! shares are of the characters of the whole text, spaces included; an n-gram of the top rule counts its spaces, one of the
//! duplicate rule does not. For Chinese, the thresholds of FineWeb-2 (`cmn_Hani`).
//!
//! In documents of type `markdown` the rules for lines and paragraphs leave out fenced code: programs repeat `}` by nature, and a
//! chapter about them is no worse for it.

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;
use crate::{
    features::{Blocks, Features, line_blocks, paragraphs, without_fences},
    filter::{Filter, FilterContext, FilterPlugin, Verdict},
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
    /// Share of lines that repeat an earlier line.
    pub duplicate_lines: f64,
    /// Share of paragraphs that repeat an earlier paragraph.
    pub duplicate_paragraphs: f64,
    /// Share of characters in such lines.
    pub duplicate_line_chars: f64,
    /// Share of characters in such paragraphs.
    pub duplicate_paragraph_chars: f64,
    /// Share of characters in the most frequent 2-, 3- and 4-gram.
    pub top_ngram_chars: [f64; 3],
    /// Share of characters in repeated 5- to 10-grams.
    pub duplicate_ngram_chars: [f64; 6],
    /// What differs for Chinese and other languages without spaces, where a word is a character.
    pub zh: ChineseRepetition,
}

/// What differs for Chinese (FineWeb-2, `cmn_Hani`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChineseRepetition {
    /// Share of lines that repeat an earlier line.
    pub duplicate_lines: f64,
    /// Share of characters in the most frequent 2-, 3- and 4-gram.
    pub top_ngram_chars: [f64; 3],
    /// Share of characters in repeated 5- to 10-grams.
    pub duplicate_ngram_chars: [f64; 6],
}

impl Default for GopherRepetitionConfig {
    fn default() -> Self {
        Self {
            duplicate_lines: 0.30,
            duplicate_paragraphs: 0.30,
            duplicate_line_chars: 0.20,
            duplicate_paragraph_chars: 0.20,
            top_ngram_chars: [0.20, 0.18, 0.16],
            duplicate_ngram_chars: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
            zh: ChineseRepetition::default(),
        }
    }
}

impl Default for ChineseRepetition {
    fn default() -> Self {
        Self {
            duplicate_lines: 0.287,
            top_ngram_chars: [0.256, 0.201, 0.171],
            duplicate_ngram_chars: [0.198, 0.182, 0.167, 0.154, 0.140, 0.127],
        }
    }
}

/// The filter `gopher_repetition`. Source code is kept untouched.
pub struct GopherRepetition {
    config: GopherRepetitionConfig,
    lang: Option<String>,
}

impl Plugin for GopherRepetition {
    const NAME: &'static str = "gopher_repetition";
    const ABOUT: &'static str = "Gopher's repetition rules: repeated lines, paragraphs and n-grams.";
    type Config = GopherRepetitionConfig;
}

impl FilterPlugin for GopherRepetition {
    fn build(config: GopherRepetitionConfig, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self { config, lang: cx.lang.map(str::to_owned) }))
    }
}

crate::register_filter!(GopherRepetition);

impl Filter for GopherRepetition {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        if document.is_code() || document.text().is_empty() {
            return Verdict::Keep;
        }
        let table = Table::of(self.lang.as_deref(), document);
        self.block_rules(document, table)
            .or_else(|| self.ngram_rules(document, table))
            .map_or(Verdict::Keep, |(reason, value)| Verdict::drop(reason, value))
    }
}

impl GopherRepetition {
    fn block_rules(&self, document: &Features<'_>, table: Table) -> Option<(&'static str, f64)> {
        let (config, chars) = (&self.config, document.chars() as f64);
        let without_code = document.document().field("type") == Some("markdown");
        let text = &*if without_code { without_fences(document.text()) } else { document.text().into() };
        let over = |value: f64, limit: f64, reason: &'static str| (value > limit).then_some((reason, value));
        let share = |blocks: Blocks| blocks.duplicates as f64 / blocks.count as f64;
        let found = Blocks::count(paragraphs(text));
        let hit = over(share(found), config.duplicate_paragraphs, "duplicate_paragraphs").or_else(|| {
            let value = found.duplicate_chars as f64 / chars;
            over(value, config.duplicate_paragraph_chars, "duplicate_paragraph_chars")
        });
        if hit.is_some() {
            return hit;
        }
        let limit = if table.is_unspaced() { config.zh.duplicate_lines } else { config.duplicate_lines };
        let found = Blocks::count(line_blocks(text));
        over(share(found), limit, "duplicate_lines")
            .or_else(|| over(found.duplicate_chars as f64 / chars, config.duplicate_line_chars, "duplicate_line_chars"))
    }

    fn ngram_rules(&self, document: &Features<'_>, table: Table) -> Option<(&'static str, f64)> {
        let (top, duplicate) = if table.is_unspaced() {
            (&self.config.zh.top_ngram_chars, &self.config.zh.duplicate_ngram_chars)
        } else {
            (&self.config.top_ngram_chars, &self.config.duplicate_ngram_chars)
        };
        let (words, repeats, chars) = (document.words(), document.repeats(), document.chars() as f64);
        for ((n, limit), reason) in (2..).zip(top).zip(TOP_REASONS) {
            let Some(found) = repeats.top_chars(n, words) else { continue };
            let value = found as f64 / chars;
            if value > *limit {
                return Some((reason, value));
            }
        }
        for ((n, limit), reason) in (5..).zip(duplicate).zip(DUPLICATE_REASONS) {
            let value = repeats.duplicate_chars(n, words) as f64 / chars;
            if value > *limit {
                return Some((reason, value));
            }
        }
        None
    }
}
