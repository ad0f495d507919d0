//! Backward of attention, in one piece or one step of many. One task owns one group of heads in one segment: it alone adds
//! to the keys and values of that group, block after block, so sums have one order.

use super::plan::{Plan, QueryBlock, Segment, Tile};
use super::tile::{probabilities, row_products, score_gradients};
use super::{Operands, QkvLayout, interleaved, output_heads};
use crate::attention::{AttentionMask, Heads, Segments};
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::SharedMut;
use crate::simd::add_in_place;
use rayon::prelude::*;

/// What the forward gave, and the gradients of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The output, `[T_q, H, D]`.
    pub output: &'a [f32],
    /// Log-sum-exp of each row of scores, `[T_q, H]`.
    pub log_sum_exp: &'a [f32],
    /// Gradient of the output.
    pub d_output: &'a [f32],
    /// Gradient of the log-sum-exp, if anything depends on it. Ignored for a query that sees no key.
    pub d_log_sum_exp: Option<&'a [f32]>,
}

/// Gradients of [`super::forward`], each in a vector of its own: queries `[T_q, H, D]`, keys and values `[T_k, K, D]`.
///
/// # Panics
/// If sizes do not fit.
pub fn backward(
    operands: Operands<'_>,
    outcome: Outcome<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
) -> [Vec<f32>; 3] {
    let (q_len, kv_len) = (segments.queries() * layout.output_width(), segments.keys() * layout.kv_width());
    let mut gradients = [q_len, kv_len, kv_len].map(|len| vec![0.0; len]);
    let [dq, dk, dv] = &mut gradients;
    let [q_heads, k_heads, v_heads] = layout.separate();
    let targets = [q_heads.on(SharedMut::new(dq)), k_heads.on(SharedMut::new(dk)), v_heads.on(SharedMut::new(dv))];
    outcome.check(layout, segments.queries());
    run(Pass { layout, operands, targets, outcome }, &Plan::aligned(layout, segments, mask));
    gradients
}

/// Gradient of the fused `qkv` (`[T, (H + 2K) · D]`), in its layout.
///
/// # Panics
/// If sizes do not fit, or the segments have other numbers of queries than of keys.
pub fn backward_interleaved(
    qkv: &[f32],
    outcome: Outcome<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
) -> Vec<f32> {
    assert_eq!(qkv.len(), segments.queries() * layout.qkv_width(), "attention: tokens of {layout:?}");
    assert_eq!(segments.cu_seqlens_q(), segments.cu_seqlens_k(), "attention: segments of a fused qkv");
    outcome.check(layout, segments.queries());
    let mut d_qkv = vec![0.0; qkv.len()];
    let shared = SharedMut::new(&mut d_qkv);
    let (operands, targets) = (interleaved(qkv, layout), layout.interleaved().map(|heads| heads.on(shared)));
    run(Pass { layout, operands, targets, outcome }, &Plan::aligned(layout, segments, mask));
    d_qkv
}

impl Outcome<'_> {
    /// Checks the sizes against the number of queries.
    pub(super) fn check(&self, layout: QkvLayout, queries: usize) {
        let (wide, narrow) = (queries * layout.output_width(), queries * layout.heads());
        let lengths = (self.output.len(), self.d_output.len(), self.log_sum_exp.len());
        assert_eq!(lengths, (wide, wide, narrow), "attention: output, its gradient and log-sum-exp");
        let extra = self.d_log_sum_exp.map_or(narrow, <[f32]>::len);
        assert_eq!(extra, narrow, "attention: gradient of the log-sum-exp");
    }
}

/// What all tasks of a backward have in common. The targets lie as the operands do, in memory that nobody else uses; no two
/// (row, head) of them overlap.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub layout: QkvLayout,
    pub operands: Operands<'a>,
    pub targets: [Heads<SharedMut<'a>>; 3],
    pub outcome: Outcome<'a>,
}

/// Follows `plan`.
pub(super) fn run(pass: Pass<'_>, plan: &Plan) {
    let groups = 0..pass.layout.kv_heads;
    let mut tasks: Vec<_> = plan.segments.iter().flat_map(|s| groups.clone().map(move |g| (s, g))).collect();
    // Long segments first, so that threads end together.
    tasks.sort_by_key(|(segment, _)| std::cmp::Reverse(segment.keys.len()));
    tasks.into_par_iter().with_max_len(1).for_each_init(Scratch::default, |scratch, (segment, index)| {
        let (operands, targets) = (pass.operands.map(|h| h.group(index)), pass.targets.map(|h| h.group(index)));
        scratch.run(&Task { pass: Pass { operands, targets, ..pass }, plan, segment, index });
    });
}

/// One group of heads in one segment; the views of its pass are those of the group.
struct Task<'a, 'p> {
    pass: Pass<'a>,
    plan: &'p Plan,
    segment: &'p Segment,
    index: usize,
}

/// Buffers of one thread; stacked rows are `[head][position]`, keys and values the rows of the segment.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    d_queries: Vec<f32>,
    output: Vec<f32>,
    d_output: Vec<f32>,
    delta: Vec<f32>,
    log_sum_exp: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

impl Scratch {
    fn run(&mut self, task: &Task<'_, '_>) {
        let d = task.pass.layout.head_dim;
        for buffer in [&mut self.d_keys, &mut self.d_values] {
            buffer.clear();
            buffer.resize(task.segment.keys.len() * d, 0.0);
        }
        let [d_queries, d_keys, d_values] = &task.pass.targets;
        for block in &task.plan.blocks[task.segment.blocks.clone()] {
            self.load(task, block);
            self.block(task, block);
            for (row, source) in self.d_queries.chunks_exact(d).enumerate() {
                let (head, position) = (row / block.len, row % block.len);
                // SAFETY: tasks differ in their segment (rows) or group (heads), and this one holds one slice at a time.
                add_in_place(unsafe { d_queries.row_mut(block.start + position, head, d) }, source);
            }
        }
        for (target, buffer) in [(d_keys, &self.d_keys), (d_values, &self.d_values)] {
            for (row, source) in task.segment.keys.clone().zip(buffer.chunks_exact(d)) {
                // SAFETY: as above.
                add_in_place(unsafe { target.row_mut(row, 0, d) }, source);
            }
        }
    }

    /// Stacks what the block needs and sizes the buffers.
    fn load(&mut self, task: &Task<'_, '_>, block: &QueryBlock) {
        let (layout, outcome) = (task.pass.layout, task.pass.outcome);
        let rows = layout.q_per_kv * block.len;
        for buffer in [&mut self.queries, &mut self.d_queries, &mut self.output, &mut self.d_output] {
            buffer.resize(rows * layout.head_dim, 0.0);
        }
        self.delta.resize(rows, 0.0);
        self.log_sum_exp.resize(rows, 0.0);
        task.pass.operands[0].stack(block, layout, &mut self.queries);
        for (data, buffer) in [(outcome.output, &mut self.output), (outcome.d_output, &mut self.d_output)] {
            output_heads(data, layout).group(task.index).stack(block, layout, buffer);
        }
        row_products(&self.d_output, &self.output, &mut self.delta);
        for (row, (lse, delta)) in self.log_sum_exp.iter_mut().zip(&mut self.delta).enumerate() {
            let (head, position) = (row / block.len, row % block.len);
            let place = (block.start + position) * layout.heads() + task.index * layout.q_per_kv + head;
            *lse = outcome.log_sum_exp[place];
            *delta -= outcome.d_log_sum_exp.map_or(0.0, |d_lse| d_lse[place]);
        }
    }

    /// Leaves the block's query gradients in `d_queries` and adds to `d_keys` and `d_values`.
    fn block(&mut self, task: &Task<'_, '_>, block: &QueryBlock) {
        let layout = task.pass.layout;
        let (d, rows, scale) = (layout.head_dim, layout.q_per_kv * block.len, layout.scale() as f32);
        let [_, k, v] = &task.pass.operands;
        let (queries, d_output) = (Matrix::new(&self.queries, rows, d), Matrix::new(&self.d_output, rows, d));
        for (index, Tile { row, mask }) in task.plan.tiles(block).enumerate() {
            let n = mask.keys;
            let (k, v) = (k.rows(row, n, d), v.rows(row, n, d));
            self.scores.resize(rows * n, 0.0);
            self.d_scores.resize(rows * n, 0.0);
            let (p, ds) = (&mut self.scores[..], &mut self.d_scores[..]);
            multiply(Output::new(p, rows, n), false, 1.0, queries, k.transposed(), Threads::One);
            probabilities(p, mask, scale, &self.log_sum_exp);
            multiply(Output::new(ds, rows, n), false, 1.0, d_output, v.transposed(), Threads::One);
            score_gradients(ds, p, mask, scale, &self.delta);
            let (p, ds) = (Matrix::new(p, rows, n), Matrix::new(ds, rows, n));
            let place = (row - task.segment.keys.start) * d..(row - task.segment.keys.start + n) * d;
            let d_values = Output::new(&mut self.d_values[place.clone()], n, d);
            multiply(d_values, true, 1.0, p.transposed(), d_output, Threads::One);
            let d_keys = Output::new(&mut self.d_keys[place], n, d);
            multiply(d_keys, true, 1.0, ds.transposed(), queries, Threads::One);
            multiply(Output::new(&mut self.d_queries, rows, d), index > 0, 1.0, ds, k, Threads::One);
        }
    }
}
