//! The layers of experts in plain f64, one linear layer a group: the oracle of tests and benches.

use super::Shape;
use crate::linear::{cpu::Shape as Linear, reference};

/// `y`, `[T, d_out]`.
pub fn forward(shape: Shape, x: &[f64], weight: &[f64], offsets: &[u32]) -> Vec<f64> {
    let of_group = |(layer, x, weight): (Linear, &[f64], &[f64])| reference::forward(layer, x, weight);
    groups(shape, x, weight, offsets).flat_map(of_group).collect()
}

/// Gradients `(dx, dw)`.
pub fn backward(shape: Shape, x: &[f64], weight: &[f64], offsets: &[u32], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw) = (Vec::new(), Vec::new());
    for ((layer, x, weight), start) in groups(shape, x, weight, offsets).zip(offsets) {
        let dy = &dy[*start as usize * shape.d_out..][..layer.tokens * shape.d_out];
        let (group_dx, group_dw) = reference::backward(layer, x, weight, dy);
        dx.extend(group_dx);
        dw.extend(group_dw);
    }
    (dx, dw)
}

/// Sizes, rows and weight of each group.
fn groups<'a>(
    shape: Shape,
    x: &'a [f64],
    weight: &'a [f64],
    offsets: &'a [u32],
) -> impl Iterator<Item = (Linear, &'a [f64], &'a [f64])> {
    let weights = weight.chunks_exact(shape.d_out * shape.d_in);
    offsets.windows(2).zip(weights).map(move |(pair, weight)| {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        let layer = Linear { tokens: end - start, d_in: shape.d_in, d_out: shape.d_out };
        (layer, &x[start * shape.d_in..end * shape.d_in], weight)
    })
}
