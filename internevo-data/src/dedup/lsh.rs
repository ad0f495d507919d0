//! Locality-sensitive hashing: which documents are worth comparing.
//!
//! A signature of b·r entries is cut into b bands of r rows. Two documents become candidates when all r entries of at
//! least one band agree. Each entry agrees with probability s (the Jaccard similarity), so a pair becomes a candidate
//! with P(s) = 1 - (1 - s^r)^b ([`probability`]): an S-curve through 1/2 at s = (1 - 2^(-1/b))^(1/r) ([`half_point`]).
//! Candidates are compared exactly afterwards, so the curve decides only recall, never precision: choose r small enough
//! that P(threshold) is near one. The default 21×6 has P(0.7) = 0.93 and P(0.8) > 0.998.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Probability that a pair with Jaccard similarity `s` shares at least one of `bands` bands of `rows` rows.
pub fn probability(s: f64, bands: usize, rows: usize) -> f64 {
    1.0 - (1.0 - s.powf(rows as f64)).powf(bands as f64)
}

/// The similarity at which [`probability`] is one half.
pub fn half_point(bands: usize, rows: usize) -> f64 {
    (1.0 - 2f64.powf(-1.0 / bands as f64)).powf(1.0 / rows as f64)
}

/// Band keys of all documents: 8 bytes per band and document, nothing else is kept of a signature.
#[derive(Clone, Debug)]
pub struct LshIndex {
    bands: usize,
    rows: usize,
    /// `keys[document * bands + band]`.
    keys: Vec<u64>,
    documents: Vec<u32>,
}

impl LshIndex {
    /// An empty index for signatures of `bands * rows` entries.
    ///
    /// # Panics
    /// If either is zero.
    pub fn new(bands: usize, rows: usize) -> Self {
        assert!(bands > 0 && rows > 0, "LSH needs at least one band of one row");
        Self { bands, rows, keys: Vec::new(), documents: Vec::new() }
    }

    /// The band keys of a signature, appended to `keys`.
    ///
    /// # Panics
    /// If the signature has not `bands * rows` entries.
    pub fn band_keys(&self, signature: &[u32], keys: &mut Vec<u64>) {
        assert_eq!(signature.len(), self.bands * self.rows, "signature length is bands * rows");
        let mut bytes = Vec::with_capacity(self.rows * 4);
        for (band, rows) in signature.chunks_exact(self.rows).enumerate() {
            bytes.clear();
            rows.iter().for_each(|row| bytes.extend_from_slice(&row.to_le_bytes()));
            keys.push(xxh3_64_with_seed(&bytes, band as u64));
        }
    }

    /// Adds `document` by the keys that [`Self::band_keys`] gave. Documents must be added in ascending order.
    ///
    /// # Panics
    /// If the number of keys is not the number of bands, or the order is violated.
    pub fn insert(&mut self, document: u32, keys: &[u64]) {
        assert_eq!(keys.len(), self.bands, "one key per band");
        assert!(self.documents.last().is_none_or(|last| *last < document), "documents are added in ascending order");
        self.keys.extend_from_slice(keys);
        self.documents.push(document);
    }

    /// Number of bands.
    pub fn bands(&self) -> usize {
        self.bands
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Is nothing indexed?
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The groups of two or more documents that share their key of `band`; members ascending, groups in the order of
    /// their first member. Needs 16 bytes per document while it runs.
    pub fn groups(&self, band: usize) -> Vec<Vec<u32>> {
        let mut order: Vec<(u64, u32)> = self
            .documents
            .iter()
            .enumerate()
            .map(|(slot, document)| (self.keys[slot * self.bands + band], *document))
            .collect();
        order.par_sort_unstable();
        let mut groups: Vec<Vec<u32>> = order
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|group| group.len() > 1)
            .map(|group| group.iter().map(|(_, document)| *document).collect())
            .collect();
        groups.sort_unstable();
        groups
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::rng::CounterRng;

    use super::*;
    use crate::dedup::MinHasher;

    #[test]
    fn the_formula_agrees_with_simulated_pairs_within_four_standard_errors() {
        let (bands, rows, pairs) = (7, 4, 500u64);
        for common in [300u64, 500, 700, 850] {
            let s = common as f64 / 1000.0;
            let mut hits = 0u64;
            for pair in 0..pairs {
                let hasher = MinHasher::new(bands * rows, pair);
                let rng = CounterRng::new(pair, "pair");
                let shared = (0..common).map(|i| rng.word64(i));
                let a: Vec<u64> = shared.clone().chain((common..1000).step_by(2).map(|i| rng.word64(i))).collect();
                let b: Vec<u64> = shared.chain((common + 1..1000).step_by(2).map(|i| rng.word64(i))).collect();
                let mut index = LshIndex::new(bands, rows);
                for (document, set) in [a, b].iter().enumerate() {
                    let (mut signature, mut keys) = (Vec::new(), Vec::new());
                    hasher.signature(set, &mut signature);
                    index.band_keys(&signature, &mut keys);
                    index.insert(document as u32, &keys);
                }
                hits += u64::from((0..bands).any(|band| !index.groups(band).is_empty()));
            }
            let (p, measured) = (probability(s, bands, rows), hits as f64 / pairs as f64);
            let error = (p * (1.0 - p) / pairs as f64).sqrt();
            assert!((measured - p).abs() < 4.0 * error + 1e-3, "s {s}: P {p}, measured {measured}, error {error}");
        }
    }

    #[test]
    fn the_half_point_is_where_the_probability_is_one_half() {
        for (bands, rows) in [(14, 8), (21, 6), (25, 5), (1, 1)] {
            assert!((probability(half_point(bands, rows), bands, rows) - 0.5).abs() < 1e-9);
        }
        assert!((half_point(14, 8) - 0.685).abs() < 5e-4);
    }
}
