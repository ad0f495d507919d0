//! Matrix products on slices: a checked face for the `gemm` crate. Used by the linear layer, the vocabulary head and
//! attention tiles.
//!
//! A product's bits do not depend on the number of threads: threads share out whole output tiles and never split the
//! inner dimension.

use gemm::Parallelism;

/// A matrix inside a slice: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix that fills `data`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "matrix {rows}x{columns} in a slice of {}", data.len());
        Self::strided(data, rows, columns, columns)
    }

    /// A window: rows of `columns` adjacent elements, `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert_window(data.len(), rows, columns, row_stride);
        Self { data, rows, columns, row_stride, column_stride: 1 }
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
    // SAFETY: `Output` was checked to be a window of its exclusively borrowed slice, without overlapping rows.
    unsafe { multiply_raw(output.data.as_mut_ptr(), output.row_stride, accumulate, scale, a, b, threads) }
}

/// `a · b` in a new row-major vector, over the pool.
pub fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let len = a.rows * b.columns;
    let mut out = Vec::with_capacity(len);
    // SAFETY: the capacity holds `rows x columns` row-major; without `accumulate` every element is written and none
    // read, so the length may be set afterwards.
    unsafe {
        multiply_raw(out.as_mut_ptr(), b.columns, false, 1.0, a, b, Threads::Pool);
        out.set_len(len);
    }
    out
}

/// # Safety
/// `output` is valid for writes (for reads too with `accumulate`) of `a.rows` rows of `b.columns` elements,
/// `row_stride` apart, that nothing else touches meanwhile.
unsafe fn multiply_raw(
    output: *mut f32,
    row_stride: usize,
    accumulate: bool,
    scale: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner dimension of a product");
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::Pool => Parallelism::Rayon(0),
    };
    // SAFETY: `a` and `b` were checked against their slices when made, `output` is the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            output,
            1,
            row_stride as isize,
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
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests;
