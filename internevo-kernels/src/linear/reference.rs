//! The linear layer in plain f64: the oracle of tests and benches.

use super::cpu::Shape;

/// `y = x · Wᵀ`.
pub fn forward(shape: Shape, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; shape.tokens * shape.d_out];
    for t in 0..shape.tokens {
        for o in 0..shape.d_out {
            let row = &x[t * shape.d_in..][..shape.d_in];
            y[t * shape.d_out + o] = row.iter().zip(&weight[o * shape.d_in..]).map(|(a, b)| a * b).sum();
        }
    }
    y
}

/// Gradients `(dx, dW)` for the gradient `dy` of the output.
pub fn backward(shape: Shape, x: &[f64], weight: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    for t in 0..shape.tokens {
        for o in 0..shape.d_out {
            let g = dy[t * shape.d_out + o];
            for i in 0..shape.d_in {
                dx[t * shape.d_in + i] += g * weight[o * shape.d_in + i];
                dw[o * shape.d_in + i] += g * x[t * shape.d_in + i];
            }
        }
    }
    (dx, dw)
}
