//! The linear layer on slices of f32 or bf16 (f32 sums, rounded once). `x` is `[tokens, d_in]`, `weight` `[d_out, d_in]`,
//! `y` and its gradient `[tokens, d_out]`, all row-major.

use crate::matmul::{Matrix, bf16::product_bf16, product};
use crate::simd::bf16::round;
use burn::tensor::bf16;

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

/// An element type of the linear layer.
pub trait Element: Copy + Send + Sync + 'static {
    /// `a · b`, row-major.
    fn product(a: Matrix<'_, Self>, b: Matrix<'_, Self>) -> Vec<Self>;
}

impl Element for f32 {
    fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        product(a, b)
    }
}

impl Element for bf16 {
    fn product(a: Matrix<'_, bf16>, b: Matrix<'_, bf16>) -> Vec<bf16> {
        let wide = product_bf16(a, b);
        let mut out = vec![bf16::ZERO; wide.len()];
        round(&wide, &mut out);
        out
    }
}

/// `y = x · Wᵀ`.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for; the same holds for the functions below.
pub fn forward<T: Element>(shape: Shape, x: &[T], weight: &[T]) -> Vec<T> {
    let weight = Matrix::new(weight, shape.d_out, shape.d_in);
    T::product(Matrix::new(x, shape.tokens, shape.d_in), weight.transposed())
}

/// `dx = dy · W`.
pub fn backward_input<T: Element>(shape: Shape, dy: &[T], weight: &[T]) -> Vec<T> {
    T::product(Matrix::new(dy, shape.tokens, shape.d_out), Matrix::new(weight, shape.d_out, shape.d_in))
}

/// `dW = dyᵀ · x`.
pub fn backward_weight<T: Element>(shape: Shape, dy: &[T], x: &[T]) -> Vec<T> {
    T::product(Matrix::new(dy, shape.tokens, shape.d_out).transposed(), Matrix::new(x, shape.tokens, shape.d_in))
}
