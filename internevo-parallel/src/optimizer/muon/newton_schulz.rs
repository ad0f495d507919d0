//! The nearest semi-orthogonal matrix, approximately: a Newton-Schulz iteration in f32. Not here: momentum, scaling, ranks.

use gemm::Parallelism;
use rayon::prelude::*;

/// Jordan's quintic (2024): `x -> a x + b x³ + c x⁵` applied to all singular values. The coefficients trade convergence to 1 for
/// a steep start: five steps bring singular values from 0.002 to 1 into the range 0.68 to 1.21.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Keeps a zero matrix zero.
const EPS: f64 = 1e-7;
/// Elements of one partial sum of squares.
const CHUNK: usize = 64 * 1024;

/// Replaces the row-major matrix `x` of `rows` rows by `U f(S) Vᵀ`, where `U S Vᵀ` is its singular value decomposition divided
/// by its Frobenius norm, and `f` is `steps` rounds of the quintic. The bits do not depend on the number of threads.
pub(super) fn orthogonalize(x: &mut [f32], rows: usize, steps: usize) {
    let columns = x.len() / rows;
    assert_eq!(x.len(), rows * columns, "a matrix of {rows} rows");
    normalize(x);
    let [a, b, c] = QUINTIC;
    let side = rows.min(columns);
    let mut gram = vec![0.0; side * side];
    let mut polynomial = vec![0.0; side * side];
    let mut next = vec![0.0; x.len()];
    for _ in 0..steps {
        // The Gram matrix of the shorter side, then `(a + b gram + c gram²) x`, from the left or from the right.
        let view = Matrix::new(x, rows);
        let wide = rows <= columns;
        let (left, right) = if wide { (view, view.transposed()) } else { (view.transposed(), view) };
        product(&mut gram, 0.0, left, right, 1.0);
        polynomial.copy_from_slice(&gram);
        let gram = Matrix::new(&gram, side);
        product(&mut polynomial, b, gram, gram, c);
        next.copy_from_slice(x);
        let polynomial = Matrix::new(&polynomial, side);
        let (left, right) = if wide { (polynomial, view) } else { (view, polynomial) };
        product(&mut next, a, left, right, 1.0);
        x.copy_from_slice(&next);
    }
}

/// Divides by the Frobenius norm, so that no singular value is above 1.
fn normalize(x: &mut [f32]) {
    let partial = x.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>());
    let norm = partial.collect::<Vec<_>>().into_iter().sum::<f64>().sqrt();
    let factor = (1.0 / (norm + EPS)) as f32;
    x.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|x| *x *= factor));
}

/// A matrix that fills a slice: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major.
    fn new(data: &'a [f32], rows: usize) -> Self {
        let columns = data.len() / rows;
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} rows");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = alpha out + beta a b`, row-major. Threads divide the output and never the inner dimension, so that their number
/// changes no bit.
fn product(out: &mut [f32], alpha: f32, a: Matrix<'_>, b: Matrix<'_>, beta: f32) {
    assert_eq!(a.columns, b.rows, "inner dimension of a product");
    assert_eq!(out.len(), a.rows * b.columns, "output of a product");
    // SAFETY: both factors fill their slices (`Matrix::new`; transposing swaps lengths and strides alike), so that every element
    // `(i, j)` is inside them; `out` has a row of `b.columns` elements for every row of `a`, and as it is borrowed mutably,
    // nothing else touches it.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            alpha != 0.0,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            alpha,
            beta,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::testing::{random, relative_error};

    /// The same iteration in f64, from its definition `a X + b (X Xᵀ) X + c (X Xᵀ)² X`.
    fn reference(x: &[f32], rows: usize, steps: usize) -> Vec<f64> {
        let columns = x.len() / rows;
        let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let mut x: Vec<f64> = x.iter().map(|x| f64::from(*x) / (norm + EPS)).collect();
        for _ in 0..steps {
            let gram = |i: usize, j: usize, x: &[f64]| -> f64 {
                (0..columns).map(|k| x[i * columns + k] * x[j * columns + k]).sum()
            };
            let gram: Vec<f64> = (0..rows * rows).map(|at| gram(at / rows, at % rows, &x)).collect();
            let times_gram = |y: &[f64]| -> Vec<f64> {
                let at = |i: usize, j: usize| (0..rows).map(|k| gram[i * rows + k] * y[k * columns + j]).sum();
                (0..rows * columns).map(|p| at(p / columns, p % columns)).collect()
            };
            let cubic = times_gram(&x);
            let quintic = times_gram(&cubic);
            let [a, b, c] = QUINTIC.map(f64::from);
            x = (0..x.len()).map(|i| a * x[i] + b * cubic[i] + c * quintic[i]).collect();
        }
        x
    }

    #[test]
    fn the_iteration_stays_with_the_f64_reference_for_wide_tall_and_square_matrices() {
        for (rows, columns) in [(24, 64), (64, 24), (40, 40), (1, 7), (7, 1), (65, 96)] {
            let mut x = random("x", rows * columns, 0.3);
            let expected = reference(&x, rows, 5);
            orthogonalize(&mut x, rows, 5);
            let error = relative_error(&x, &expected);
            assert!(error <= 1e-5, "{rows}x{columns}: {error}");
        }
    }

    #[test]
    fn equal_singular_values_follow_the_quintic_in_closed_form() {
        // A quarter turn of 2x2 scaled by 5, beside zeros: both singular values are 1/sqrt(2) after the division.
        let mut x = [0.0, -5.0, 0.0, 5.0, 0.0, 0.0];
        orthogonalize(&mut x, 2, 5);
        let [a, b, c] = QUINTIC.map(f64::from);
        let value = (0..5).fold(0.5f64.sqrt(), |s, _| a * s + b * s.powi(3) + c * s.powi(5));
        assert!((0.68..1.21).contains(&value));
        for (found, expected) in x.iter().zip([0.0, -value, 0.0, value, 0.0, 0.0]) {
            assert!((f64::from(*found) - expected).abs() <= 1e-5, "{x:?} against {value}");
        }
    }

    #[test]
    fn the_rows_of_a_random_wide_matrix_become_nearly_orthonormal() {
        let (rows, columns) = (48, 192);
        let mut x = random("x", rows * columns, 7.0);
        orthogonalize(&mut x, rows, 5);
        for i in 0..rows {
            let dot = |j: usize| (0..columns).map(|k| x[i * columns + k] * x[j * columns + k]).sum::<f32>();
            assert!((0.4..1.4).contains(&dot(i)), "row {i}: {}", dot(i));
            assert!((0..i).all(|j| dot(j).abs() < 0.2), "row {i}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut x = [0.0; 12];
        orthogonalize(&mut x, 3, 5);
        assert_eq!(x, [0.0; 12]);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for (rows, columns) in [(300, 520), (520, 300), (257, 64)] {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let mut x = random("x", rows * columns, 0.3);
                pool.install(|| orthogonalize(&mut x, rows, 5));
                x.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = run(1);
            assert!([2, 3, 7].into_iter().all(|threads| run(threads) == one), "{rows}x{columns}");
        }
    }
}
