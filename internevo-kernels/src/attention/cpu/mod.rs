//! Attention on slices: forward (packed or against a cache) and backward. Row-major throughout.
//!
//! A tile stacks a block of query rows of all heads of one group, so that keys and values are read once per group.
//! Every output element is produced by one task in one order: the bits do not depend on the number of threads.

mod backward;
mod forward;
mod tile;

pub use backward::{Saved, backward};
pub use forward::{forward, forward_cached};

use super::QkvLayout;
use crate::matmul::Matrix;

/// Keys that a score tile spans: with 128 stacked rows a tile is 256 KiB, which stays in the second-level cache.
pub(super) const KEY_TILE: usize = 512;

/// Stacked query rows that a tile aims at, over all heads of a group.
const TILE_ROWS: usize = 128;

/// Query positions per tile. More would waste work above the diagonal, fewer would starve the matrix products.
fn query_block(q_per_kv: usize) -> usize {
    (TILE_ROWS / q_per_kv).clamp(16, 64)
}

/// Query positions `start..start + len` of a segment, to be handled by one task.
#[derive(Clone, Copy, Debug)]
struct QueryBlock {
    /// First query position, counted in the whole buffer.
    start: usize,
    /// How many positions.
    len: usize,
    /// How many keys the first of them sees (each next one sees one more).
    visible: usize,
}

/// Rows of one head (or of the adjacent query heads of a group) inside a wider buffer.
#[derive(Clone, Copy, Debug)]
struct Strip<'a> {
    data: &'a [f32],
    offset: usize,
    stride: usize,
}

impl<'a> Strip<'a> {
    /// `count` rows of `columns` adjacent elements from row `first` on.
    fn rows(&self, first: usize, count: usize, columns: usize) -> Matrix<'a> {
        Matrix::strided(&self.data[first * self.stride + self.offset..], count, columns, self.stride)
    }

    /// One row of `columns` elements.
    fn row(&self, index: usize, columns: usize) -> &'a [f32] {
        &self.data[index * self.stride + self.offset..][..columns]
    }

    /// Copies a block of query rows of all heads of the group into `stacked`: `[head][position][head_dim]`.
    fn stack(&self, block: QueryBlock, layout: QkvLayout, stacked: &mut [f32]) {
        let d = layout.head_dim;
        for position in 0..block.len {
            let row = self.row(block.start + position, layout.q_per_kv * d);
            for (head, source) in row.chunks_exact(d).enumerate() {
                stacked[(head * block.len + position) * d..][..d].copy_from_slice(source);
            }
        }
    }
}

/// The strips of one group in an interleaved `qkv`: queries, keys, values.
fn group_strips(qkv: &[f32], layout: QkvLayout, group: usize) -> [Strip<'_>; 3] {
    let (d, stride) = (layout.head_dim, layout.qkv_width());
    let offset = group * (layout.q_per_kv + 2) * d;
    let at = |heads: usize| Strip { data: qkv, offset: offset + heads * d, stride };
    [at(0), at(layout.q_per_kv), at(layout.q_per_kv + 1)]
}
