//! Counter-based random numbers: every value is a pure function of (seed, stream name, index).
//!
//! Weights drawn this way never depend on the parallel layout, and a shuffle can be resumed at any place without saving
//! generator state. The generator is Philox4x32-10 (Salmon et al., SC'11), the one PyTorch and cuRAND use.

use std::f64::consts::TAU;

/// A named stream of random numbers. Cheap to make; holds no mutable state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRng {
    key: [u32; 2],
    stream: u64,
}

impl CounterRng {
    /// The stream called `name` (a parameter name, `shuffle/epoch-3`, …) of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        // blake3 rather than a fast hash: the value is stored in checkpoints' meaning and must never change.
        let digest = blake3::hash(name.as_bytes());
        let stream = u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("eight bytes"));
        Self { key: [seed as u32, (seed >> 32) as u32], stream }
    }

    /// Four independent 32-bit words for `index`.
    pub fn words(&self, index: u64) -> [u32; 4] {
        let counter = [index as u32, (index >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        philox4x32_10(counter, self.key)
    }

    /// A 64-bit word for `index`.
    pub fn word64(&self, index: u64) -> u64 {
        let w = self.words(index);
        u64::from(w[0]) | (u64::from(w[1]) << 32)
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub fn uniform(&self, index: u64) -> f64 {
        (self.word64(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&self, index: u64) -> f64 {
        let w = self.words(index);
        let u1 = (f64::from(w[0]) + 0.5) / 4_294_967_296.0;
        let u2 = (f64::from(w[1]) + 0.5) / 4_294_967_296.0;
        (-2.0 * u1.ln()).sqrt() * (TAU * u2).cos()
    }

    /// Uniform in `0..bound` without bias that matters (`bound` far below 2^64).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&self, index: u64, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no element");
        ((u128::from(self.word64(index)) * u128::from(bound)) >> 64) as u64
    }

    /// A permutation of `0..n` (Fisher-Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

fn philox4x32_10(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    const M0: u64 = 0xD251_1F53;
    const M1: u64 = 0xCD9E_8D57;
    const W0: u32 = 0x9E37_79B9;
    const W1: u32 = 0xBB67_AE85;
    for _ in 0..10 {
        let p0 = M0 * u64::from(c[0]);
        let p1 = M1 * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(W0), k[1].wrapping_add(W1)];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_known_answers_of_random123() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let rng = CounterRng::new(7, "layers.0.attention.wqkv.weight");
        let n = 200_000u64;
        let (sum, squares) = (0..n).map(|i| rng.normal(i)).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        let mean = sum / n as f64;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((squares / n as f64 - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_depends_on_the_name() {
        let a = CounterRng::new(1, "a").permutation(1000);
        let mut sorted = a.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, v)| i as u32 == *v));
        assert_ne!(a, CounterRng::new(1, "b").permutation(1000));
        assert_eq!(a, CounterRng::new(1, "a").permutation(1000));
    }
}
