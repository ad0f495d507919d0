//! The one order in which reductions combine the ranks' elements; every backend on the host calls it. Its definition is in
//! the documentation of [`Communicator`](super::Communicator).

use std::ops::Range;

#[cfg(feature = "mpi")]
use super::ReduceOp;

/// Elements combined at a time: one tile of each of eight ranks fits the first-level cache.
const TILE: usize = 1024;

/// A number that can be reduced.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Their sum; integers wrap.
    fn sum(self, other: Self) -> Self;
    /// The larger one; NaN if one is.
    fn larger(self, other: Self) -> Self;
    /// The smaller one; NaN if one is.
    fn smaller(self, other: Self) -> Self;
}

macro_rules! float_element {
    ($float:ty) => {
        impl Element for $float {
            fn sum(self, other: Self) -> Self {
                self + other
            }
            fn larger(self, other: Self) -> Self {
                if self.is_nan() || self > other { self } else { other }
            }
            fn smaller(self, other: Self) -> Self {
                if self.is_nan() || self < other { self } else { other }
            }
        }
    };
}

macro_rules! integer_element {
    ($integer:ty) => {
        impl Element for $integer {
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }
        }
    };
}

float_element!(f32);
float_element!(f64);
integer_element!(i64);
integer_element!(u8);

/// Combines equally long lanes, one per rank in rank order. The result is in lane 0 and in lane `keep`, or in all lanes; the
/// others hold intermediate values.
#[cfg(feature = "mpi")]
pub(crate) fn combine<T: Element>(lanes: &mut [&mut [T]], keep: Option<usize>, op: ReduceOp) {
    match op {
        ReduceOp::Sum => combine_with(lanes, keep, T::sum),
        ReduceOp::Max => combine_with(lanes, keep, T::larger),
        ReduceOp::Min => combine_with(lanes, keep, T::smaller),
    }
}

/// [`combine`] with the operation as a type, so that the inner loop is vectorised.
pub(crate) fn combine_with<T: Element>(lanes: &mut [&mut [T]], keep: Option<usize>, f: impl Fn(T, T) -> T) {
    for tile in tiles(lanes.first().map_or(0, |lane| lane.len())) {
        combine_tile(lanes, tile, keep, &f);
    }
}

/// The parts of `0..len` that are worked on at a time.
pub(crate) fn tiles(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(TILE).map(move |start| start..(start + TILE).min(len))
}

/// Pairs, then pairs of pairs; a lane without a partner waits.
fn combine_tile<T: Copy>(lanes: &mut [&mut [T]], tile: Range<usize>, keep: Option<usize>, f: &impl Fn(T, T) -> T) {
    let ranks = lanes.len();
    let mut stride = 1;
    while stride < ranks {
        for left in (0..ranks - stride).step_by(2 * stride) {
            let (head, tail) = lanes.split_at_mut(left + stride);
            for (a, b) in head[left][tile.clone()].iter_mut().zip(&tail[0][tile.clone()]) {
                *a = f(*a, *b);
            }
        }
        stride *= 2;
    }
    let Some((sum, others)) = lanes.split_first_mut() else { return };
    for (index, lane) in others.iter_mut().enumerate() {
        if keep.is_none_or(|rank| rank == index + 1) {
            lane[tile.clone()].copy_from_slice(&sum[tile.clone()]);
        }
    }
}
