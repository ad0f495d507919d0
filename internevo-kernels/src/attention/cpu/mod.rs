//! Attention on slices: forward (over views of fused or separate operands, or in steps over keys that arrive one part after
//! the other) and backward.
//!
//! A tile stacks a block of query rows of all heads of one group, so that keys and values are read once per group.
//! Every output element is produced by one task in one order: the bits do not depend on the number of threads.

mod backward;
mod forward;
mod partial;
mod plan;
mod tile;

pub use backward::{Outcome, backward, backward_interleaved};
pub use forward::forward;
pub use partial::{Held, PartialAttention, Saved, add_kv, backward_step, pack_kv};

use super::{Heads, QkvLayout};
use crate::matmul::Matrix;
use crate::rows::SharedMut;
use plan::QueryBlock;

/// Keys that a score tile spans: with 128 stacked rows a tile is 256 KiB, which stays in the second-level cache.
pub(super) const KEY_TILE: usize = 512;

/// Queries, keys and values, as views of one slice or of three.
pub type Operands<'a> = [Heads<&'a [f32]>; 3];

/// The operands in a fused, interleaved `qkv`, `[T, (H + 2K) · D]`.
pub fn interleaved(qkv: &[f32], layout: QkvLayout) -> Operands<'_> {
    layout.interleaved().map(|heads| heads.on(qkv))
}

/// The operands in slices of their own: queries `[T_q, H, D]`, keys and values `[T_k, K, D]`.
pub fn separate<'a>(q: &'a [f32], k: &'a [f32], v: &'a [f32], layout: QkvLayout) -> Operands<'a> {
    let [q_heads, k_heads, v_heads] = layout.separate();
    [q_heads.on(q), k_heads.on(k), v_heads.on(v)]
}

/// Where an output, or what belongs to it, has its heads.
fn output_heads<D>(data: D, layout: QkvLayout) -> Heads<D> {
    layout.separate()[0].on(data)
}

impl<D> Heads<D> {
    /// The heads of one group alone, as group 0.
    fn group(self, group: usize) -> Self {
        Self { offset: self.offset + group * self.group_stride, ..self }
    }
}

impl<'a> Heads<&'a [f32]> {
    /// `count` rows of the first head of group 0 from row `first` on.
    fn rows(&self, first: usize, count: usize, head_dim: usize) -> Matrix<'a> {
        Matrix::strided(&self.data[self.at(first, 0, 0)..], count, head_dim, self.row_stride)
    }

    /// Copies a block of query rows of all heads of group 0 into `stacked`: `[head][position][head_dim]`.
    fn stack(&self, block: &QueryBlock, layout: QkvLayout, stacked: &mut [f32]) {
        for (row, target) in stacked.chunks_exact_mut(layout.head_dim).enumerate() {
            let (head, position) = (row / block.len, row % block.len);
            let start = self.at(block.start + position, 0, head);
            target.copy_from_slice(&self.data[start..][..layout.head_dim]);
        }
    }
}

impl<'a> Heads<SharedMut<'a>> {
    /// One row of one head of group 0, to be changed.
    ///
    /// # Safety
    /// Nobody else uses it while the slice lives.
    unsafe fn row_mut(&self, row: usize, head: usize, head_dim: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(self.at(row, 0, head), head_dim) }
    }
}

/// Keys and values in a compact `kv`, `[T, K · 2 · D]`: `[kv_head][k, v][head_dim]` per token.
fn compact<D: Copy>(kv: D, layout: QkvLayout) -> [Heads<D>; 2] {
    let d = layout.head_dim;
    let slot =
        |offset| Heads { data: kv, offset, row_stride: 2 * layout.kv_width(), group_stride: 2 * d, head_stride: d };
    [slot(0), slot(d)]
}
