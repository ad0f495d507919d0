//! Forward of attention, over a packed `qkv` or against cached keys and values.

use super::tile::{Mask, finish_rows, online_softmax};
use super::{KEY_TILE, QkvLayout, QueryBlock, Strip, group_strips, query_block};
use crate::attention::check_segments;
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::SharedMut;
use rayon::prelude::*;

/// Attention of packed tokens: causal inside each segment `cu_seqlens[i]..cu_seqlens[i + 1]`, blind outside it.
///
/// `qkv` is `[T, (H + 2K) · D]`. Returns the output `[T, H · D]` and the log-sum-exp of each row of scores, `[T, H]`,
/// which the backward needs.
///
/// # Panics
/// If the boundaries are not `0, ..., T` in increasing order or `qkv` does not fit the layout.
pub fn forward(qkv: &[f32], layout: QkvLayout, cu_seqlens: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let tokens = cu_seqlens.last().map_or(0, |end| *end as usize);
    check_segments(cu_seqlens, tokens);
    assert_eq!(qkv.len(), tokens * layout.qkv_width(), "attention: {tokens} tokens of {layout:?}");
    let blocks = packed_blocks(layout, cu_seqlens);
    let tasks = tasks(layout, &blocks);
    let task = |(group, block): (usize, (QueryBlock, usize))| {
        let [q, mut k, mut v] = group_strips(qkv, layout, group);
        k.offset += block.1 * k.stride;
        v.offset += block.1 * v.stride;
        (group, block.0, [q, k, v])
    };
    run(layout, tokens, tasks.into_iter().map(task).collect())
}

/// Attention of `q` (`[T_q, H · D]`) over cached keys and values (`[T_k, K · D]`), causal and aligned at the end: the last
/// query sees all keys. Returns `[T_q, H · D]`.
///
/// # Panics
/// If the sizes do not fit the layout or there are more queries than keys.
pub fn forward_cached(q: &[f32], k: &[f32], v: &[f32], layout: QkvLayout) -> Vec<f32> {
    let (queries, keys) = (q.len() / layout.output_width(), k.len() / layout.kv_width());
    assert_eq!(q.len(), queries * layout.output_width(), "attention: queries of {layout:?}");
    assert_eq!((k.len(), v.len()), (keys * layout.kv_width(), k.len()), "attention: keys and values of {layout:?}");
    assert!(queries <= keys, "attention: {queries} queries see only {keys} keys");
    let blocks: Vec<_> = split(0, queries, keys - queries, layout).map(|block| (block, 0)).collect();
    let (d, group_width) = (layout.head_dim, layout.q_per_kv * layout.head_dim);
    let task = |(group, (block, _)): (usize, (QueryBlock, usize))| {
        let q = Strip { data: q, offset: group * group_width, stride: layout.output_width() };
        let cached = |data| Strip { data, offset: group * d, stride: layout.kv_width() };
        (group, block, [q, cached(k), cached(v)])
    };
    run(layout, queries, tasks(layout, &blocks).into_iter().map(task).collect()).0
}

/// One unit of work: the group of heads, its block of queries, and the strips of queries, keys and values.
type Task<'a> = (usize, QueryBlock, [Strip<'a>; 3]);

/// All (group, block) pairs, heaviest blocks first so that threads end together.
fn tasks<B: Copy>(layout: QkvLayout, blocks: &[B]) -> Vec<(usize, B)> {
    blocks.iter().rev().flat_map(|block| (0..layout.kv_heads).map(|group| (group, *block))).collect()
}

/// Blocks of queries of all segments, each with the first token of its segment.
fn packed_blocks(layout: QkvLayout, cu_seqlens: &[u32]) -> Vec<(QueryBlock, usize)> {
    let segments = cu_seqlens.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize));
    segments.flat_map(|(start, end)| split(start, end - start, 0, layout).map(move |block| (block, start))).collect()
}

/// Cuts `len` queries, the first at row `start`, into blocks; `older` keys come before the first query's own.
pub(super) fn split(start: usize, len: usize, older: usize, layout: QkvLayout) -> impl Iterator<Item = QueryBlock> {
    let size = query_block(layout.q_per_kv);
    (0..len).step_by(size).map(move |first| QueryBlock {
        start: start + first,
        len: size.min(len - first),
        visible: older + first + 1,
    })
}

fn run(layout: QkvLayout, queries: usize, tasks: Vec<Task<'_>>) -> (Vec<f32>, Vec<f32>) {
    let mut output = vec![0.0; queries * layout.output_width()];
    let mut log_sum_exp = vec![0.0; queries * layout.heads()];
    let (shared, shared_lse) = (SharedMut::new(&mut output), SharedMut::new(&mut log_sum_exp));
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (group, block, strips)| {
        scratch.attend(layout, block, strips);
        let (d, heads) = (layout.head_dim, layout.q_per_kv);
        for position in 0..block.len {
            let token = block.start + position;
            let (start, lse_start) =
                (token * layout.output_width() + group * heads * d, token * layout.heads() + group * heads);
            // SAFETY: these columns of this row belong to (group, block), which is one task.
            let (row, lse) = unsafe { (shared.slice(start, heads * d), shared_lse.slice(lse_start, heads)) };
            for head in 0..heads {
                let r = head * block.len + position;
                row[head * d..][..d].copy_from_slice(&scratch.output[r * d..][..d]);
                lse[head] = scratch.maximum[r];
            }
        }
    });
    (output, log_sum_exp)
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    output: Vec<f32>,
    maximum: Vec<f32>,
    sum: Vec<f32>,
}

impl Scratch {
    /// Leaves the stacked output in `output` and the log-sum-exp in `maximum`.
    fn attend(&mut self, layout: QkvLayout, block: QueryBlock, [q, k, v]: [Strip<'_>; 3]) {
        let (d, rows) = (layout.head_dim, layout.q_per_kv * block.len);
        let (scale, keys) = (layout.scale() as f32, block.visible + block.len - 1);
        self.queries.resize(rows * d, 0.0);
        self.output.resize(rows * d, 0.0);
        self.sum.resize(rows, 0.0);
        self.maximum.clear();
        self.maximum.resize(rows, f32::NEG_INFINITY);
        self.scores.resize(rows * KEY_TILE.min(keys), 0.0);
        q.stack(block, layout, &mut self.queries);
        for first in (0..keys).step_by(KEY_TILE) {
            let n = KEY_TILE.min(keys - first);
            let scores = &mut self.scores[..rows * n];
            let queries = Matrix::new(&self.queries, rows, d);
            multiply(Output::new(scores, rows, n), false, 1.0, queries, k.rows(first, n, d).transposed(), Threads::One);
            let first_visible = block.visible as isize - first as isize;
            let mask = Mask { positions: block.len, first_visible, keys: n };
            online_softmax(scores, mask, scale, &mut self.maximum, &mut self.sum, &mut self.output, first == 0);
            let output = Output::new(&mut self.output, rows, d);
            multiply(output, first > 0, 1.0, Matrix::new(scores, rows, n), v.rows(first, n, d), Threads::One);
        }
        finish_rows(&mut self.output, &mut self.maximum, &self.sum);
    }
}
