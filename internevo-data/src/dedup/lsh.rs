//! Locality-sensitive hashing: which documents are worth comparing.
//!
//! A signature of b·r entries is cut into b bands of r rows. Two documents become candidates when all r entries of at
//! least one band agree. Each entry agrees with probability s (the Jaccard similarity), so a pair becomes a candidate
//! with P(s) = 1 - (1 - s^r)^b ([`probability`]): an S-curve through 1/2 at s = (1 - 2^(-1/b))^(1/r) ([`half_point`]).
//! Candidates are compared exactly afterwards, so the curve decides only recall, never precision: choose r small enough
//! that P(threshold) is near one. [`choose_bands`] does: for 0.7 and 128 functions 25×5, with P(0.7) = 0.989 and P(0.8) > 0.9999.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Probability that a pair with Jaccard similarity `s` shares at least one of `bands` bands of `rows` rows.
pub fn probability(s: f64, bands: usize, rows: usize) -> f64 {
    1.0 - (1.0 - s.powf(rows as f64)).powf(bands as f64)
}

/// The similarity at which [`probability`] is one half.
pub fn half_point(bands: usize, rows: usize) -> f64 {
    (1.0 - 2f64.powf(-1.0 / bands as f64)).powf(1.0 / rows as f64)
}

/// The bands and rows for at most `functions` hash functions: the most rows per band (fewest false candidates) with which a pair
/// at `threshold` becomes a candidate with probability `recall` at least; one row where no choice reaches it.
///
/// # Panics
/// If there is no function.
pub fn choose_bands(threshold: f64, functions: usize, recall: f64) -> (usize, usize) {
    assert!(functions > 0, "LSH needs at least one hash function");
    let rows =
        (1..=functions).rev().find(|rows| probability(threshold, functions / rows, *rows) >= recall).unwrap_or(1);
    (functions / rows, rows)
}

/// Keys of bands of `rows` entries. A key is 64 bits: chance collisions are as rare as they are harmless, because every candidate is
/// compared.
#[derive(Clone, Copy, Debug)]
pub struct Bands {
    /// Number of bands.
    pub bands: usize,
    /// Entries of the signature per band.
    pub rows: usize,
}

impl Bands {
    /// The band keys of a signature, appended to `keys`.
    ///
    /// # Panics
    /// If the signature has not `bands * rows` entries.
    pub fn keys(&self, signature: &[u32], keys: &mut Vec<u64>) {
        assert_eq!(signature.len(), self.bands * self.rows, "signature length is bands * rows");
        let mut bytes = Vec::with_capacity(self.rows * 4);
        for (band, rows) in signature.chunks_exact(self.rows).enumerate() {
            bytes.clear();
            rows.iter().for_each(|row| bytes.extend_from_slice(&row.to_le_bytes()));
            keys.push(xxh3_64_with_seed(&bytes, band as u64));
        }
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
                let [a, b] = [a, b].map(|set| {
                    let (mut signature, mut keys) = (Vec::new(), Vec::new());
                    hasher.signature(&set, &mut signature);
                    Bands { bands, rows }.keys(&signature, &mut keys);
                    keys
                });
                hits += u64::from(a.iter().zip(&b).any(|(x, y)| x == y));
            }
            let (p, measured) = (probability(s, bands, rows), hits as f64 / pairs as f64);
            let error = (p * (1.0 - p) / pairs as f64).sqrt();
            assert!((measured - p).abs() < 4.0 * error + 1e-3, "s {s}: P {p}, measured {measured}, error {error}");
        }
    }

    #[test]
    fn the_chosen_bands_reach_the_recall_and_one_more_row_would_not() {
        for (threshold, functions, recall) in [(0.7, 128, 0.97), (0.8, 128, 0.99), (0.5, 256, 0.95), (0.9, 64, 0.999)] {
            let (bands, rows) = choose_bands(threshold, functions, recall);
            assert!(bands * rows <= functions && probability(threshold, bands, rows) >= recall);
            assert!(probability(threshold, functions / (rows + 1), rows + 1) < recall);
        }
        let default = internevo_core::config::DedupConfig::default();
        assert_eq!(choose_bands(default.threshold, 128, 0.97), (default.bands, default.rows));
    }

    #[test]
    fn the_half_point_is_where_the_probability_is_one_half() {
        for (bands, rows) in [(14, 8), (21, 6), (25, 5), (1, 1)] {
            assert!((probability(half_point(bands, rows), bands, rows) - 0.5).abs() < 1e-9);
        }
        assert!((half_point(14, 8) - 0.685).abs() < 5e-4);
    }
}
