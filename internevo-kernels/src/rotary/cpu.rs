//! Rotation on slices. `x` is `[T, heads.width()]`, row-major.

use super::{RotaryHeads, RotaryTable};
use crate::rows::for_row_blocks;
use crate::simd::{madd, multiversion};

/// Which way to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the position's angle: the forward.
    Forward,
    /// Back by the same angle: the gradient.
    Backward,
}

/// Rotates the heads of every row in place: those of a [`RotaryHeads`], or the queries and keys of a
/// [`crate::attention::QkvLayout`].
///
/// # Panics
/// If lengths do not fit, the table has another head width, or a position is not in it (the message names the token).
pub fn rotate(
    x: &mut [f32],
    heads: impl Into<RotaryHeads>,
    positions: &[u32],
    table: &RotaryTable,
    direction: Direction,
) {
    let heads = heads.into();
    let width = heads.width();
    assert_eq!(x.len(), positions.len() * width, "rotary: {} positions of width {width}", positions.len());
    table.check(heads.head_dim, positions);
    for_row_blocks(x, width, |first, rows| {
        for (row, position) in rows.chunks_exact_mut(width).zip(&positions[first..]) {
            let (cos, sin) = table.at(*position);
            rotate_row(row, heads, cos, sin, direction == Direction::Backward);
        }
    });
}

multiversion! {
    fn rotate_row<const FMA>(row: &mut [f32], heads: RotaryHeads, cos: &[f32], sin: &[f32], back: bool) {
        let (d, half) = (heads.head_dim, heads.head_dim / 2);
        let sign = if back { -1.0 } else { 1.0 };
        for group in row.chunks_exact_mut((heads.rotated + heads.passed) * d) {
            for head in group[..heads.rotated * d].chunks_exact_mut(d) {
                let (low, high) = head.split_at_mut(half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let s = *s * sign;
                    (*a, *b) = (madd::<FMA>(*a, *c, -*b * s), madd::<FMA>(*b, *c, *a * s));
                }
            }
        }
    }
}
