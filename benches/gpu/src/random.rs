//! Random numbers for inputs: SplitMix64 and sums of uniforms. Not for anything that must be random.

/// A generator; equal seeds give equal numbers.
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// An integer below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u32
    }

    /// A value of mean 0 and variance 1, within ±3.
    pub fn normal(&mut self) -> f32 {
        let mut uniform = || (self.word() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        uniform() + uniform() + uniform()
    }

    /// `len` values of [`Random::normal`].
    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}
