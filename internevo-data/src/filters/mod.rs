//! Heuristic filters: rules that need nothing but the document.
//!
//! | filter | rules of |
//! |---|---|
//! | `gopher_quality`, `gopher_repetition` | Rae et al. 2021, in the meaning of datatrove, dolma, datamap-rs or RedPajama: `mode` |
//! | `c4` | Raffel et al. 2020: sentences, policy notices, placeholders |
//! | `fineweb` | Penedo et al. 2024: line ends, short lines, repeated lines |
//! | `code_quality` | StarCoder (Li et al. 2023), for source code |
//! | `char_anomaly` | the InternLM2 report, section 3.1.1: line breaks, characters and punctuation that look wrong |
//!
//! Filters for prose leave source code alone and the other way round, so that one chain serves a mixed corpus. Thresholds by
//! language are FineWeb-2's (`tables/`).

mod c4;
mod char_anomaly;
mod code_quality;
mod fineweb;
mod gopher;
mod tables;
#[cfg(test)]
mod tests;

pub use self::{
    c4::{C4, C4Config, KeptLines},
    char_anomaly::{CharAnomaly, CharAnomalyConfig},
    code_quality::{CodeQuality, CodeQualityConfig},
    fineweb::{FineWeb, FineWebConfig},
    gopher::{
        GopherMode, GopherQuality, GopherQualityConfig, GopherRepetition, GopherRepetitionConfig, LanguageQuality,
        RepetitionLimits,
    },
    tables::LanguageTable,
};

use crate::features::Features;

/// The language that the user named, else the document's; `None` counts as English, as in datatrove.
fn language<'b>(forced: Option<&'b str>, document: &'b Features<'_>) -> Option<&'b str> {
    forced.or(document.lang())
}
