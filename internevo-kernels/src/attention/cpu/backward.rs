//! Backward of packed attention. One task owns one group of heads in one segment: it alone adds to the keys and values
//! of that group, block after block, so sums have one order.

use super::forward::split;
use super::tile::{Mask, probabilities, row_products, score_gradients};
use super::{KEY_TILE, QkvLayout, QueryBlock, Strip, group_strips};
use crate::attention::check_segments;
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::SharedMut;
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
    assert_eq!(saved.qkv.len(), tokens * layout.qkv_width(), "attention: {tokens} tokens of {layout:?}");
    let lengths = (saved.output.len(), d_output.len(), saved.log_sum_exp.len());
    let (wide, narrow) = (tokens * layout.output_width(), tokens * layout.heads());
    assert_eq!(lengths, (wide, wide, narrow), "attention: output, its gradient and log-sum-exp");
    let mut d_qkv = vec![0.0; saved.qkv.len()];
    let shared = SharedMut::new(&mut d_qkv);
    let mut tasks: Vec<_> = cu_seqlens.windows(2).flat_map(|s| (0..layout.kv_heads).map(|g| (s[0], s[1], g))).collect();
    // Long segments first, so that threads end together.
    tasks.sort_by_key(|(start, end, _)| std::cmp::Reverse(end - start));
    tasks.into_par_iter().with_max_len(1).for_each_init(Scratch::default, |scratch, (start, end, group)| {
        let task = Task { saved, layout, d_output, group, start: start as usize, len: (end - start) as usize };
        scratch.run(task, shared);
    });
    d_qkv
}

/// One group of heads in one segment.
#[derive(Clone, Copy)]
struct Task<'a> {
    saved: Saved<'a>,
    layout: QkvLayout,
    d_output: &'a [f32],
    group: usize,
    start: usize,
    len: usize,
}

impl<'a> Task<'a> {
    /// The group's columns of a buffer of the output's shape.
    fn output_strip(&self, data: &'a [f32]) -> Strip<'a> {
        let offset = self.group * self.layout.q_per_kv * self.layout.head_dim;
        Strip { data, offset, stride: self.layout.output_width() }
    }

    /// The group's columns of `heads` heads from head `first` on, in row `token` of the gradient of `qkv`.
    ///
    /// # Safety
    /// The caller is the task of this group and of the segment that holds `token`.
    unsafe fn columns<'b>(&self, d_qkv: SharedMut<'b>, token: usize, first: usize, heads: usize) -> &'b mut [f32] {
        let d = self.layout.head_dim;
        let column = (self.group * (self.layout.q_per_kv + 2) + first) * d;
        // SAFETY: tasks differ in their segment (rows) or group (columns), and a task holds one such slice at a time.
        unsafe { d_qkv.slice(token * self.layout.qkv_width() + column, heads * d) }
    }
}

/// Buffers of one thread; stacked rows are `[head][position]`.
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
    fn run(&mut self, task: Task<'_>, d_qkv: SharedMut<'_>) {
        let (layout, d) = (task.layout, task.layout.head_dim);
        for buffer in [&mut self.d_keys, &mut self.d_values] {
            buffer.clear();
            buffer.resize(task.len * d, 0.0);
        }
        for block in split(task.start, task.len, 0, layout) {
            self.load(task, block);
            self.block(task, block);
            for position in 0..block.len {
                // SAFETY: this is the task of the group and the segment.
                let row = unsafe { task.columns(d_qkv, block.start + position, 0, layout.q_per_kv) };
                for (head, target) in row.chunks_exact_mut(d).enumerate() {
                    target.copy_from_slice(&self.d_queries[(head * block.len + position) * d..][..d]);
                }
            }
        }
        for (first, buffer) in [(layout.q_per_kv, &self.d_keys), (layout.q_per_kv + 1, &self.d_values)] {
            for (position, source) in buffer.chunks_exact(d).enumerate() {
                // SAFETY: this is the task of the group and the segment.
                unsafe { task.columns(d_qkv, task.start + position, first, 1) }.copy_from_slice(source);
            }
        }
    }

    /// Stacks what the block needs and sizes the buffers.
    fn load(&mut self, task: Task<'_>, block: QueryBlock) {
        let (layout, rows) = (task.layout, task.layout.q_per_kv * block.len);
        for buffer in [&mut self.queries, &mut self.d_queries, &mut self.output, &mut self.d_output] {
            buffer.resize(rows * layout.head_dim, 0.0);
        }
        self.delta.resize(rows, 0.0);
        self.log_sum_exp.resize(rows, 0.0);
        let tile = rows * KEY_TILE.min(block.visible + block.len - 1);
        self.scores.resize(tile, 0.0);
        self.d_scores.resize(tile, 0.0);
        group_strips(task.saved.qkv, layout, task.group)[0].stack(block, layout, &mut self.queries);
        task.output_strip(task.saved.output).stack(block, layout, &mut self.output);
        task.output_strip(task.d_output).stack(block, layout, &mut self.d_output);
        for position in 0..block.len {
            let start = (block.start + position) * layout.heads() + task.group * layout.q_per_kv;
            for head in 0..layout.q_per_kv {
                self.log_sum_exp[head * block.len + position] = task.saved.log_sum_exp[start + head];
            }
        }
        row_products(&self.d_output, &self.output, &mut self.delta);
    }

    /// Leaves the block's query gradients in `d_queries` and adds to `d_keys` and `d_values`.
    fn block(&mut self, task: Task<'_>, block: QueryBlock) {
        let (d, rows) = (task.layout.head_dim, task.layout.q_per_kv * block.len);
        let (scale, keys) = (task.layout.scale() as f32, block.visible + block.len - 1);
        let [_, k, v] = group_strips(task.saved.qkv, task.layout, task.group);
        let (queries, d_output) = (Matrix::new(&self.queries, rows, d), Matrix::new(&self.d_output, rows, d));
        for first in (0..keys).step_by(KEY_TILE) {
            let n = KEY_TILE.min(keys - first);
            let (k, v) = (k.rows(task.start + first, n, d), v.rows(task.start + first, n, d));
            let mask = Mask { positions: block.len, first_visible: block.visible as isize - first as isize, keys: n };
            let (p, ds) = (&mut self.scores[..rows * n], &mut self.d_scores[..rows * n]);
            multiply(Output::new(p, rows, n), false, 1.0, queries, k.transposed(), Threads::One);
            probabilities(p, mask, scale, &self.log_sum_exp);
            multiply(Output::new(ds, rows, n), false, 1.0, d_output, v.transposed(), Threads::One);
            score_gradients(ds, p, mask, scale, &self.delta);
            let (p, ds) = (Matrix::new(p, rows, n), Matrix::new(ds, rows, n));
            let d_values = Output::new(&mut self.d_values[first * d..][..n * d], n, d);
            multiply(d_values, true, 1.0, p.transposed(), d_output, Threads::One);
            let d_keys = Output::new(&mut self.d_keys[first * d..][..n * d], n, d);
            multiply(d_keys, true, 1.0, ds.transposed(), queries, Threads::One);
            multiply(Output::new(&mut self.d_queries, rows, d), first > 0, 1.0, ds, k, Threads::One);
        }
    }
}
