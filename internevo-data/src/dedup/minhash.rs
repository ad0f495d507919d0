//! MinHash signatures.
//!
//! For a random permutation of all shingles, the probability that two sets have the same smallest element is their
//! Jaccard similarity (Broder, 1997). A signature holds the smallest element under each of n permutations; the share of
//! equal entries estimates the similarity with standard error sqrt(s(1-s)/n).
//!
//! A permutation is `x -> a * x mod 2^32` with `a` odd, applied to shingle hashes that are already well mixed. It is a
//! bijection, so the minimum is one well-defined shingle. (The *high* half of a full-width product would not do: for a
//! fixed `a` it grows with `x`, and every hash function would pick the same shingle.)

use internevo_core::rng::CounterRng;

/// Hash functions computed side by side: two AVX2 registers.
const LANES: usize = 16;

/// A family of hash functions that turns shingles into signatures. The same seed gives the same family for ever.
#[derive(Clone)]
pub struct MinHasher {
    /// Odd multipliers, padded to whole groups of lanes.
    multipliers: Vec<[u32; LANES]>,
    functions: usize,
    arch: pulp::Arch,
}

impl std::fmt::Debug for MinHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MinHasher").field("functions", &self.functions).finish_non_exhaustive()
    }
}

impl MinHasher {
    /// `functions` hash functions drawn from `seed`.
    pub fn new(functions: usize, seed: u64) -> Self {
        let rng = CounterRng::new(seed, "minhash");
        let multiplier = |i: usize| rng.words(i as u64)[0] | 1;
        let groups = functions.div_ceil(LANES);
        let multipliers = (0..groups).map(|g| std::array::from_fn(|lane| multiplier(g * LANES + lane))).collect();
        Self { multipliers, functions, arch: pulp::Arch::new() }
    }

    /// Number of hash functions, which is the length of a signature.
    pub fn functions(&self) -> usize {
        self.functions
    }

    /// The smallest value of every hash function over `shingles`; all `u32::MAX` without shingles.
    ///
    /// Shingles may repeat. `signature` is replaced; keep it for the next document.
    pub fn signature(&self, shingles: &[u64], signature: &mut Vec<u32>) {
        signature.clear();
        signature.resize(self.multipliers.len() * LANES, u32::MAX);
        let (minima, _) = signature.as_chunks_mut();
        self.arch.dispatch(Minima { multipliers: &self.multipliers, shingles, minima });
        signature.truncate(self.functions);
    }
}

/// The kernel, compiled once per instruction set; the machine's best one runs.
struct Minima<'a> {
    multipliers: &'a [[u32; LANES]],
    shingles: &'a [u64],
    minima: &'a mut [[u32; LANES]],
}

impl pulp::WithSimd for Minima<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for (minima, multipliers) in self.minima.iter_mut().zip(self.multipliers) {
            // Local copies stay in registers over all shingles.
            let (mut low, multipliers) = (*minima, *multipliers);
            for &shingle in self.shingles {
                let x = shingle as u32;
                for lane in 0..LANES {
                    low[lane] = low[lane].min(multipliers[lane].wrapping_mul(x));
                }
            }
            *minima = low;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_the_minimum_of_every_function() {
        let hasher = MinHasher::new(21, 3);
        let rng = CounterRng::new(9, "shingles");
        let shingles: Vec<u64> = (0..100).map(|i| rng.word64(i)).collect();
        let mut signature = Vec::new();
        hasher.signature(&shingles, &mut signature);
        let multipliers = CounterRng::new(3, "minhash");
        let expected: Vec<u32> = (0..21)
            .map(|i| {
                shingles.iter().map(|x| (multipliers.words(i)[0] | 1).wrapping_mul(*x as u32)).min().expect("some")
            })
            .collect();
        assert_eq!(signature, expected);
    }

    #[test]
    fn the_share_of_equal_entries_estimates_jaccard_within_four_standard_errors() {
        let (functions, rounds) = (128, 60u64);
        for common in [100u64, 500, 900] {
            let mut equal = 0usize;
            for round in 0..rounds {
                let hasher = MinHasher::new(functions, round);
                let rng = CounterRng::new(round, "elements");
                // 1000 elements in the union, `common` of them shared, the rest split between the two sets.
                let shared = (0..common).map(|i| rng.word64(i));
                let a: Vec<u64> = shared.clone().chain((common..1000).step_by(2).map(|i| rng.word64(i))).collect();
                let b: Vec<u64> = shared.chain((common + 1..1000).step_by(2).map(|i| rng.word64(i))).collect();
                let (mut sa, mut sb) = (Vec::new(), Vec::new());
                hasher.signature(&a, &mut sa);
                hasher.signature(&b, &mut sb);
                equal += sa.iter().zip(&sb).filter(|(x, y)| x == y).count();
            }
            let n = (functions as u64 * rounds) as f64;
            let (s, measured) = (common as f64 / 1000.0, equal as f64 / n);
            let error = (s * (1.0 - s) / n).sqrt();
            assert!((measured - s).abs() < 4.0 * error, "s {s}: measured {measured}, standard error {error}");
        }
    }
}
