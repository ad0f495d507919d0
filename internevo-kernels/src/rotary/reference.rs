//! Rotation in plain f64: the oracle of tests and benches.

use crate::attention::QkvLayout;

/// Rotated copy of `qkv`; `direction` is 1 for the forward and -1 for the gradient.
pub fn rotate(qkv: &[f64], layout: QkvLayout, positions: &[u32], base: f64, direction: f64) -> Vec<f64> {
    let (d, half) = (layout.head_dim, layout.head_dim / 2);
    let mut out = qkv.to_vec();
    for (row, position) in out.chunks_exact_mut(layout.qkv_width()).zip(positions) {
        for (index, head) in row.chunks_exact_mut(d).enumerate() {
            if index % (layout.q_per_kv + 2) == layout.q_per_kv + 1 {
                continue;
            }
            for i in 0..half {
                let angle = direction * f64::from(*position) * base.powf(-2.0 * i as f64 / d as f64);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    }
    out
}
