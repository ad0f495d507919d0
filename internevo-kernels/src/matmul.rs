//! Matrix products on slices: a checked face for the `gemm` crate. Used by the linear layer, the vocabulary head and
//! attention tiles. Products of bf16 matrices are in [`bf16`].
//!
//! A product's bits do not depend on the number of threads: threads take bands of the output and never split the inner
//! dimension. Cutting bands here rather than in `gemm` saves its barriers between packing and multiplying.

pub mod bf16;

use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix inside a slice: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T = f32> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix that fills `data`.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "matrix {rows}x{columns} in a slice of {}", data.len());
        Self::strided(data, rows, columns, columns)
    }

    /// A window: rows of `columns` adjacent elements, `row_stride` apart.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_window(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The rows `start..end`.
    fn rows_between(self, start: usize, end: usize) -> Self {
        assert!(start < end && end <= self.rows, "rows {start}..{end} of {}", self.rows);
        Self { data: &self.data[start * self.row_stride..], rows: end - start, ..self }
    }

    /// The transpose; moves nothing.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

fn assert_window(len: usize, rows: usize, columns: usize, row_stride: usize) {
    let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
    assert!(needed <= len, "matrix {rows}x{columns} with stride {row_stride} in a slice of {len}");
}

/// Where a product goes: rows of adjacent elements, `row_stride` apart.
#[derive(Debug)]
pub struct Output<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> Output<'a> {
    /// A row-major matrix that fills `data`.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "matrix {rows}x{columns} in a slice of {}", data.len());
        Self::strided(data, rows, columns, columns)
    }

    /// A window: rows of `columns` adjacent elements, `row_stride >= columns` apart.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_window(data.len(), rows, columns, row_stride);
        assert!(row_stride >= columns || rows <= 1, "rows of {columns} elements overlap at stride {row_stride}");
        Self { data, rows, columns, row_stride }
    }
}

/// Whether a product may use the rayon pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread only.
    One,
    /// The current rayon pool.
    Pool,
}

/// `output = scale · a · b`, or `output += scale · a · b` with `accumulate`.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(output: Output<'_>, accumulate: bool, scale: f32, a: Matrix<'_>, b: Matrix<'_>, threads: Threads) {
    assert_eq!((output.rows, output.columns), (a.rows, b.columns), "shape of the product");
    let target = Target { first: output.data.as_mut_ptr(), row_stride: output.row_stride };
    // SAFETY: `Output` was checked to be a window of its exclusively borrowed slice, without overlapping rows.
    unsafe { multiply_raw(target, accumulate, scale, a, b, threads) }
}

/// `a · b` in a new row-major vector, over the pool.
pub fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut out = Vec::new();
    extend_with_product(&mut out, a, b);
    out
}

/// Appends `a · b`, row-major, to `out`, over the pool. The new memory is not cleared first.
pub fn extend_with_product(out: &mut Vec<f32>, a: Matrix<'_>, b: Matrix<'_>) {
    let (start, len) = (out.len(), a.rows * b.columns);
    out.reserve_exact(len);
    let target = Target { first: out.spare_capacity_mut().as_mut_ptr().cast(), row_stride: b.columns };
    // SAFETY: the spare capacity holds `rows x columns` row-major; without `accumulate` every element is written and none
    // read, so the length may be set afterwards.
    unsafe {
        multiply_raw(target, false, 1.0, a, b, Threads::Pool);
        out.set_len(start + len);
    }
}

/// Multiply-adds that a piece of a product has at least: about 10 µs, ten times what handing it over costs.
const PIECE_WORK: usize = 1 << 20;

/// Rows or columns that a piece has at least. Above 64, `gemm` cuts the inner dimension by a rule that no longer looks at
/// the outer ones, so how a product is cut into pieces leaves no trace in its bits.
const PIECE_LENGTH: usize = 128;

/// Pieces are cut at multiples of this: whole register tiles.
const UNIT: usize = 32;

/// Where a product is written: the address of its first element and the distance between rows.
#[derive(Clone, Copy)]
struct Target {
    first: *mut f32,
    row_stride: usize,
}

impl Target {
    /// Elements before row `index`.
    fn row(self, index: usize) -> usize {
        index * self.row_stride
    }

    /// The same rows, `elements` further on.
    ///
    /// # Safety
    /// The place is inside the same allocation.
    unsafe fn offset(self, elements: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { first: unsafe { self.first.add(elements) }, ..self }
    }
}

// SAFETY: the address is used by `multiply_raw` alone, which gives every thread its own rows or columns.
unsafe impl Send for Target {}
// SAFETY: as for `Send`.
unsafe impl Sync for Target {}

/// # Safety
/// `target` is valid for writes (for reads too with `accumulate`) of `a.rows` rows of `b.columns` elements that nothing
/// else touches meanwhile.
unsafe fn multiply_raw(target: Target, accumulate: bool, scale: f32, a: Matrix<'_>, b: Matrix<'_>, threads: Threads) {
    assert_eq!(a.columns, b.rows, "inner dimension of a product");
    // The longer side is cut: what the other side contributes is packed again for every piece.
    let (by_rows, length) = (a.rows >= b.columns, a.rows.max(b.columns));
    let work = a.rows * a.columns * b.columns;
    let most = (work / PIECE_WORK).min(length / PIECE_LENGTH);
    let pieces = match threads {
        Threads::Pool if most > 1 => most.min(rayon::current_num_threads()),
        _ => 1,
    };
    if pieces == 1 {
        // SAFETY: the caller's promise.
        return unsafe { multiply_piece(target, accumulate, scale, a, b) };
    }
    let cut = |piece: usize| (length.div_ceil(UNIT) * piece / pieces * UNIT).min(length);
    (0..pieces).into_par_iter().with_max_len(1).for_each(|piece| {
        let (start, end) = (cut(piece), cut(piece + 1));
        let (a, b, offset) = match by_rows {
            true => (a.rows_between(start, end), b, target.row(start)),
            false => (a, b.transposed().rows_between(start, end).transposed(), start),
        };
        // SAFETY: the offset stays inside the target, and pieces are disjoint bands of its rows or columns.
        unsafe { multiply_piece(target.offset(offset), accumulate, scale, a, b) };
    });
}

/// The product on this thread.
///
/// # Safety
/// As [`multiply_raw`].
unsafe fn multiply_piece(target: Target, accumulate: bool, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
    // SAFETY: `a` and `b` were checked against their slices when made, `target` is the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            target.first,
            1,
            target.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests;
