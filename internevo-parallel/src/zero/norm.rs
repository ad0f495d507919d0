//! The global gradient norm, with the same bits for every layout: the sum of squares is exact, so no order of additions and
//! no division among ranks can change it.
//!
//! The square of an f32 is exact in f64. Squares are added as integers, in bins of 32 binary exponents; a bin is 128 bits wide
//! and holds 2^43 squares before it could overflow.

use rayon::prelude::*;

use crate::comm::{Buffer, CommError, Communicator, ReduceOp};

/// Elements that one thread adds at a time.
const CHUNK: usize = 64 * 1024;
/// Binary exponents per bin.
const BIN_BITS: u32 = 32;
/// Biased exponents of f64, in bins.
const BINS: usize = 2048 / BIN_BITS as usize;
/// Digits of 32 bits in the total: one per bin, and those that the highest bin carries into.
const DIGITS: usize = BINS + 4;
/// Exponent of the lowest bit of bin 0: f64 has 52 bits of fraction and a bias of 1023.
const LOWEST: i32 = -1023 - 52;

/// An exact sum of squares.
#[derive(Clone, Debug)]
pub(super) struct SquareSum {
    bins: Box<[u128; BINS]>,
    /// Elements that were NaN or infinite.
    not_finite: u64,
}

impl SquareSum {
    pub(super) fn new() -> Self {
        Self { bins: Box::new([0; BINS]), not_finite: 0 }
    }

    /// Adds the squares of `values`.
    pub(super) fn add(&mut self, values: &[f32]) {
        let parts = values.par_chunks(CHUNK).map(|chunk| {
            let mut sum = Self::new();
            chunk.iter().for_each(|x| sum.add_one(*x));
            sum
        });
        for part in parts.collect::<Vec<_>>() {
            self.bins.iter_mut().zip(part.bins.iter()).for_each(|(a, b)| *a += b);
            self.not_finite += part.not_finite;
        }
    }

    #[inline(always)]
    fn add_one(&mut self, x: f32) {
        let bits = (f64::from(x) * f64::from(x)).to_bits();
        let exponent = (bits >> 52) as u32;
        if exponent == 0 {
            return; // Zero: the least square of an f32, 2^-298, is a normal f64.
        }
        if exponent == 0x7ff {
            self.not_finite += 1;
            return;
        }
        let significand = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
        self.bins[(exponent / BIN_BITS) as usize] += significand << (exponent % BIN_BITS);
    }

    /// The sum as 32-bit digits, lowest first, each with room for carries; the last element counts what is not finite. Such
    /// vectors of several ranks may be added element by element.
    fn digits(&self) -> Vec<i64> {
        let mut digits = vec![0i64; DIGITS + 1];
        for (bin, value) in self.bins.iter().enumerate() {
            for digit in 0..4 {
                digits[bin + digit] += ((value >> (32 * digit)) & 0xffff_ffff) as i64;
            }
        }
        digits[DIGITS] = self.not_finite as i64;
        digits
    }

    /// The root of the sum over all ranks of `group`; NaN when some element was not finite. Collective.
    pub(super) fn root(&self, group: &dyn Communicator) -> Result<f64, CommError> {
        let mut digits = self.digits();
        if group.size() > 1 {
            digits = group.all_reduce(Buffer::I64(digits), ReduceOp::Sum)?.wait()?.into_i64();
        }
        Ok(value_of(digits).sqrt())
    }
}

/// The number that digits stand for, rounded from its highest 96 bits.
fn value_of(mut digits: Vec<i64>) -> f64 {
    if digits.pop() != Some(0) {
        return f64::NAN;
    }
    let mut carry = 0;
    for digit in &mut digits {
        let sum = *digit + carry;
        (*digit, carry) = (sum & 0xffff_ffff, sum >> 32);
    }
    digits.push(carry);
    let Some(top) = digits.iter().rposition(|d| *d != 0) else { return 0.0 };
    let lowest = top.saturating_sub(2);
    let head = digits[lowest..=top].iter().rev().fold(0u128, |number, digit| number << 32 | *digit as u128);
    // Bin 0 begins at biased exponent 0, where a significand counts units of 2^LOWEST.
    let exponent = LOWEST + 32 * lowest as i32;
    head as f64 * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comm::local_world;

    fn root(values: &[f32]) -> f64 {
        let mut sum = SquareSum::new();
        sum.add(values);
        sum.root(&*local_world(1)[0]).expect("one rank")
    }

    proptest! {
        #[test]
        fn the_norm_is_that_of_f64_and_does_not_depend_on_the_order(
            mut values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..300),
        ) {
            let squares: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
            let norm = root(&values);
            prop_assert!((norm - squares.sqrt()).abs() <= 1e-13 * squares.sqrt(), "{} against {}", norm, squares.sqrt());
            values.reverse();
            prop_assert_eq!(norm.to_bits(), root(&values).to_bits());
        }
    }

    #[test]
    fn extreme_values_neither_overflow_nor_vanish() {
        assert_eq!(root(&[f32::MAX; 4]), 2.0 * f64::from(f32::MAX));
        let least = f32::from_bits(1);
        assert_eq!(root(&[least; 4]), 2.0 * f64::from(least));
        // 2^-149 beside 2^127: lost in f64, kept in the sum, and without effect on its rounded root.
        assert_eq!(root(&[f32::MAX, least]), f64::from(f32::MAX));
        assert_eq!(root(&[]), 0.0);
    }

    #[test]
    fn what_is_not_finite_gives_nan() {
        assert!(root(&[1.0, f32::NAN]).is_nan() && root(&[f32::INFINITY]).is_nan());
    }

    #[test]
    fn many_equal_values_add_up_exactly() {
        let values = vec![0.1f32; 300_000];
        let exact = f64::from(0.1f32) * f64::from(0.1f32) * 300_000.0;
        assert!((root(&values) / exact.sqrt() - 1.0).abs() < 1e-15);
    }
}
