//! Gopher's quality rules (Rae et al. 2021, appendix A1.1) with datatrove's meaning of each.
//!
//! Where tools differ: words are all words and punctuation marks; lengths are counted over words that are not punctuation; a
//! hyphen counts as a bullet; stop words are counted once each. For Chinese, the thresholds of FineWeb-2 (`cmn_Hani`).
//!
//! One rule differs for documents of type `markdown`: their marks are markup, which datatrove's texts do not have, so the share of
//! words with a letter is taken over what white space separates, as in the paper.

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Table;
use crate::{
    features::Features,
    filter::{Filter, FilterContext, FilterPlugin, Verdict},
};

/// Thresholds of [`GopherQuality`]. A document is dropped when it is outside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQualityConfig {
    /// Fewest words that are not punctuation.
    pub min_words: usize,
    /// Most words that are not punctuation.
    pub max_words: usize,
    /// Smallest mean length of words that are not punctuation, characters.
    pub min_mean_word_length: f64,
    /// Largest mean length of words that are not punctuation, characters.
    pub max_mean_word_length: f64,
    /// Most `#` per word.
    pub max_hash_ratio: f64,
    /// Most ellipses (`...` or `…`) per word.
    pub max_ellipsis_ratio: f64,
    /// Largest share of lines that begin with `•` or `-`.
    pub max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Smallest share of words with a letter; punctuation marks count as words, except in Markdown.
    pub min_letter_words: f64,
    /// How many different stop words there must be.
    pub min_stop_words: usize,
    /// The stop words, lower case. Not asked of languages other than English and Chinese.
    pub stop_words: Vec<String>,
    /// What differs for Chinese, counted in characters instead of words; but for the stop words, also for other languages
    /// written without spaces.
    pub zh: ChineseQuality,
}

/// What differs for Chinese (FineWeb-2, `cmn_Hani`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChineseQuality {
    /// Smallest mean length of words that are not punctuation, characters.
    pub min_mean_word_length: f64,
    /// Largest mean length of words that are not punctuation, characters.
    pub max_mean_word_length: f64,
    /// Smallest share of words with a letter.
    pub min_letter_words: f64,
    /// The stop words.
    pub stop_words: Vec<String>,
}

impl Default for GopherQualityConfig {
    fn default() -> Self {
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_hash_ratio: 0.1,
            max_ellipsis_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_letter_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
            zh: ChineseQuality::default(),
        }
    }
}

impl Default for ChineseQuality {
    fn default() -> Self {
        Self {
            min_mean_word_length: 1.0,
            max_mean_word_length: 5.0,
            min_letter_words: 0.735,
            stop_words: "的年在月是和日了於·為有被人中为他與後也而由".chars().map(String::from).collect(),
        }
    }
}

/// The filter `gopher_quality`. Source code is kept untouched.
pub struct GopherQuality {
    config: GopherQualityConfig,
    lang: Option<String>,
}

impl Plugin for GopherQuality {
    const NAME: &'static str = "gopher_quality";
    const ABOUT: &'static str =
        "Gopher's quality rules: number and length of words, symbols, bullets, letters, stop words.";
    type Config = GopherQualityConfig;
}

impl FilterPlugin for GopherQuality {
    fn build(config: GopherQualityConfig, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self { config, lang: cx.lang.map(str::to_owned) }))
    }
}

crate::register_filter!(GopherQuality);

impl Filter for GopherQuality {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        if document.is_code() {
            return Verdict::Keep;
        }
        let table = Table::of(self.lang.as_deref(), document);
        self.word_rules(document, table)
            .or_else(|| self.symbol_rules(document))
            .or_else(|| self.line_rules(document))
            .or_else(|| self.letter_rule(document, table))
            .or_else(|| self.stop_word_rule(document, table))
            .map_or(Verdict::Keep, |(reason, value)| Verdict::drop(reason, value))
    }
}

/// A rule that dropped, and what it measured.
type Hit = Option<(&'static str, f64)>;

impl GopherQuality {
    fn word_rules(&self, document: &Features<'_>, table: Table) -> Hit {
        let config = &self.config;
        let real = document.words().iter().filter(|word| !word.is_symbol);
        let (count, chars) = real.fold((0usize, 0u64), |(n, chars), word| (n + 1, chars + u64::from(word.chars)));
        if count < config.min_words {
            return Some(("gopher_short_document", count as f64));
        }
        if count > config.max_words {
            return Some(("gopher_long_document", count as f64));
        }
        // Only where `min_words` is 0: a text without words has no mean length.
        let mean = if count == 0 { return None } else { chars as f64 / count as f64 };
        let (least, most) = if table.is_unspaced() {
            (config.zh.min_mean_word_length, config.zh.max_mean_word_length)
        } else {
            (config.min_mean_word_length, config.max_mean_word_length)
        };
        if mean < least {
            Some(("gopher_short_words", mean))
        } else if mean > most {
            Some(("gopher_long_words", mean))
        } else {
            None
        }
    }

    fn symbol_rules(&self, document: &Features<'_>) -> Hit {
        let (text, words) = (document.text(), document.words().len() as f64);
        let hashes = text.bytes().filter(|byte| *byte == b'#').count() as f64 / words;
        if hashes > self.config.max_hash_ratio {
            return Some(("gopher_many_hashes", hashes));
        }
        let ellipses = (text.matches("...").count() + text.matches('…').count()) as f64 / words;
        (ellipses > self.config.max_ellipsis_ratio).then_some(("gopher_many_ellipses", ellipses))
    }

    fn line_rules(&self, document: &Features<'_>) -> Hit {
        let lines = document.lines();
        let share =
            |wanted: fn(&str) -> bool| lines.iter().filter(|line| wanted(line)).count() as f64 / lines.len() as f64;
        let bullets = share(|line| line.trim_start().starts_with(['•', '-']));
        if bullets > self.config.max_bullet_lines {
            return Some(("gopher_bullet_lines", bullets));
        }
        let ellipses = share(|line| line.trim_end().ends_with("...") || line.trim_end().ends_with('…'));
        (ellipses > self.config.max_ellipsis_lines).then_some(("gopher_ellipsis_lines", ellipses))
    }

    fn letter_rule(&self, document: &Features<'_>, table: Table) -> Hit {
        let least = if table.is_unspaced() { self.config.zh.min_letter_words } else { self.config.min_letter_words };
        let share = if document.document().field("type") == Some("markdown") && !table.is_unspaced() {
            let words = || document.text().split_ascii_whitespace();
            words().filter(|word| word.contains(char::is_alphabetic)).count() as f64 / words().count() as f64
        } else {
            let words = document.words();
            words.iter().filter(|word| word.has_letter).count() as f64 / words.len() as f64
        };
        (share < least).then_some(("gopher_few_letter_words", share))
    }

    fn stop_word_rule(&self, document: &Features<'_>, table: Table) -> Hit {
        let wanted = match table {
            Table::English => &self.config.stop_words,
            Table::Chinese => &self.config.zh.stop_words,
            Table::Unspaced | Table::Other => return None,
        };
        let mut seen = vec![false; wanted.len()];
        let mut distinct = 0;
        for word in document.words() {
            if distinct >= self.config.min_stop_words {
                return None;
            }
            if let Some(index) = wanted.iter().position(|stop| stop == word.text)
                && !std::mem::replace(&mut seen[index], true)
            {
                distinct += 1;
            }
        }
        (distinct < self.config.min_stop_words).then_some(("gopher_few_stop_words", distinct as f64))
    }
}
