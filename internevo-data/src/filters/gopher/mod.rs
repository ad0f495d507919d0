//! Gopher's rules (Rae et al. 2021, appendix A1.1), in the meaning of four tools.
//!
//! The rules and their thresholds are the same; what a word, a line or a repetition is differs, and so do verdicts. `mode` chooses:
//!
//! | mode | words | a repeated n-gram counts | of |
//! |---|---|---|---|
//! | `datatrove` | spaCy's tokens, punctuation included | from its second occurrence, none of its words twice | all characters |
//! | `dolma` | what white space separates | at every occurrence, overlaps several times | characters of all n-grams |
//! | `datamap` | Unicode's words (UAX 29), in bytes | at every occurrence, none of its words twice | bytes of words |
//! | `redpajama` | lower-case words without ASCII punctuation | at every occurrence, none of its words twice | characters of words |
//!
//! Each mode is held to its tool's own verdicts by `tests/filters_golden.rs`.

mod datamap;
mod datatrove;
mod dolma;
mod quality;
mod redpajama;
mod repetition;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub use self::{
    quality::{GopherQuality, GopherQualityConfig, LanguageQuality},
    repetition::{GopherRepetition, GopherRepetitionConfig, RepetitionLimits},
};
use crate::features::{Features, Split};

/// Whose meaning of the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GopherMode {
    /// datatrove 0.10, as FineWeb used it.
    #[default]
    Datatrove,
    /// dolma 1.2, tagger `gopher_v2`, filtered as for Dolma 1.5.
    Dolma,
    /// datamap-rs, as for DCLM.
    Datamap,
    /// The quality signals of RedPajama-V2, with its example of Gopher's rules.
    Redpajama,
}

impl GopherMode {
    /// How `document` is measured; `lang` is its language, or the one that the user named.
    fn meaning(self, document: &Features<'_>, lang: Option<&str>) -> Box<dyn Meaning> {
        match self {
            Self::Datatrove => Box::new(datatrove::Datatrove {
                split: Split::of(lang),
                is_markdown: document.document().field("type") == Some("markdown"),
            }),
            Self::Dolma => Box::new(dolma::Dolma),
            Self::Datamap => Box::new(datamap::Datamap),
            Self::Redpajama => Box::new(redpajama::Redpajama),
        }
    }
}

/// What a tool measures of a document. Shares of nothing are NaN, which no threshold is violated by.
trait Meaning {
    /// Everything that the quality rules ask for.
    fn quality(&self, document: &Features<'_>, stop_words: &StopWords) -> Quality;
    /// How much of the paragraphs is repeated.
    fn paragraphs(&self, document: &Features<'_>) -> Shares;
    /// How much of the lines is repeated.
    fn lines(&self, document: &Features<'_>) -> Shares;
    /// Share of characters in the most frequent n-gram.
    fn top_ngram(&self, document: &Features<'_>, n: usize) -> f64;
    /// Share of characters in repeated n-grams.
    fn duplicate_ngrams(&self, document: &Features<'_>, n: usize) -> f64;
}

/// What the quality rules compare with their thresholds. A ratio that a mode does not know is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Quality {
    words: usize,
    /// Mean or median, in characters or bytes.
    word_length: f64,
    /// `#` per word.
    hashes: f64,
    /// Ellipses per word.
    ellipses: f64,
    /// Both together, where the tool adds them.
    symbols: f64,
    bullet_lines: f64,
    ellipsis_lines: f64,
    letter_words: f64,
    stop_words: usize,
}

/// Repeated lines or paragraphs.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    /// Of their number.
    blocks: f64,
    /// Of characters.
    chars: f64,
}

/// Part of a whole; NaN of nothing.
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// A set of words, asked by their hashes.
#[derive(Clone, Debug, Default)]
struct StopWords {
    hashes: Vec<u64>,
    /// Bit `hash % 64` is set for each of `hashes`: most words are turned away by it.
    mask: u64,
}

impl StopWords {
    fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let hashes: Vec<u64> = words.into_iter().map(|word| xxh3_64(word.as_bytes())).collect();
        let mask = hashes.iter().fold(0, |mask, hash| mask | 1 << (hash % 64));
        Self { hashes, mask }
    }

    /// Number of the stop word with this hash.
    #[inline]
    fn position(&self, hash: u64) -> Option<usize> {
        if self.mask >> (hash % 64) & 1 == 0 { None } else { self.hashes.iter().position(|own| *own == hash) }
    }

    fn has(&self, word: &str) -> bool {
        self.position(xxh3_64(word.as_bytes())).is_some()
    }

    fn len(&self) -> usize {
        self.hashes.len()
    }
}
