//! The layers of experts on slices, row-major. Groups are cut into pieces of rows that threads share out, so one crowded expert
//! keeps all of them busy; cuts do not depend on the number of threads, and neither do bits.

use super::Shape;
use crate::matmul::{Matrix, Output, Threads, multiply};
use crate::rows::for_blocks;
use std::ops::Range;

/// Rows of one piece: enough that packing the weight for it is lost in the product.
const PIECE_ROWS: usize = 256;

/// `y`, `[T, d_out]`, of `x`, `[T, d_in]`.
///
/// # Panics
/// If lengths do not fit, or `offsets` do not cut the rows into a group for each expert; so do the others here.
pub fn forward(shape: Shape, x: &[f32], weight: &[f32], offsets: &[u32]) -> Vec<f32> {
    let Shape { d_in, d_out, .. } = shape;
    let rows = rows(shape, x, d_in, offsets);
    let mut y = vec![0.0; rows * d_out];
    for_pieces(&mut y, d_out, offsets.iter().map(|end| *end as usize), |expert, rows, y| {
        let x = Matrix::new(&x[rows.start * d_in..rows.end * d_in], rows.len(), d_in);
        let y = Output::new(y, rows.len(), d_out);
        multiply(y, false, 1.0, x, of_expert(shape, weight, expert).transposed(), Threads::One);
    });
    y
}

/// `dx`, `[T, d_in]`, from `dy`, `[T, d_out]`.
pub fn backward_input(shape: Shape, dy: &[f32], weight: &[f32], offsets: &[u32]) -> Vec<f32> {
    let Shape { d_in, d_out, .. } = shape;
    let rows = rows(shape, dy, d_out, offsets);
    let mut dx = vec![0.0; rows * d_in];
    for_pieces(&mut dx, d_in, offsets.iter().map(|end| *end as usize), |expert, rows, dx| {
        let dy = Matrix::new(&dy[rows.start * d_out..rows.end * d_out], rows.len(), d_out);
        let dx = Output::new(dx, rows.len(), d_in);
        multiply(dx, false, 1.0, dy, of_expert(shape, weight, expert), Threads::One);
    });
    dx
}

/// `dw`, `[experts, d_out, d_in]`, from `dy` and `x`; zero for an expert without rows.
pub fn backward_weight(shape: Shape, dy: &[f32], x: &[f32], offsets: &[u32]) -> Vec<f32> {
    let Shape { experts, d_in, d_out } = shape;
    assert_eq!(rows(shape, dy, d_out, offsets), rows(shape, x, d_in, offsets), "grouped_gemm: rows of dy and x");
    let mut dw = vec![0.0; shape.weight_len()];
    for_pieces(&mut dw, d_in, (0..=experts).map(|expert| expert * d_out), |expert, outputs, dw| {
        let (start, end) = (offsets[expert] as usize, offsets[expert + 1] as usize);
        if start == end {
            return;
        }
        let first = start * d_out + outputs.start - expert * d_out;
        let last = (end - 1) * d_out + outputs.end - expert * d_out;
        let dy = Matrix::strided(&dy[first..last], end - start, outputs.len(), d_out);
        let x = Matrix::new(&x[start * d_in..end * d_in], end - start, d_in);
        multiply(Output::new(dw, outputs.len(), d_in), false, 1.0, dy.transposed(), x, Threads::One);
    });
    dw
}

/// How many rows of `width` there are.
fn rows(shape: Shape, matrix: &[f32], width: usize, offsets: &[u32]) -> usize {
    let rows = matrix.len() / width.max(1);
    assert_eq!(matrix.len(), rows * width, "grouped_gemm: rows of {width}");
    shape.check(offsets, rows);
    rows
}

fn of_expert(shape: Shape, weight: &[f32], expert: usize) -> Matrix<'_> {
    let len = shape.d_out * shape.d_in;
    assert_eq!(weight.len(), shape.weight_len(), "grouped_gemm: weight of {shape:?}");
    Matrix::new(&weight[expert * len..][..len], shape.d_out, shape.d_in)
}

/// Calls `f(group, rows, out)` for pieces of the groups of rows of `width` elements that successive `ends` (from 0) bound.
fn for_pieces(
    out: &mut [f32],
    width: usize,
    ends: impl Iterator<Item = usize> + Clone,
    f: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    let mut rest = out;
    let mut pieces = Vec::new();
    for (group, (start, end)) in ends.clone().zip(ends.skip(1)).enumerate() {
        for first in (start..end).step_by(PIECE_ROWS) {
            let rows = first..(first + PIECE_ROWS).min(end);
            let piece = rest.split_off_mut(..rows.len() * width).expect("the groups are those of the rows");
            pieces.push((group, rows, piece));
        }
    }
    for_blocks(&mut pieces, 1, |_, piece| {
        let (group, rows, out) = &mut piece[0];
        f(*group, rows.clone(), out);
    });
}
