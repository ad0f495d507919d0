//! Heuristic filters: rules that need nothing but the document.
//!
//! | filter | rules of |
//! |---|---|
//! | `gopher_quality` | Rae et al. 2021, appendix A1.1, as datatrove applies them |
//! | `gopher_repetition` | the same paper, table A1 |
//! | `code_quality` | StarCoder (Li et al. 2023), for source code |
//! | `char_anomaly` | the InternLM2 report, section 3.1.1: line breaks, characters and punctuation that look wrong |
//!
//! Filters for prose leave source code alone and the other way round, so that one chain serves a mixed corpus.

mod char_anomaly;
mod code_quality;
mod gopher_quality;
mod gopher_repetition;
#[cfg(test)]
mod tests;

pub use self::{
    char_anomaly::{CharAnomaly, CharAnomalyConfig},
    code_quality::{CodeQuality, CodeQualityConfig},
    gopher_quality::{ChineseQuality, GopherQuality, GopherQualityConfig},
    gopher_repetition::{ChineseRepetition, GopherRepetition, GopherRepetitionConfig},
};

use crate::features::Features;

/// Which table of thresholds a document gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    English,
    Chinese,
    /// Other languages without spaces between words: Chinese thresholds, no stop words.
    Unspaced,
    /// Languages without a table: English thresholds, no stop words.
    Other,
}

impl Table {
    /// By the language that the user named, else by the document's; a document without one counts as English, as in datatrove.
    fn of(forced: Option<&str>, document: &Features<'_>) -> Self {
        match forced.or(document.lang()) {
            None | Some("en") => Self::English,
            Some("zh") => Self::Chinese,
            Some("ja" | "th" | "lo" | "my" | "km") => Self::Unspaced,
            Some(_) => Self::Other,
        }
    }

    /// Is every character a word of its own?
    fn is_unspaced(self) -> bool {
        matches!(self, Self::Chinese | Self::Unspaced)
    }
}
