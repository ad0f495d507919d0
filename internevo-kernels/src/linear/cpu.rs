//! The linear layer on slices. `x` is `[tokens, d_in]`, `weight` `[d_out, d_in]`, `y` and its gradient `[tokens, d_out]`,
//! all row-major.

use crate::matmul::{Matrix, product};

/// Sizes of one linear layer applied to a batch of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the input.
    pub tokens: usize,
    /// Columns of the input.
    pub d_in: usize,
    /// Columns of the output.
    pub d_out: usize,
}

/// `y = x · Wᵀ`.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for; the same holds for the functions below.
pub fn forward(shape: Shape, x: &[f32], weight: &[f32]) -> Vec<f32> {
    let weight = Matrix::new(weight, shape.d_out, shape.d_in);
    product(Matrix::new(x, shape.tokens, shape.d_in), weight.transposed())
}

/// `dx = dy · W`.
pub fn backward_input(shape: Shape, dy: &[f32], weight: &[f32]) -> Vec<f32> {
    product(Matrix::new(dy, shape.tokens, shape.d_out), Matrix::new(weight, shape.d_out, shape.d_in))
}

/// `dW = dyᵀ · x`.
pub fn backward_weight(shape: Shape, dy: &[f32], x: &[f32]) -> Vec<f32> {
    product(Matrix::new(dy, shape.tokens, shape.d_out).transposed(), Matrix::new(x, shape.tokens, shape.d_in))
}
