//! Attention in plain f64, one query after the other: the oracle of tests and benches.

use super::{AttentionMask, Heads, QkvLayout, Segments};

/// Queries, keys and values.
pub type Operands<'a> = [Heads<&'a [f64]>; 3];

/// Output `[T_q, H, D]` and log-sum-exp `[T_q, H]`; zero and `-∞` for a query that sees no key.
pub fn forward(
    operands: Operands<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
) -> (Vec<f64>, Vec<f64>) {
    let mut output = vec![0.0; segments.queries() * layout.output_width()];
    let mut log_sum_exp = vec![f64::NEG_INFINITY; segments.queries() * layout.heads()];
    for_rows(operands, layout, segments, mask, |row| {
        for (p, key) in row.probabilities.iter().zip(&row.keys) {
            let value = head(operands[2], layout, *key, row.group, 0);
            add_scaled(&mut output[row.place * layout.head_dim..], *p, value);
        }
        log_sum_exp[row.place] = row.log_sum_exp;
    });
    (output, log_sum_exp)
}

/// Gradients of the queries `[T_q, H, D]`, keys and values `[T_k, K, D]` for those of the output and of the log-sum-exp.
pub fn backward(
    operands: Operands<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
    d_output: &[f64],
    d_log_sum_exp: &[f64],
) -> [Vec<f64>; 3] {
    let (d, kv_len) = (layout.head_dim, segments.keys() * layout.kv_width());
    let mut dq = vec![0.0; segments.queries() * layout.output_width()];
    let (mut dk, mut dv) = (vec![0.0; kv_len], vec![0.0; kv_len]);
    for_rows(operands, layout, segments, mask, |row| {
        let dy = &d_output[row.place * d..][..d];
        let value = |key: &usize| head(operands[2], layout, *key, row.group, 0);
        let dp: Vec<f64> = row.keys.iter().map(|key| dot(dy, value(key))).collect();
        let delta = dot(&row.probabilities, &dp) - d_log_sum_exp[row.place];
        for ((p, dp), key) in row.probabilities.iter().zip(dp).zip(&row.keys) {
            let ds = p * (dp - delta) * layout.scale();
            let place = (key * layout.kv_heads + row.group) * d;
            add_scaled(&mut dq[row.place * d..], ds, head(operands[1], layout, *key, row.group, 0));
            add_scaled(&mut dk[place..], ds, row.query);
            add_scaled(&mut dv[place..], *p, dy);
        }
    });
    [dq, dk, dv]
}

/// [`forward`]'s output for a fused `qkv`, causal in its segments.
pub fn packed(qkv: &[f64], layout: QkvLayout, cu_seqlens: &[u32]) -> Vec<f64> {
    let operands = layout.interleaved().map(|heads| heads.on(qkv));
    forward(operands, layout, &Segments::packed(cu_seqlens), AttentionMask::default()).0
}

/// Gradient of the fused `qkv`, causal in its segments.
pub fn packed_backward(qkv: &[f64], layout: QkvLayout, cu_seqlens: &[u32], d_output: &[f64]) -> Vec<f64> {
    let operands = layout.interleaved().map(|heads| heads.on(qkv));
    let (segments, mask) = (Segments::packed(cu_seqlens), AttentionMask::default());
    let none = vec![0.0; segments.queries() * layout.heads()];
    interleave(backward(operands, layout, &segments, mask, d_output, &none), layout)
}

/// Separate `[T, H, D]`, `[T, K, D]` and `[T, K, D]` as one interleaved `[T, (H + 2K) · D]`.
pub fn interleave<T: Copy>([q, k, v]: [Vec<T>; 3], layout: QkvLayout) -> Vec<T> {
    let d = layout.head_dim;
    let groups = q.chunks_exact(layout.q_per_kv * d).zip(k.chunks_exact(d)).zip(v.chunks_exact(d));
    groups.flat_map(|((q, k), v)| [q, k, v]).flatten().copied().collect()
}

/// One query of one head, and what it sees.
struct Row<'a> {
    /// Its index among `[T_q, H]`.
    place: usize,
    group: usize,
    query: &'a [f64],
    /// Rows of the keys it sees; at least one.
    keys: Vec<usize>,
    probabilities: Vec<f64>,
    log_sum_exp: f64,
}

/// Calls `f` for each query that sees a key.
fn for_rows(
    [q, k, _]: Operands<'_>,
    layout: QkvLayout,
    segments: &Segments,
    mask: AttentionMask,
    mut f: impl FnMut(Row<'_>),
) {
    for (queries, keys) in segments.iter() {
        let shift = keys.len() as isize - queries.len() as isize;
        for (row, head_index) in queries.clone().flat_map(|row| (0..layout.heads()).map(move |head| (row, head))) {
            let position = (row - queries.start) as isize + shift;
            let seen = keys.clone().filter(|key| mask.sees(position, (key - keys.start) as isize));
            let seen: Vec<usize> = seen.collect();
            let (group, member) = (head_index / layout.q_per_kv, head_index % layout.q_per_kv);
            let query = head(q, layout, row, group, member);
            let score = |key: &usize| dot(query, head(k, layout, *key, group, 0)) * layout.scale();
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_sum_exp = maximum + scores.iter().map(|s| (s - maximum).exp()).sum::<f64>().ln();
            if !seen.is_empty() {
                let probabilities = scores.iter().map(|s| (s - log_sum_exp).exp()).collect();
                f(Row { place: row * layout.heads() + head_index, group, query, keys: seen, probabilities, log_sum_exp });
            }
        }
    }
}

fn head(heads: Heads<&[f64]>, layout: QkvLayout, row: usize, group: usize, member: usize) -> &[f64] {
    &heads.data[heads.at(row, group, member)..][..layout.head_dim]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(sum: &mut [f64], factor: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}
