//! Gopher's quality rules: number and length of words, symbols, bullets, ellipses, letters, stop words.
//!
//! Not here: what is counted as a word, a line, a symbol: that is the mode's (`datatrove.rs` and its neighbours).

use std::collections::BTreeMap;

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GopherMode, Quality, StopWords};
use crate::{
    features::Features,
    filter::{Filter, FilterContext, FilterPlugin, Measure, Verdict},
    filters::{LanguageTable, language},
};

/// Thresholds of [`GopherQuality`]. A document is dropped when it is outside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQualityConfig {
    /// Whose meaning of the rules.
    pub mode: GopherMode,
    /// Fewest words (in `datatrove`: that are not punctuation).
    pub min_words: usize,
    /// Most words. Unset: 100 000; in `redpajama` 10 000.
    pub max_words: Option<usize>,
    /// Smallest mean length of words (in `dolma`: median).
    pub min_mean_word_length: f64,
    /// Largest mean length of words.
    pub max_mean_word_length: f64,
    /// Most `#` per word, in `datatrove`.
    pub max_hash_ratio: f64,
    /// Most ellipses (`...` or `…`) per word, in `datatrove`.
    pub max_ellipsis_ratio: f64,
    /// Most of both together per word, in the other modes.
    pub max_symbol_ratio: f64,
    /// Largest share of lines that begin with a bullet (`•` or `-` in `datatrove`).
    pub max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Smallest share of words with a letter; punctuation marks count as words in `datatrove`, except in Markdown.
    pub min_letter_words: f64,
    /// How many stop words there must be (in `datatrove`: different ones).
    pub min_stop_words: usize,
    /// The stop words, lower case, of English.
    pub stop_words: Vec<String>,
    /// What differs by language (ISO 639-1 code), in `datatrove`. A language that is not listed here has the thresholds of
    /// FineWeb-2; one that FineWeb-2 lacks has those of English and no stop words.
    pub languages: BTreeMap<String, LanguageQuality>,
}

/// What differs for one language; what is unset is as in FineWeb-2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LanguageQuality {
    /// Smallest mean length of words that are not punctuation, characters.
    pub min_mean_word_length: Option<f64>,
    /// Largest mean length of words that are not punctuation, characters.
    pub max_mean_word_length: Option<f64>,
    /// Smallest share of words with a letter.
    pub min_letter_words: Option<f64>,
    /// The stop words.
    pub stop_words: Option<Vec<String>>,
}

impl Default for GopherQualityConfig {
    fn default() -> Self {
        Self {
            mode: GopherMode::default(),
            min_words: 50,
            max_words: None,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_hash_ratio: 0.1,
            max_ellipsis_ratio: 0.1,
            max_symbol_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_letter_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(str::to_owned).to_vec(),
            languages: BTreeMap::new(),
        }
    }
}

/// The filter `gopher_quality`. Source code is kept untouched.
pub struct GopherQuality {
    config: GopherQualityConfig,
    lang: Option<String>,
    english: Limits,
    /// Languages of `config.languages` and of FineWeb-2.
    others: BTreeMap<String, Limits>,
    /// Languages without a table.
    unknown: Limits,
}

/// What depends on the language.
#[derive(Clone, Debug)]
struct Limits {
    word_length: [f64; 2],
    letter_words: f64,
    stop_words: StopWords,
    min_stop_words: usize,
}

impl Plugin for GopherQuality {
    const NAME: &'static str = "gopher_quality";
    const ABOUT: &'static str =
        "Gopher's quality rules: number and length of words, symbols, bullets, letters, stop words.";
    type Config = GopherQualityConfig;
}

impl FilterPlugin for GopherQuality {
    fn build(config: GopherQualityConfig, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let english = Limits {
            word_length: [config.min_mean_word_length, config.max_mean_word_length],
            letter_words: config.min_letter_words,
            stop_words: StopWords::new(config.stop_words.iter().map(String::as_str)),
            min_stop_words: config.min_stop_words,
        };
        let unknown = Limits { stop_words: StopWords::default(), min_stop_words: 0, ..english.clone() };
        let own = |lang: &str| config.languages.get(lang).cloned().unwrap_or_default();
        let limits = |lang: &str| {
            let table = LanguageTable::of(lang).map(|table| Limits::of_table(table, config.min_stop_words));
            table.unwrap_or_else(|| unknown.clone()).with(own(lang), config.min_stop_words)
        };
        let named = config.languages.keys().cloned().chain(LanguageTable::languages().map(str::to_owned));
        let others = named.map(|lang| (lang.clone(), limits(&lang))).collect();
        Ok(Box::new(Self { lang: cx.lang.map(str::to_owned), english, others, unknown, config }))
    }
}

crate::register_filter!(GopherQuality);

impl Limits {
    fn of_table(table: &LanguageTable, min_stop_words: usize) -> Self {
        Self {
            word_length: [table.min_mean_word_length, table.max_mean_word_length],
            letter_words: table.min_letter_words,
            stop_words: StopWords::new(table.stop_words.iter().copied()),
            min_stop_words,
        }
    }

    fn with(self, own: LanguageQuality, min_stop_words: usize) -> Self {
        let [least, most] = self.word_length;
        let (stop_words, min_stop_words) = match &own.stop_words {
            Some(words) => (StopWords::new(words.iter().map(String::as_str)), min_stop_words),
            None => (self.stop_words, self.min_stop_words),
        };
        Self {
            word_length: [own.min_mean_word_length.unwrap_or(least), own.max_mean_word_length.unwrap_or(most)],
            letter_words: own.min_letter_words.unwrap_or(self.letter_words),
            stop_words,
            min_stop_words,
        }
    }
}

impl Filter for GopherQuality {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        if document.is_code() {
            return Vec::new();
        }
        let lang = language(self.lang.as_deref(), document);
        let limits = self.limits(lang);
        let found = self.config.mode.meaning(document, lang).quality(document, &limits.stop_words);
        self.rules(&found, limits)
    }
}

impl GopherQuality {
    fn limits(&self, lang: Option<&str>) -> &Limits {
        match lang {
            Some(lang) if self.config.mode == GopherMode::Datatrove => {
                let english = (lang == "en").then_some(&self.english);
                self.others.get(lang).or(english).unwrap_or(&self.unknown)
            }
            _ => &self.english,
        }
    }

    fn max_words(&self) -> usize {
        let redpajama = self.config.mode == GopherMode::Redpajama;
        self.config.max_words.unwrap_or(if redpajama { 10_000 } else { 100_000 })
    }

    /// The rules in datatrove's order.
    fn rules(&self, found: &Quality, limits: &Limits) -> Vec<Measure> {
        let config = &self.config;
        let [min_length, max_length] = limits.word_length;
        vec![
            Measure::at_least("gopher_short_document", found.words as f64, config.min_words as f64),
            Measure::at_most("gopher_long_document", found.words as f64, self.max_words() as f64),
            Measure::at_least("gopher_short_words", found.word_length, min_length),
            Measure::at_most("gopher_long_words", found.word_length, max_length),
            Measure::at_most("gopher_many_hashes", found.hashes, config.max_hash_ratio),
            Measure::at_most("gopher_many_ellipses", found.ellipses, config.max_ellipsis_ratio),
            Measure::at_most("gopher_many_symbols", found.symbols, config.max_symbol_ratio),
            Measure::at_most("gopher_bullet_lines", found.bullet_lines, config.max_bullet_lines),
            Measure::at_most("gopher_ellipsis_lines", found.ellipsis_lines, config.max_ellipsis_lines),
            Measure::at_least("gopher_few_letter_words", found.letter_words, limits.letter_words),
            Measure::at_least("gopher_few_stop_words", found.stop_words as f64, limits.min_stop_words as f64),
        ]
    }
}
