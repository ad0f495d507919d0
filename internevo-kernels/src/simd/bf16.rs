//! Conversions between f32 and bf16 slices. Integer arithmetic on lanes, which every instruction set vectorises.

use super::multiversion;
use burn::tensor::bf16;

/// The nearest bf16, ties to even; infinities stay, a NaN stays one (quiet, with the upper bits of its payload).
///
/// Denormal numbers are rounded like all others, unlike by the instruction `vcvtneps2bf16`, which makes them zero.
#[inline(always)]
fn rounded(x: f32) -> bf16 {
    const QUIET: u32 = 0x0040;
    let bits = x.to_bits();
    // Half of the last place kept, less one unless that place is odd: ties go to even.
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | QUIET;
    let is_nan = bits & 0x7FFF_FFFF > 0x7F80_0000;
    bf16::from_bits(if is_nan { quiet } else { nearest } as u16)
}

multiversion! {
    /// `to[i] = from[i]`, rounded to nearest, ties to even.
    ///
    /// # Panics
    /// If the slices differ in length; the same holds for the functions below.
    pub fn round<const FMA>(from: &[f32], to: &mut [bf16]) {
        let _ = FMA;
        assert_eq!(from.len(), to.len(), "rounding to bf16: lengths");
        for (to, from) in to.iter_mut().zip(from) {
            *to = rounded(*from);
        }
    }
}

multiversion! {
    /// `to[i] = from[i]`, exactly.
    pub fn widen<const FMA>(from: &[bf16], to: &mut [f32]) {
        let _ = FMA;
        assert_eq!(from.len(), to.len(), "widening bf16: lengths");
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}

multiversion! {
    /// `sum[i] += x[i]`.
    pub fn add_widened<const FMA>(sum: &mut [f32], x: &[bf16]) {
        let _ = FMA;
        assert_eq!(sum.len(), x.len(), "adding bf16: lengths");
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against the scalar conversions of `half`, an independent implementation.

    use super::{add_widened, bf16, round, widen};
    use crate::testing::Random;

    #[test]
    fn every_bf16_widens_and_rounds_back_to_itself() {
        let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let (mut wide, mut back) = (vec![0.0; all.len()], vec![bf16::ZERO; all.len()]);
        widen(&all, &mut wide);
        round(&wide, &mut back);
        for ((x, wide), back) in all.iter().zip(wide).zip(back) {
            assert_eq!(wide.to_bits(), u32::from(x.to_bits()) << 16);
            let kept = if x.is_nan() { x.to_bits() | 0x40 } else { x.to_bits() };
            assert_eq!(back.to_bits(), kept);
        }
    }

    #[test]
    fn any_f32_rounds_as_by_half_ties_and_values_that_are_not_numbers_included() {
        let mut random = Random::fresh();
        let ties = (0..=u16::MAX).map(|upper| f32::from_bits(u32::from(upper) << 16 | 0x8000));
        let any = (0..500_000).map(|_| f32::from_bits(random.word() as u32));
        let from: Vec<f32> = any.chain(ties).collect();
        let mut to = vec![bf16::ZERO; from.len()];
        round(&from, &mut to);
        for (from, to) in from.iter().zip(to) {
            assert_eq!(to.to_bits(), bf16::from_f32(*from).to_bits(), "{from} {:#x}", from.to_bits());
        }
    }

    #[test]
    fn adding_widens_exactly() {
        let mut sum = vec![1.0, -2.0, 0.5];
        add_widened(&mut sum, &[0.5, 2.0, -0.25].map(bf16::from_f32));
        assert_eq!(sum, [1.5, 0.0, 0.25]);
    }
}
