//! Rotation in plain f64: the oracle of tests and benches.

use super::RotaryHeads;

/// Angles per position of the pairs of a head without scaling: `base^(-2i / head_dim)`.
pub fn frequencies(head_dim: usize, base: f64) -> Vec<f64> {
    (0..head_dim / 2).map(|i| base.powf(-2.0 * i as f64 / head_dim as f64)).collect()
}

/// Rotated copy of `x` by `frequencies` (one per pair); `direction` is 1 for the forward and -1 for the gradient.
pub fn rotate(
    x: &[f64],
    heads: impl Into<RotaryHeads>,
    positions: &[u32],
    frequencies: &[f64],
    direction: f64,
) -> Vec<f64> {
    let heads = heads.into();
    let (d, half) = (heads.head_dim, heads.head_dim / 2);
    let mut out = x.to_vec();
    for (row, position) in out.chunks_exact_mut(heads.width()).zip(positions) {
        for (index, head) in row.chunks_exact_mut(d).enumerate() {
            if index % (heads.rotated + heads.passed) >= heads.rotated {
                continue;
            }
            for i in 0..half {
                let angle = direction * f64::from(*position) * frequencies[i];
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    }
    out
}
