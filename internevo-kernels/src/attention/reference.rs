//! Attention in plain f64, with all scores of a head and segment in memory: the oracle of tests and benches.

use super::QkvLayout;

/// Output `[T, H · D]` of packed causal attention.
pub fn forward(qkv: &[f64], layout: QkvLayout, cu_seqlens: &[u32]) -> Vec<f64> {
    let mut output = vec![0.0; qkv.len() / layout.qkv_width() * layout.output_width()];
    for_heads(layout, cu_seqlens, |head, start, end| {
        for i in start..end {
            let p = probabilities(qkv, layout, head, start, i);
            for (j, p) in p.iter().enumerate() {
                for c in 0..layout.head_dim {
                    output[out_at(layout, head, i) + c] += p * qkv[value_at(layout, head, start + j) + c];
                }
            }
        }
    });
    output
}

/// Gradient of `qkv`.
pub fn backward(qkv: &[f64], layout: QkvLayout, cu_seqlens: &[u32], d_output: &[f64]) -> Vec<f64> {
    let (d, scale) = (layout.head_dim, layout.scale());
    let mut gradient = vec![0.0; qkv.len()];
    for_heads(layout, cu_seqlens, |head, start, end| {
        for i in start..end {
            let p = probabilities(qkv, layout, head, start, i);
            let dy = &d_output[out_at(layout, head, i)..][..d];
            let value = |j: usize| &qkv[value_at(layout, head, start + j)..][..d];
            let dp: Vec<f64> = (0..p.len()).map(|j| dot(dy, value(j))).collect();
            let delta = dot(&p, &dp);
            for j in 0..p.len() {
                let ds = p[j] * (dp[j] - delta) * scale;
                let (q, k, v) =
                    (query_at(layout, head, i), key_at(layout, head, start + j), value_at(layout, head, start + j));
                for c in 0..d {
                    gradient[q + c] += ds * qkv[k + c];
                    gradient[k + c] += ds * qkv[q + c];
                    gradient[v + c] += p[j] * dy[c];
                }
            }
        }
    });
    gradient
}

fn for_heads(layout: QkvLayout, cu_seqlens: &[u32], mut f: impl FnMut(usize, usize, usize)) {
    for pair in cu_seqlens.windows(2) {
        (0..layout.heads()).for_each(|head| f(head, pair[0] as usize, pair[1] as usize));
    }
}

fn probabilities(qkv: &[f64], layout: QkvLayout, head: usize, start: usize, i: usize) -> Vec<f64> {
    let d = layout.head_dim;
    let q = &qkv[query_at(layout, head, i)..][..d];
    let score = |j: usize| dot(q, &qkv[key_at(layout, head, j)..][..d]) * layout.scale();
    let scores: Vec<f64> = (start..=i).map(score).collect();
    let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - maximum).exp()).sum();
    scores.iter().map(|s| (s - maximum).exp() / sum).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn out_at(layout: QkvLayout, head: usize, token: usize) -> usize {
    token * layout.output_width() + head * layout.head_dim
}

fn column(layout: QkvLayout, head: usize, slot: usize, token: usize) -> usize {
    let group = head / layout.q_per_kv;
    token * layout.qkv_width() + (group * (layout.q_per_kv + 2) + slot) * layout.head_dim
}

fn query_at(layout: QkvLayout, head: usize, token: usize) -> usize {
    column(layout, head, head % layout.q_per_kv, token)
}

fn key_at(layout: QkvLayout, head: usize, token: usize) -> usize {
    column(layout, head, layout.q_per_kv, token)
}

fn value_at(layout: QkvLayout, head: usize, token: usize) -> usize {
    column(layout, head, layout.q_per_kv + 1, token)
}
