//! Rotation on slices. `qkv` is `[T, kv_heads · (q_per_kv + 2) · head_dim]`, row-major and interleaved.

use super::RotaryTable;
use crate::attention::QkvLayout;
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

/// Rotates the query and key heads of every row in place.
///
/// # Panics
/// If lengths do not fit, the table has another head width, or a position is not in it (the message names the token).
pub fn rotate(qkv: &mut [f32], layout: QkvLayout, positions: &[u32], table: &RotaryTable, direction: Direction) {
    let width = layout.qkv_width();
    assert_eq!(qkv.len(), positions.len() * width, "rotary: {} positions of width {width}", positions.len());
    assert_eq!(table.head_dim(), layout.head_dim, "rotary: width of a head in the table and in qkv");
    if let Some(token) = positions.iter().position(|p| *p as usize >= table.positions()) {
        panic!("rotary: position {} of token {token} is outside 0..{}", positions[token], table.positions());
    }
    for_row_blocks(qkv, width, |first, rows| {
        for (row, position) in rows.chunks_exact_mut(width).zip(&positions[first..]) {
            let (cos, sin) = table.at(*position);
            rotate_row(row, layout, cos, sin, direction == Direction::Backward);
        }
    });
}

multiversion! {
    fn rotate_row<const FMA>(row: &mut [f32], layout: QkvLayout, cos: &[f32], sin: &[f32], back: bool) {
        let (d, half) = (layout.head_dim, layout.head_dim / 2);
        let sign = if back { -1.0 } else { 1.0 };
        for group in row.chunks_exact_mut((layout.q_per_kv + 2) * d) {
            for head in group[..(layout.q_per_kv + 1) * d].chunks_exact_mut(d) {
                let (low, high) = head.split_at_mut(half);
                for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let s = *s * sign;
                    (*a, *b) = (madd::<FMA>(*a, *c, -*b * s), madd::<FMA>(*b, *c, *a * s));
                }
            }
        }
    }
}
