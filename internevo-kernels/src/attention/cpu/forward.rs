//! Forward of attention: over a packed `qkv`, against cached keys and values, or one step of many.

use super::plan::{Plan, QueryBlock};
use super::tile::{Mask, finish_rows, online_softmax};
use super::{PartialAttention, QkvLayout, Strip, group_strips};
use crate::attention::{Runs, check_segments};
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
    let all = Runs::from(0..tokens);
    let mut state = PartialAttention::new(tokens, layout);
    let plan = Plan::new(layout, &all, &all, cu_seqlens);
    run(layout, &plan, |group| group_strips(qkv, layout, group), &mut state);
    (state.output, state.log_sum_exp)
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
    let (d, group_width) = (layout.head_dim, layout.q_per_kv * layout.head_dim);
    let strips = |group: usize| {
        let cached = |data| Strip { data, offset: group * d, stride: layout.kv_width() };
        [Strip { data: q, offset: group * group_width, stride: layout.output_width() }, cached(k), cached(v)]
    };
    let mut state = PartialAttention::new(queries, layout);
    let newest = Runs::from(keys - queries..keys);
    let plan = Plan::new(layout, &newest, &Runs::from(0..keys), &[0, keys as u32]);
    run(layout, &plan, strips, &mut state);
    state.output
}

/// Follows `plan`, taking queries, keys and values of a group of heads from `strips`, and moves `state` on.
pub(super) fn run<'a>(
    layout: QkvLayout,
    plan: &Plan,
    strips: impl Fn(usize) -> [Strip<&'a [f32]>; 3] + Sync,
    state: &mut PartialAttention,
) {
    let state = Rows { layout, output: SharedMut::new(&mut state.output), lse: SharedMut::new(&mut state.log_sum_exp) };
    // Blocks at the end of a segment see most: they go first, so that threads end together.
    let blocks = plan.blocks.iter().rev();
    let tasks: Vec<_> = blocks.flat_map(|block| (0..layout.kv_heads).map(move |group| (group, block))).collect();
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (group, block)| {
        // SAFETY: blocks have different rows and groups different columns, so the place is this task's alone.
        let place = |position| unsafe { state.at(group, block.start + position) };
        scratch.load(layout, block, place);
        scratch.attend(layout, block, plan, strips(group));
        scratch.store(layout, block, place);
    });
}

/// The state of all rows, shared among tasks.
#[derive(Clone, Copy)]
struct Rows<'a> {
    layout: QkvLayout,
    output: SharedMut<'a>,
    lse: SharedMut<'a>,
}

impl<'a> Rows<'a> {
    /// Output and log-sum-exp of the heads of `group` in `row`.
    ///
    /// # Safety
    /// Nobody else uses them while the slices live.
    unsafe fn at(&self, group: usize, row: usize) -> (&'a mut [f32], &'a mut [f32]) {
        let (heads, layout) = (self.layout.q_per_kv, self.layout);
        let (first, width) = (group * heads, heads * layout.head_dim);
        // SAFETY: the caller's promise.
        unsafe {
            let output = self.output.slice(row * layout.output_width() + first * layout.head_dim, width);
            (output, self.lse.slice(row * layout.heads() + first, heads))
        }
    }
}

/// Buffers of one thread; stacked rows are `[head][position]`.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    output: Vec<f32>,
    maximum: Vec<f32>,
    sum: Vec<f32>,
    /// Whether no row has seen a key yet, and so `output` and `sum` hold nothing.
    fresh: bool,
}

impl Scratch {
    /// Takes up the state of the block's rows: a row that has seen keys goes on as if its log-sum-exp were the one score it
    /// has met, with its output as the value.
    fn load<'a>(
        &mut self,
        layout: QkvLayout,
        block: &QueryBlock,
        place: impl Fn(usize) -> (&'a mut [f32], &'a mut [f32]),
    ) {
        let (d, rows) = (layout.head_dim, layout.q_per_kv * block.len);
        self.output.resize(rows * d, 0.0);
        self.sum.resize(rows, 0.0);
        self.maximum.resize(rows, 0.0);
        for position in 0..block.len {
            for (head, lse) in place(position).1.iter().enumerate() {
                self.maximum[head * block.len + position] = *lse;
            }
        }
        self.fresh = self.maximum.iter().all(|maximum| *maximum == f32::NEG_INFINITY);
        if self.fresh {
            return;
        }
        for (sum, maximum) in self.sum.iter_mut().zip(&self.maximum) {
            *sum = if *maximum == f32::NEG_INFINITY { 0.0 } else { 1.0 };
        }
        for position in 0..block.len {
            for (head, source) in place(position).0.chunks_exact(d).enumerate() {
                self.output[(head * block.len + position) * d..][..d].copy_from_slice(source);
            }
        }
    }

    /// Leaves the stacked output in `output` and the log-sum-exp in `maximum`.
    fn attend(&mut self, layout: QkvLayout, block: &QueryBlock, plan: &Plan, [q, k, v]: [Strip<&[f32]>; 3]) {
        let (d, rows, scale) = (layout.head_dim, layout.q_per_kv * block.len, layout.scale() as f32);
        self.queries.resize(rows * d, 0.0);
        q.stack(block, layout, &mut self.queries);
        let mut first = self.fresh;
        for (span, start, n) in plan.tiles(block) {
            self.scores.resize(rows * n, 0.0);
            let (k, v) = (k.rows(span.row + start, n, d), v.rows(span.row + start, n, d));
            let scores = &mut self.scores[..];
            let queries = Matrix::new(&self.queries, rows, d);
            multiply(Output::new(scores, rows, n), false, 1.0, queries, k.transposed(), Threads::One);
            let mask = Mask { positions: block.len, first_visible: span.visible - start as isize, keys: n };
            online_softmax(scores, mask, scale, &mut self.maximum, &mut self.sum, &mut self.output, first);
            let output = Output::new(&mut self.output, rows, d);
            multiply(output, !first, 1.0, Matrix::new(scores, rows, n), v, Threads::One);
            first = false;
        }
        finish_rows(&mut self.output, &mut self.maximum, &self.sum);
    }

    /// Writes the state of the block's rows back.
    fn store<'a>(
        &self,
        layout: QkvLayout,
        block: &QueryBlock,
        place: impl Fn(usize) -> (&'a mut [f32], &'a mut [f32]),
    ) {
        let d = layout.head_dim;
        for position in 0..block.len {
            let (output, lse) = place(position);
            for (head, (target, lse)) in output.chunks_exact_mut(d).zip(lse).enumerate() {
                let row = head * block.len + position;
                target.copy_from_slice(&self.output[row * d..][..d]);
                *lse = self.maximum[row];
            }
        }
    }
}
