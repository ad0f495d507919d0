//! Sums of terms that are spread over ranks, with the same bits however they are spread: rounded once, against the largest
//! term, so that every addition after it is exact and no order matters.
//!
//! The method is pre-rounding (Rump 2009; Demmel and Nguyen, "Fast Reproducible Floating-Point Summation", ARITH 2013): for a
//! sum of `n` terms of at most `m`, every term is rounded to a multiple of `q`, about `n m 2^-50`; all partial sums are then
//! multiples of `q` below `2^53 q`, which f64 holds exactly. The sum is off by at most `n q / 2`.
//!
//! Not here: the gradient norm, which is exact without rounding (`zero/norm.rs`) at the cost of a kilobyte a sum.

use rayon::prelude::*;

use crate::{
    comm::{CommError, ReduceOp},
    state::Exchange,
};

/// Terms that this rank has of some sums. They are finite and not negative.
pub(super) trait Terms: Sync {
    /// How many terms each sum has at most, over all ranks. Equal on all ranks.
    fn counts(&self) -> Vec<usize>;

    /// Gives every term to the slot of its sum. The order does not matter.
    fn visit<S: Slot>(&self, slots: &mut [S]);
}

/// What collects the terms of one sum.
pub(super) trait Slot {
    /// Takes a term.
    fn take(&mut self, term: f64);
}

/// Finds the largest term.
#[derive(Clone, Copy)]
struct Largest(f64);

impl Slot for Largest {
    #[inline(always)]
    fn take(&mut self, term: f64) {
        self.0 = self.0.max(term);
    }
}

/// Adds terms rounded to multiples of a power of two.
#[derive(Clone, Copy)]
struct Rounded {
    sum: f64,
    /// `1.5 * 2^52` units of that power: adding it pushes everything smaller out of the significand.
    shift: f64,
}

impl Rounded {
    /// For at most `count` terms of at most `largest`.
    fn new(count: usize, largest: f64) -> Self {
        if largest == 0.0 {
            return Self { sum: 0.0, shift: 0.0 };
        }
        let count = count.max(1).next_power_of_two() as f64;
        // The power of two above the largest term; doubled, so that a term stays within half of the shift's unit range.
        let above = 2.0 * f64::from_bits(largest.to_bits() & (0x7ff << 52));
        Self { sum: 0.0, shift: 1.5 * 2.0 * above * count }
    }
}

impl Slot for Rounded {
    #[inline(always)]
    fn take(&mut self, term: f64) {
        self.sum += (term + self.shift) - self.shift;
    }
}

/// The sums of all `items` over all ranks of the exchange's group, item by item. Collective, with equal counts.
///
/// # Errors
/// A failed world.
pub(super) fn exact_sums<T: Terms>(exchange: &Exchange, items: &[T]) -> Result<Vec<Vec<f64>>, CommError> {
    let counts: Vec<Vec<usize>> = items.par_iter().map(Terms::counts).collect();
    let largest = items.par_iter().zip(&counts).map(|(terms, counts)| {
        let mut slots = vec![Largest(0.0); counts.len()];
        terms.visit(&mut slots);
        slots.into_iter().map(|slot| slot.0).collect()
    });
    let largest = over_ranks(exchange, largest.collect(), ReduceOp::Max)?;
    let sums = items.par_iter().zip(counts).zip(largest).map(|((terms, counts), largest)| {
        let slot = |(count, largest): (usize, f64)| Rounded::new(count, largest);
        let mut slots: Vec<Rounded> = counts.into_iter().zip(largest).map(slot).collect();
        terms.visit(&mut slots);
        slots.into_iter().map(|slot| slot.sum).collect()
    });
    over_ranks(exchange, sums.collect(), ReduceOp::Sum)
}

/// Combines the vectors of all ranks in one message.
fn over_ranks(exchange: &Exchange, parts: Vec<Vec<f64>>, op: ReduceOp) -> Result<Vec<Vec<f64>>, CommError> {
    let lengths: Vec<usize> = parts.iter().map(Vec::len).collect();
    let mut rest = exchange.all_reduce(parts.concat(), op)?.into_iter();
    Ok(lengths.into_iter().map(|len| rest.by_ref().take(len).collect()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(terms: &[f64]) -> f64 {
        let largest = terms.iter().copied().fold(0.0, f64::max);
        let mut slot = Rounded::new(terms.len(), largest);
        terms.iter().for_each(|term| slot.take(*term));
        slot.sum
    }

    proptest! {
        #[test]
        fn neither_order_nor_grouping_changes_a_bit_and_the_error_is_bounded(
            mut terms in prop::collection::vec((0.0f64..1.0, -40i32..40).prop_map(|(x, e)| x * 2f64.powi(e)), 1..200),
            cut in 0usize..200,
        ) {
            let largest = terms.iter().copied().fold(0.0, f64::max);
            let sum = sum_of(&terms);
            terms.sort_by(f64::total_cmp);
            let plain: f64 = terms.iter().sum();
            let n = terms.len() as f64;
            prop_assert!((sum - plain).abs() <= n * n * largest * 2f64.powi(-48), "{} against {}", sum, plain);
            let (left, right) = terms.split_at(cut.min(terms.len()));
            let part = |part: &[f64]| {
                let mut slot = Rounded::new(terms.len(), largest);
                part.iter().for_each(|term| slot.take(*term));
                slot.sum
            };
            prop_assert_eq!((part(left) + part(right)).to_bits(), sum.to_bits());
        }
    }

    #[test]
    fn a_single_square_of_an_f32_is_exact() {
        for x in [1.0f32, 0.1, f32::MAX, f32::from_bits(1), 0.0] {
            let square = f64::from(x) * f64::from(x);
            assert_eq!(sum_of(&[square]), square);
        }
    }
}
