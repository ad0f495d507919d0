//! Attention on slices: forward (packed, against a cache, or in steps over keys that arrive one part after the other) and
//! backward. Row-major throughout.
//!
//! A tile stacks a block of query rows of all heads of one group, so that keys and values are read once per group.
//! Every output element is produced by one task in one order: the bits do not depend on the number of threads.

mod backward;
mod forward;
mod partial;
mod plan;
mod tile;

pub use backward::{Saved, backward};
pub use forward::{forward, forward_cached};
pub use partial::{Held, PartialAttention, add_kv, backward_step, pack_kv};

use super::QkvLayout;
use crate::matmul::Matrix;
use crate::rows::SharedMut;
use plan::QueryBlock;

/// Keys that a score tile spans: with 128 stacked rows a tile is 256 KiB, which stays in the second-level cache.
pub(super) const KEY_TILE: usize = 512;

/// Rows of one head (or of the adjacent query heads of a group) inside a wider buffer.
#[derive(Clone, Copy)]
struct Strip<D> {
    data: D,
    offset: usize,
    stride: usize,
}

impl<'a> Strip<&'a [f32]> {
    /// `count` rows of `columns` adjacent elements from row `first` on.
    fn rows(&self, first: usize, count: usize, columns: usize) -> Matrix<'a> {
        Matrix::strided(&self.data[first * self.stride + self.offset..], count, columns, self.stride)
    }

    /// One row of `columns` elements.
    fn row(&self, index: usize, columns: usize) -> &'a [f32] {
        &self.data[index * self.stride + self.offset..][..columns]
    }

    /// Copies a block of query rows of all heads of the group into `stacked`: `[head][position][head_dim]`.
    fn stack(&self, block: &QueryBlock, layout: QkvLayout, stacked: &mut [f32]) {
        let d = layout.head_dim;
        for position in 0..block.len {
            let row = self.row(block.start + position, layout.q_per_kv * d);
            for (head, source) in row.chunks_exact(d).enumerate() {
                stacked[(head * block.len + position) * d..][..d].copy_from_slice(source);
            }
        }
    }
}

impl<'a> Strip<SharedMut<'a>> {
    /// One row of `columns` elements, to be changed.
    ///
    /// # Safety
    /// Nobody else uses them while the slice lives.
    unsafe fn row_mut(&self, index: usize, columns: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(index * self.stride + self.offset, columns) }
    }
}

/// The strips of one group in an interleaved `qkv`: queries, keys, values.
fn group_strips<D: Copy>(qkv: D, layout: QkvLayout, group: usize) -> [Strip<D>; 3] {
    let (d, stride) = (layout.head_dim, layout.qkv_width());
    let offset = group * (layout.q_per_kv + 2) * d;
    let at = |heads: usize| Strip { data: qkv, offset: offset + heads * d, stride };
    [at(0), at(layout.q_per_kv), at(layout.q_per_kv + 1)]
}

/// The strips of one group in a compact `kv`: keys, values.
fn kv_strips<D: Copy>(kv: D, layout: QkvLayout, group: usize) -> [Strip<D>; 2] {
    let at =
        |slot: usize| Strip { data: kv, offset: (2 * group + slot) * layout.head_dim, stride: 2 * layout.kv_width() };
    [at(0), at(1)]
}
