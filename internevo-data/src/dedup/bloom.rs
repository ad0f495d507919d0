//! Equal texts in one pass: a Bloom filter says whether a text was seen. For streams too long for a sort; a few documents that are no
//! copies go too, and the kept copy cannot be named.

use fastbloom::BloomFilter;

use super::{
    settings::Settings,
    stream::{DeduplicatorContext, Repetition, StreamDeduplicator},
    tokens::text_identity,
};
use crate::{DataError, Document};

/// Seed of the filter's hashes: the same documents go in every run.
const SEED: u128 = 0x0064_6564_7570;
/// Stored bytes of a short document, for a guess how many there may be.
const SHORT_DOCUMENT: u64 = 256;
/// Reason of a rejected document.
const REASON: &str = "seen_before";

/// The method `bloom`.
pub(super) struct Bloom {
    filter: BloomFilter,
}

impl Bloom {
    /// A filter that is large enough for all documents of the input.
    pub fn new(settings: &Settings, cx: &DeduplicatorContext) -> Result<Self, DataError> {
        Ok(Self { filter: filter((cx.stored_bytes / SHORT_DOCUMENT).max(1000), settings)? })
    }
}

impl StreamDeduplicator for Bloom {
    fn features(&self, document: &Document) -> Vec<u64> {
        let identity = text_identity(&document.text);
        vec![identity as u64, (identity >> 64) as u64]
    }

    fn take(&mut self, features: &[u64]) -> Option<Repetition> {
        self.filter.insert(features).then_some(Repetition { reason: REASON.into(), value: 1.0 })
    }
}

/// A filter for `documents` documents.
fn filter(documents: u64, settings: &Settings) -> Result<BloomFilter, DataError> {
    let bits = -(documents as f64) * settings.false_positives.ln() / std::f64::consts::LN_2.powi(2);
    let (needed, allowed) = (bits as usize / 8, settings.memory / 2);
    if needed > allowed {
        // A smaller filter would give another result: memory must never do that.
        let reason = format!(
            "a filter for {documents} documents needs {} MiB, half of the memory is {} MiB: allow more memory or more false positives",
            needed >> 20,
            allowed >> 20
        );
        return Err(DataError::Setting { key: "pipeline.dedup.memory".into(), reason });
    }
    Ok(BloomFilter::with_num_bits(needed.max(1 << 13) * 8).seed(&SEED).expected_items(documents as usize))
}
