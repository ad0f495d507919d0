//! `[pipeline.dedup]` as checked values.

use internevo_core::{config::DedupConfig, plugin::Registry};

use super::{catalog::KeepRule, lsh::Bands, stream::DeduplicatorEntry};
use crate::{DataError, stage::free_memory};

/// Bands, rows and tokens per shingle beyond this are a slip of the pen.
const MAX_SIZE: usize = 4096;
/// Least memory that a run gets along with, bytes.
const LEAST_MEMORY: u64 = 128 << 20;
/// Memory where the system does not say what is free, bytes.
const DEFAULT_MEMORY: u64 = 2 << 30;
/// Of the memory allowed, this much is for the program itself, for reading, parsing and writing, and for what the allocator keeps,
/// bytes (never more than five eighths).
const WORKING_MEMORY: u64 = 128 << 20;
/// Bytes of a chunk of input: enough for every thread to have its part of it, and no more than that.
const LEAST_CHUNK: usize = 256 << 10;
const MOST_CHUNK: usize = 4 << 20;
/// Tokens of a substring worth removing (Lee et al. 2022).
const SUBSTRING_TOKENS: usize = 50;
/// Tokens of a line worth removing: shorter ones (`}`, `end if`) repeat by nature.
const PART_TOKENS: usize = 3;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Documents, by MinHash and true Jaccard similarity.
    MinHash,
    /// Documents, by equality of the text.
    Exact,
    /// Documents, by a Bloom filter over their texts, in one pass.
    Bloom,
    /// Parts of documents.
    Parts(Part),
    /// Documents, by a method of another crate.
    Plugin(&'static DeduplicatorEntry),
}

/// A part of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Between line ends.
    Line,
    /// Between blank lines.
    Paragraph,
    /// Between sentence bounds (UAX #29).
    Sentence,
    /// Any run of tokens.
    Substring,
}

impl Method {
    /// The method called `name` in `pipeline.dedup.method`.
    ///
    /// # Errors
    /// When there is none; names all there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let own = Self::OWN.iter().find(|(own, _)| *own == name).map(|(_, method)| *method);
        own.map_or_else(|| Self::of_plugin(name), Ok)
    }

    fn of_plugin(name: &str) -> Result<Self, String> {
        let registry = Registry::<DeduplicatorEntry>::collect().map_err(|error| error.to_string())?;
        let known: Vec<&str> = Self::OWN.iter().map(|(own, _)| *own).chain(registry.names()).collect();
        let unknown = |_| format!("`{name}` is none of the methods {}", known.join(", "));
        registry.get(name).map(Self::Plugin).map_err(unknown)
    }

    /// The methods of this crate.
    const OWN: [(&str, Self); 7] = [
        ("minhash", Self::MinHash),
        ("exact", Self::Exact),
        ("bloom", Self::Bloom),
        ("lines", Self::Parts(Part::Line)),
        ("paragraphs", Self::Parts(Part::Paragraph)),
        ("sentences", Self::Parts(Part::Sentence)),
        ("substrings", Self::Parts(Part::Substring)),
    ];
}

/// The checked settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is compared.
    pub method: Method,
    /// Who stays.
    pub keep: KeepRule,
    /// Tokens per shingle.
    pub ngram: usize,
    /// Bands and rows of the signature.
    pub bands: Bands,
    /// Least Jaccard similarity of near duplicates.
    pub threshold: f64,
    /// Bytes for signatures and comparisons.
    pub memory: usize,
    /// Fewest tokens of a removed part.
    pub min_tokens: usize,
    /// False positives of the Bloom filter.
    pub false_positives: f64,
}

impl Settings {
    /// Checks `config`.
    ///
    /// # Errors
    /// [`DataError::Setting`] names the key and what is wrong with its value.
    pub fn new(config: &DedupConfig) -> Result<Self, DataError> {
        let wrong = |key: &str, reason: String| DataError::Setting { key: format!("pipeline.dedup.{key}"), reason };
        let method = Method::parse(&config.method).map_err(|reason| wrong("method", reason))?;
        let keep = KeepRule::parse(&config.keep)
            .ok_or_else(|| wrong("keep", format!("`{}` is not one of {}", config.keep, KeepRule::NAMES.join(", "))))?;
        for (key, value) in [("bands", config.bands), ("rows", config.rows), ("ngram", config.ngram)] {
            if !(1..=MAX_SIZE).contains(&value) {
                return Err(wrong(key, format!("{value} is not between 1 and {MAX_SIZE}")));
            }
        }
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            return Err(wrong("threshold", format!("{} is not in (0, 1]", config.threshold)));
        }
        if !(config.false_positives > 0.0 && config.false_positives < 1.0) {
            return Err(wrong("false_positives", format!("{} is not in (0, 1)", config.false_positives)));
        }
        if !config.index.is_empty() && method != Method::MinHash {
            return Err(wrong("index", format!("an index serves `minhash`, not `{}`", config.method)));
        }
        let default_tokens = if method == Method::Parts(Part::Substring) { SUBSTRING_TOKENS } else { PART_TOKENS };
        Ok(Self {
            method,
            keep,
            ngram: config.ngram,
            bands: Bands { bands: config.bands, rows: config.rows },
            threshold: config.threshold,
            memory: memory(&config.memory).map_err(|reason| wrong("memory", reason))?,
            min_tokens: if config.min_tokens == 0 { default_tokens } else { config.min_tokens },
            false_positives: config.false_positives,
        })
    }
}

impl Settings {
    /// Bytes of input that are worked on at once. Three such chunks are in memory, with what is made of them.
    pub(super) fn chunk_bytes(&self) -> usize {
        (self.memory / 64).clamp(LEAST_CHUNK, MOST_CHUNK)
    }
}

/// The bytes that may be used for data out of the memory that is allowed in all.
fn memory(text: &str) -> Result<usize, String> {
    let allowed = if text.is_empty() { free_memory().map_or(DEFAULT_MEMORY, |free| free / 2) } else { bytes(text)? };
    if allowed < LEAST_MEMORY {
        return Err(format!("`{text}` is below {} MiB, which is what the stage itself needs", LEAST_MEMORY >> 20));
    }
    Ok(usize::try_from(allowed - WORKING_MEMORY.min(allowed / 8 * 5)).unwrap_or(usize::MAX))
}

/// An amount of memory: `2GiB`, `512 MiB`, `1.5G` (binary, as `GiB`), `3GB` (decimal) or a plain number of bytes.
///
/// # Errors
/// What is wrong with it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024f64.powi(2),
        "gib" | "g" => 1024f64.powi(3),
        "tib" | "t" => 1024f64.powi(4),
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(format!("`{text}`: unknown unit `{}`; write for example `2GiB` or `512MiB`", unit.trim())),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is no amount of memory; write for example `2GiB`"))?;
    Ok((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read_with_their_units() {
        for (text, expected) in
            [("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("1.5g", 3 << 29), ("3GB", 3_000_000_000), ("4096", 4096)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "two", "2 Gigs", "-1GiB", "1.2.3M"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let default = DedupConfig::default;
        for (config, key) in [
            (DedupConfig { keep: "best".into(), ..default() }, "dedup.keep"),
            (DedupConfig { rows: 0, ..default() }, "dedup.rows"),
            (DedupConfig { threshold: 1.5, ..default() }, "dedup.threshold"),
            (DedupConfig { method: "simhash".into(), ..default() }, "dedup.method"),
            (DedupConfig { memory: "10 MiB".into(), ..default() }, "dedup.memory"),
            (DedupConfig { false_positives: 0.0, ..default() }, "dedup.false_positives"),
            (DedupConfig { method: "exact".into(), index: "i".into(), ..default() }, "dedup.index"),
        ] {
            let message = Settings::new(&config).expect_err("refused").to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
