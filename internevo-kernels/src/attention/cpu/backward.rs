//! Backward of attention, over a packed `qkv` or one step of many. One task owns one group of heads in one segment: it
//! alone adds to the keys and values of that group, block after block, so sums have one order.

use super::plan::{Plan, QueryBlock, Segment};
use super::tile::{Mask, probabilities, row_products, score_gradients};
use super::{QkvLayout, Strip, group_strips};
use crate::attention::{Runs, check_segments};
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::SharedMut;
use crate::simd::add_in_place;
use rayon::prelude::*;

/// What the forward had and gave; sizes as in [`super::forward`].
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The forward's input.
    pub qkv: &'a [f32],
    /// The forward's output.
    pub output: &'a [f32],
    /// Log-sum-exp of each row of scores.
    pub log_sum_exp: &'a [f32],
}

/// Gradient of `qkv` for the gradient `d_output` (`[T, H · D]`) of the output.
///
/// # Panics
/// If sizes do not fit.
pub fn backward(saved: Saved<'_>, layout: QkvLayout, cu_seqlens: &[u32], d_output: &[f32]) -> Vec<f32> {
    let tokens = cu_seqlens.last().map_or(0, |end| *end as usize);
    check_segments(cu_seqlens, tokens);
    check(saved, layout, tokens, d_output);
    let mut d_qkv = vec![0.0; saved.qkv.len()];
    let shared = SharedMut::new(&mut d_qkv);
    let all = Runs::from(0..tokens);
    let group =
        |group| Group { strips: group_strips(saved.qkv, layout, group), targets: group_strips(shared, layout, group) };
    run(Pass { layout, saved, d_output }, &Plan::new(layout, &all, &all, cu_seqlens), group);
    d_qkv
}

/// Checks the sizes of what belongs to `tokens` queries.
pub(super) fn check(saved: Saved<'_>, layout: QkvLayout, tokens: usize, d_output: &[f32]) {
    assert_eq!(saved.qkv.len(), tokens * layout.qkv_width(), "attention: {tokens} tokens of {layout:?}");
    let lengths = (saved.output.len(), d_output.len(), saved.log_sum_exp.len());
    let (wide, narrow) = (tokens * layout.output_width(), tokens * layout.heads());
    assert_eq!(lengths, (wide, wide, narrow), "attention: output, its gradient and log-sum-exp");
}

/// What all tasks of a backward have in common.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub layout: QkvLayout,
    pub saved: Saved<'a>,
    pub d_output: &'a [f32],
}

/// Where a group of heads has its queries, keys and values, and where their gradients are added.
pub(super) struct Group<'a> {
    pub strips: [Strip<&'a [f32]>; 3],
    pub targets: [Strip<SharedMut<'a>>; 3],
}

/// Follows `plan`.
pub(super) fn run<'a>(pass: Pass<'a>, plan: &Plan, group: impl Fn(usize) -> Group<'a> + Sync) {
    let groups = 0..pass.layout.kv_heads;
    let mut tasks: Vec<_> = plan.segments.iter().flat_map(|s| groups.clone().map(move |g| (s, g))).collect();
    // Long segments first, so that threads end together.
    tasks.sort_by_key(|(segment, _)| std::cmp::Reverse(segment.keys.len()));
    tasks.into_par_iter().with_max_len(1).for_each_init(Scratch::default, |scratch, (segment, index)| {
        scratch.run(&Task { pass, plan, segment, index, group: group(index) });
    });
}

/// One group of heads in one segment.
struct Task<'a, 'p> {
    pass: Pass<'a>,
    plan: &'p Plan,
    segment: &'p Segment,
    index: usize,
    group: Group<'a>,
}

impl<'a> Task<'a, '_> {
    /// The group's columns of a buffer of the output's shape.
    fn output_strip(&self, data: &'a [f32]) -> Strip<&'a [f32]> {
        let layout = self.pass.layout;
        Strip { data, offset: self.index * layout.q_per_kv * layout.head_dim, stride: layout.output_width() }
    }
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
        let (layout, d) = (task.pass.layout, task.pass.layout.head_dim);
        for buffer in [&mut self.d_keys, &mut self.d_values] {
            buffer.clear();
            buffer.resize(task.segment.keys.len() * d, 0.0);
        }
        let [d_queries, d_keys, d_values] = &task.group.targets;
        for block in &task.plan.blocks[task.segment.blocks.clone()] {
            self.load(task, block);
            self.block(task, block);
            for position in 0..block.len {
                // SAFETY: tasks differ in their segment (rows) or group (columns), and this one holds one slice at a time.
                let row = unsafe { d_queries.row_mut(block.start + position, layout.q_per_kv * d) };
                for (head, target) in row.chunks_exact_mut(d).enumerate() {
                    add_in_place(target, &self.d_queries[(head * block.len + position) * d..][..d]);
                }
            }
        }
        for (target, buffer) in [(d_keys, &self.d_keys), (d_values, &self.d_values)] {
            for (row, source) in task.segment.keys.clone().zip(buffer.chunks_exact(d)) {
                // SAFETY: as above.
                add_in_place(unsafe { target.row_mut(row, d) }, source);
            }
        }
    }

    /// Stacks what the block needs and sizes the buffers.
    fn load(&mut self, task: &Task<'_, '_>, block: &QueryBlock) {
        let (layout, saved) = (task.pass.layout, task.pass.saved);
        let rows = layout.q_per_kv * block.len;
        for buffer in [&mut self.queries, &mut self.d_queries, &mut self.output, &mut self.d_output] {
            buffer.resize(rows * layout.head_dim, 0.0);
        }
        self.delta.resize(rows, 0.0);
        self.log_sum_exp.resize(rows, 0.0);
        task.group.strips[0].stack(block, layout, &mut self.queries);
        task.output_strip(saved.output).stack(block, layout, &mut self.output);
        task.output_strip(task.pass.d_output).stack(block, layout, &mut self.d_output);
        for position in 0..block.len {
            let start = (block.start + position) * layout.heads() + task.index * layout.q_per_kv;
            for head in 0..layout.q_per_kv {
                self.log_sum_exp[head * block.len + position] = saved.log_sum_exp[start + head];
            }
        }
        row_products(&self.d_output, &self.output, &mut self.delta);
    }

    /// Leaves the block's query gradients in `d_queries` and adds to `d_keys` and `d_values`.
    fn block(&mut self, task: &Task<'_, '_>, block: &QueryBlock) {
        let layout = task.pass.layout;
        let (d, rows, scale) = (layout.head_dim, layout.q_per_kv * block.len, layout.scale() as f32);
        let [_, k, v] = &task.group.strips;
        let (queries, d_output) = (Matrix::new(&self.queries, rows, d), Matrix::new(&self.d_output, rows, d));
        for (index, (span, start, n)) in task.plan.tiles(block).enumerate() {
            let row = span.row + start;
            let (k, v) = (k.rows(row, n, d), v.rows(row, n, d));
            let mask = Mask { positions: block.len, first_visible: span.visible - start as isize, keys: n };
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
