//! Attention in steps, over keys and values that arrive one part after the other (ring attention: Liu et al., 2023): the
//! forward carries output and log-sum-exp on, the backward adds one part's gradients. Who sends which part, in which order,
//! is the caller's business; the order of the steps fixes the bits.

use super::backward::{self, Outcome, Pass};
use super::forward;
use super::plan::Plan;
use super::{QkvLayout, compact, interleaved};
use crate::attention::{AttentionMask, Runs, check_segments};
use crate::rows::SharedMut;

/// A buffer and the tokens that its rows are.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// Row-major: an interleaved `qkv`, or the compact `kv` of [`pack_kv`].
    pub data: &'a [f32],
    /// The token of each row.
    pub runs: &'a Runs,
}

/// What the forward of all steps had and gave.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The forward's interleaved input, `[T, (H + 2K) · D]`.
    pub qkv: &'a [f32],
    /// The forward's output, `[T, H · D]`.
    pub output: &'a [f32],
    /// Log-sum-exp of each row of scores, `[T, H]`.
    pub log_sum_exp: &'a [f32],
}

/// Attention of some queries over the keys seen so far.
#[derive(Clone, Debug, PartialEq)]
pub struct PartialAttention {
    /// `[T, H · D]`: the output if there were no other keys; zero for a query that has seen none.
    pub output: Vec<f32>,
    /// Log-sum-exp of each row of scores, `[T, H]`; `-∞` for a query that has seen no key.
    pub log_sum_exp: Vec<f32>,
}

impl PartialAttention {
    /// The state of `tokens` queries that have seen no key.
    pub fn new(tokens: usize, layout: QkvLayout) -> Self {
        Self {
            output: vec![0.0; tokens * layout.output_width()],
            log_sum_exp: vec![f32::NEG_INFINITY; tokens * layout.heads()],
        }
    }

    /// Attends to the visible keys of `kv` (compact): those in a query's segment at or before its position.
    ///
    /// `queries` holds an interleaved `qkv`, of which the queries are read; no key may come twice over all calls. The output
    /// is complete once each query has met all keys of its segment up to its own.
    ///
    /// # Panics
    /// If sizes do not fit, or `cu_seqlens`, the boundaries of the whole micro-batch, are wrong.
    pub fn accumulate(&mut self, queries: Held<'_>, kv: Held<'_>, layout: QkvLayout, cu_seqlens: &[u32]) {
        check_step(queries, kv, layout, cu_seqlens);
        let rows = (self.output.len(), self.log_sum_exp.len());
        let tokens = queries.runs.rows();
        assert_eq!(
            rows,
            (tokens * layout.output_width(), tokens * layout.heads()),
            "attention: state of {tokens} queries"
        );
        let ([q, ..], [k, v]) = (interleaved(queries.data, layout), compact(kv.data, layout));
        let plan = Plan::packed(layout, queries.runs, kv.runs, cu_seqlens, AttentionMask::default());
        forward::run(layout, &plan, [q, k, v], self);
    }
}

/// The backward of one [`PartialAttention::accumulate`]: adds to the query columns of `d_qkv` (as `saved.qkv`) and to `d_kv`
/// (as `kv.data`).
///
/// `saved` holds the output and log-sum-exp after the last step, `runs` the tokens of its rows.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_step(
    saved: Saved<'_>,
    runs: &Runs,
    kv: Held<'_>,
    layout: QkvLayout,
    cu_seqlens: &[u32],
    d_output: &[f32],
    d_qkv: &mut [f32],
    d_kv: &mut [f32],
) {
    check_step(Held { data: saved.qkv, runs }, kv, layout, cu_seqlens);
    let outcome =
        Outcome { output: saved.output, log_sum_exp: saved.log_sum_exp, d_output, d_log_sum_exp: None };
    outcome.check(layout, runs.rows());
    assert_eq!((d_qkv.len(), d_kv.len()), (saved.qkv.len(), kv.data.len()), "attention: gradients of qkv and kv");
    let (d_qkv, d_kv) = (SharedMut::new(d_qkv), SharedMut::new(d_kv));
    let ([q, ..], [k, v]) = (interleaved(saved.qkv, layout), compact(kv.data, layout));
    let [dk, dv] = compact(d_kv, layout);
    let pass = Pass { layout, operands: [q, k, v], targets: [q.on(d_qkv), dk, dv], outcome };
    backward::run(pass, &Plan::packed(layout, runs, kv.runs, cu_seqlens, AttentionMask::default()));
}

fn check_step(queries: Held<'_>, kv: Held<'_>, layout: QkvLayout, cu_seqlens: &[u32]) {
    let tokens = cu_seqlens.last().map_or(0, |end| *end as usize);
    check_segments(cu_seqlens, tokens);
    let ends = queries.runs.end().max(kv.runs.end());
    assert!(ends <= tokens, "attention: rows of token {} in a micro-batch of {tokens}", ends.saturating_sub(1));
    let lengths = (queries.runs.rows() * layout.qkv_width(), kv.runs.rows() * 2 * layout.kv_width());
    assert_eq!((queries.data.len(), kv.data.len()), lengths, "attention: sizes of qkv and kv for {layout:?}");
}

/// Keys and values of an interleaved `qkv` in a compact buffer `[T, K · 2 · D]`: `[kv_head][k, v][head_dim]` per token.
pub fn pack_kv(qkv: &[f32], layout: QkvLayout) -> Vec<f32> {
    qkv.chunks_exact(group_width(layout))
        .flat_map(|group| &group[layout.q_per_kv * layout.head_dim..])
        .copied()
        .collect()
}

/// Adds a gradient in the layout of [`pack_kv`] to the key and value columns of `d_qkv`.
///
/// # Panics
/// If the buffers hold different numbers of tokens.
pub fn add_kv(d_qkv: &mut [f32], d_kv: &[f32], layout: QkvLayout) {
    let (wide, narrow) = (group_width(layout), 2 * layout.head_dim);
    assert_eq!(d_qkv.len() / wide, d_kv.len() / narrow, "attention: tokens of d_qkv and d_kv");
    for (group, kv) in d_qkv.chunks_exact_mut(wide).zip(d_kv.chunks_exact(narrow)) {
        group[wide - narrow..].iter_mut().zip(kv).for_each(|(sum, gradient)| *sum += gradient);
    }
}

/// Columns of one group in an interleaved `qkv`.
fn group_width(layout: QkvLayout) -> usize {
    (layout.q_per_kv + 2) * layout.head_dim
}

#[cfg(test)]
mod tests;
