//! Forward of attention: in one piece, or one step of many.

use super::plan::{Plan, QueryBlock, Tile};
use super::tile::{finish_rows, online_softmax};
use super::{Operands, PartialAttention, QkvLayout};
use crate::attention::{AttentionMask, Segments};
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::SharedMut;
use rayon::prelude::*;

/// Attention of the queries of each segment to its keys, as far as `mask` lets them see.
///
/// Returns the output `[T_q, H, D]` and the log-sum-exp of each row of scores, `[T_q, H]` (natural logarithm), which the
/// backward needs. A query that sees no key gets zeros and `-∞`.
///
/// # Panics
/// If a view ends before the tokens of `segments` do, or the window is 0.
pub fn forward(
    operands: Operands<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
) -> (Vec<f32>, Vec<f32>) {
    mask.check();
    let mut state = PartialAttention::new(segments.queries(), layout);
    run(layout, &Plan::aligned(layout, segments, mask), operands, &mut state);
    (state.output, state.log_sum_exp)
}

/// Follows `plan` and moves `state` on.
pub(super) fn run(layout: QkvLayout, plan: &Plan, operands: Operands<'_>, state: &mut PartialAttention) {
    let state = Rows { layout, output: SharedMut::new(&mut state.output), lse: SharedMut::new(&mut state.log_sum_exp) };
    // Blocks at the end of a segment see most: they go first, so that threads end together.
    let blocks = plan.blocks.iter().rev();
    let tasks: Vec<_> = blocks.flat_map(|block| (0..layout.kv_heads).map(move |group| (group, block))).collect();
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, (group, block)| {
        // SAFETY: blocks have different rows and groups different columns, so the place is this task's alone.
        let place = |position| unsafe { state.at(group, block.start + position) };
        scratch.load(layout, block, place);
        scratch.attend(layout, block, plan, operands.map(|heads| heads.group(group)));
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
    fn attend(&mut self, layout: QkvLayout, block: &QueryBlock, plan: &Plan, [q, k, v]: Operands<'_>) {
        let (d, rows, scale) = (layout.head_dim, layout.q_per_kv * block.len, layout.scale() as f32);
        self.queries.resize(rows * d, 0.0);
        q.stack(block, layout, &mut self.queries);
        let mut first = self.fresh;
        for Tile { row, mask } in plan.tiles(block) {
            let n = mask.keys;
            self.scores.resize(rows * n, 0.0);
            let (k, v) = (k.rows(row, n, d), v.rows(row, n, d));
            let scores = &mut self.scores[..];
            let queries = Matrix::new(&self.queries, rows, d);
            multiply(Output::new(scores, rows, n), false, 1.0, queries, k.transposed(), Threads::One);
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
