//! Shingles: hashes of n consecutive tokens, and the sets whose Jaccard similarity defines a near duplicate.

use crate::spill::Blob;

/// Base of the rolling polynomial; any odd number with mixed bits serves (this is 2^64 divided by the golden ratio).
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Appends one hash per run of `ngram` consecutive tokens. Fewer tokens than `ngram` give one shingle of all of them;
/// no token gives none.
///
/// # Panics
/// If `ngram` is zero.
pub fn shingles(tokens: &[u64], ngram: usize, out: &mut Vec<u64>) {
    assert!(ngram > 0, "a shingle has at least one token");
    out.clear();
    if tokens.is_empty() {
        return;
    }
    let ngram = ngram.min(tokens.len());
    // The polynomial sum(token_k * BASE^(ngram-1-k)) moves by one token with two multiplications, whatever `ngram` is.
    let leaving_weight = (0..ngram).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut rolling = 0u64;
    for (at, &token) in tokens.iter().enumerate() {
        rolling = rolling.wrapping_mul(BASE).wrapping_add(token);
        if at >= ngram {
            rolling = rolling.wrapping_sub(tokens[at - ngram].wrapping_mul(leaving_weight));
        }
        if at + 1 >= ngram {
            out.push(mix(rolling));
        }
    }
}

/// The finaliser of SplitMix64: a bijection that spreads every input bit over the whole word.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Steps of a comparison between two looks at whether it can still succeed.
const CHECK_EVERY: usize = 64;

/// The distinct shingles of one document, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShingleSet(Vec<u64>);

impl ShingleSet {
    /// The set of these shingle hashes, in any order and with repetitions.
    pub fn new(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        hashes.shrink_to_fit();
        Self(hashes)
    }

    /// Number of distinct shingles.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there no shingle?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// |A ∩ B| / |A ∪ B|; 0 for two empty sets (nothing says that they are alike).
    pub fn jaccard(&self, other: &Self) -> f64 {
        let (a, b) = (&self.0, &other.0);
        let (mut i, mut j, mut common) = (0, 0, 0usize);
        while i < a.len() && j < b.len() {
            let (x, y) = (a[i], b[j]);
            common += usize::from(x == y);
            i += usize::from(x <= y);
            j += usize::from(y <= x);
        }
        let union = a.len() + b.len() - common;
        if union == 0 { 0.0 } else { common as f64 / union as f64 }
    }

    /// [`Self::jaccard`] if it is at least `least`, which must be positive. Most pairs that are not are told early:
    /// after more unmatched elements than such a similarity allows.
    pub fn jaccard_from(&self, other: &Self, least: f64) -> Option<f64> {
        let (a, b) = (&self.0, &other.0);
        // With c common elements J = c / (|a| + |b| - c), so J >= least needs c >= least / (1 + least) * (|a| + |b|).
        // One element of slack keeps rounding from ever deciding.
        let total = a.len() + b.len();
        let allowed = total as f64 - 2.0 * (least / (1.0 + least) * total as f64) + 1.0;
        if (a.len().abs_diff(b.len())) as f64 > allowed {
            return None;
        }
        let (mut i, mut j, mut common) = (0, 0, 0usize);
        while i < a.len() && j < b.len() {
            for _ in 0..CHECK_EVERY {
                if i == a.len() || j == b.len() {
                    break;
                }
                // Written without branches: the outcome of each comparison is close to random.
                let (x, y) = (a[i], b[j]);
                common += usize::from(x == y);
                i += usize::from(x <= y);
                j += usize::from(y <= x);
            }
            if (i + j - 2 * common) as f64 > allowed {
                return None;
            }
        }
        let union = total - common;
        let jaccard = if union == 0 { 0.0 } else { common as f64 / union as f64 };
        (jaccard >= least).then_some(jaccard)
    }
}

impl Blob for ShingleSet {
    fn bytes(&self) -> usize {
        self.0.len() * 8
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
    }
    fn read(content: &[u8]) -> Self {
        Self(content.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rolling_shingles_are_equal_exactly_where_the_token_runs_are(
            tokens in proptest::collection::vec(0u64..4, 0..60), ngram in 1usize..7,
        ) {
            let mut hashes = Vec::new();
            shingles(&tokens, ngram, &mut hashes);
            let runs: Vec<&[u64]> = tokens.windows(ngram.min(tokens.len()).max(1)).collect();
            prop_assert_eq!(hashes.len(), runs.len());
            for (i, a) in runs.iter().enumerate() {
                for (j, b) in runs.iter().enumerate() {
                    prop_assert_eq!(a == b, hashes[i] == hashes[j]);
                }
            }
        }

        #[test]
        fn jaccard_agrees_with_hash_sets(
            a in proptest::collection::vec(0u64..90, 0..200), b in proptest::collection::vec(0u64..90, 0..200),
        ) {
            let (sa, sb): (HashSet<_>, HashSet<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
            let union = sa.union(&sb).count();
            let expected = if union == 0 { 0.0 } else { sa.intersection(&sb).count() as f64 / union as f64 };
            let (x, y) = (ShingleSet::new(a), ShingleSet::new(b));
            prop_assert_eq!(x.jaccard(&y), expected);
            for least in [0.05, 0.3, 0.7, 1.0, expected.max(f64::MIN_POSITIVE)] {
                prop_assert_eq!(x.jaccard_from(&y, least), (expected >= least).then_some(expected), "least {}", least);
            }
        }
    }
}
