//! What kernels ask about the lanes of a vector when a load holds elements of more than one row or segment.

use cubecl::prelude::*;

/// 0, 1, 2, ... up to the size of a vector.
#[cube]
pub(crate) fn lane_indices<N: Size>() -> Vector<u32, N> {
    let mut lanes = Vector::<u32, N>::new(0u32);
    #[unroll]
    for lane in 1..N::value() {
        lanes.insert(lane, comptime!(lane as u32).runtime());
    }
    lanes
}

/// The largest lane.
#[cube]
pub(crate) fn vector_max<N: Size>(value: Vector<f32, N>) -> f32 {
    let mut largest = value.extract(0usize);
    #[unroll]
    for lane in 1..N::value() {
        largest = max(largest, value.extract(lane));
    }
    largest
}

/// Whether a number is neither NaN nor infinite, from its bits: no fast-math assumption can optimise that away.
#[cube]
pub(crate) fn is_finite(value: f32) -> bool {
    let exponent = u32::reinterpret(value) & 0x7f80_0000u32;
    exponent != 0x7f80_0000u32
}
