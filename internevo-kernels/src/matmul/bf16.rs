//! Products of bf16 matrices with f32 sums: `vdpbf16ps` where the processor has it (AVX512-BF16), otherwise the f32 product
//! of the widened operands.
//!
//! Bits do not depend on the number of threads. They depend on the processor: `vdpbf16ps` takes denormal operands as zero
//! and adds products in pairs.

use super::{Matrix, product};
use crate::simd::bf16::widen;
use burn::tensor::bf16;

/// `a · b` in f32, row-major, over the pool.
///
/// ```
/// use internevo_kernels::burn::tensor::bf16;
/// use internevo_kernels::matmul::{Matrix, bf16::product_bf16};
///
/// let (x, w) = ([1.0, 2.0].map(bf16::from_f32), [3.0, 4.0, 5.0, 6.0].map(bf16::from_f32));
/// // One row times the transpose of two rows.
/// let y = product_bf16(Matrix::new(&x, 1, 2), Matrix::new(&w, 2, 2).transposed());
/// assert_eq!(y, [11.0, 17.0]);
/// ```
///
/// # Panics
/// If the shapes do not fit.
pub fn product_bf16(a: Matrix<'_, bf16>, b: Matrix<'_, bf16>) -> Vec<f32> {
    assert_eq!(a.columns, b.rows, "inner dimension of a product");
    #[cfg(target_arch = "x86_64")]
    if dot::available() {
        return dot::product(a, b);
    }
    product_widened(a, b)
}

/// The product of the operands widened to f32.
fn product_widened(a: Matrix<'_, bf16>, b: Matrix<'_, bf16>) -> Vec<f32> {
    let (mut a_wide, mut b_wide) = (vec![0.0; a.data.len()], vec![0.0; b.data.len()]);
    widen(a.data, &mut a_wide);
    widen(b.data, &mut b_wide);
    product(with_data(a, &a_wide), with_data(b, &b_wide))
}

fn with_data<'a>(matrix: Matrix<'_, bf16>, data: &'a [f32]) -> Matrix<'a> {
    let Matrix { rows, columns, row_stride, column_stride, .. } = matrix;
    Matrix { data, rows, columns, row_stride, column_stride }
}

#[cfg(target_arch = "x86_64")]
mod dot {
    //! The product in register tiles of packed pairs. Operands are packed in panels: `[pair of the inner dimension][lane]`,
    //! two adjacent bf16 in a word, lanes being rows of `a` or columns of `b`, zeros beyond the edge.

    use super::{Matrix, bf16};
    use crate::rows::for_blocks;
    use rayon::prelude::*;
    use std::arch::x86_64::*;

    /// Rows and columns of a register tile: 28 accumulators of 16 lanes, two vectors of `b` and one broadcast of `a`.
    const ROWS: usize = 14;
    const COLUMNS: usize = 32;
    /// Lanes of a vector.
    const LANES: usize = 16;
    /// Pairs of the inner dimension handled at once: a panel of `b` is then 128 KiB, which stays in the second-level cache.
    const PAIRS: usize = 1024;
    /// Row panels per task: enough to outweigh what handing it over costs.
    const PANELS: usize = 8;

    /// Whether this processor has the instructions.
    pub fn available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
    }

    pub fn product(a: Matrix<'_, bf16>, b: Matrix<'_, bf16>) -> Vec<f32> {
        let (rows, columns, inner) = (a.rows, b.columns, a.columns);
        let mut out = vec![0.0; rows * columns];
        let columns_first = b.transposed();
        for start in (0..inner).step_by(2 * PAIRS) {
            let pairs = (inner - start).min(2 * PAIRS).div_ceil(2);
            let mut packed_b = vec![0u32; columns.div_ceil(COLUMNS) * pairs * COLUMNS];
            packed_b.par_chunks_mut(pairs * COLUMNS).enumerate().for_each(|(panel, target)| {
                pack::<COLUMNS>(columns_first, panel * COLUMNS, start, target);
            });
            for_blocks(&mut out, PANELS * ROWS * columns, |block, out| {
                let mut packed_a = vec![0u32; pairs * ROWS];
                for (panel, out) in out.chunks_mut(ROWS * columns).enumerate() {
                    packed_a.fill(0);
                    pack::<ROWS>(a, (block * PANELS + panel) * ROWS, start, &mut packed_a);
                    for (index, packed_b) in packed_b.chunks_exact(pairs * COLUMNS).enumerate() {
                        // SAFETY: `product` is called only where `available` found the features.
                        let tile = unsafe { tile(packed_a.as_chunks().0, packed_b.as_chunks().0) };
                        add_tile(&tile, &mut out[index * COLUMNS..], columns, columns - index * COLUMNS);
                    }
                }
            });
        }
        out
    }

    /// Packs rows `first_row..` of `matrix` (as many as there are, at most `N`), inner elements `start..`, into `panel`, which
    /// is zero where they end.
    fn pack<const N: usize>(matrix: Matrix<'_, bf16>, first_row: usize, start: usize, panel: &mut [u32]) {
        let (words, _) = panel.as_chunks_mut::<N>();
        let (lanes, count) = (N.min(matrix.rows - first_row), (matrix.columns - start).min(2 * words.len()));
        let (down, right) = (matrix.row_stride, matrix.column_stride);
        let data = &matrix.data[first_row * down + start * right..];
        // One of the strides is 1: the inner dimension is adjacent, or the lanes are.
        if right == 1 {
            for lane in 0..lanes {
                let (pairs, _) = data[lane * down..][..count].as_chunks();
                words.iter_mut().zip(pairs).for_each(|(word, [low, high])| word[lane] = join(*low, *high));
            }
        } else {
            for (pair, word) in words[..count / 2].iter_mut().enumerate() {
                let (low, high) = (&data[2 * pair * right..], &data[(2 * pair + 1) * right..]);
                let lanes = word[..lanes].iter_mut().enumerate();
                lanes.for_each(|(lane, word)| *word = join(low[lane * down], high[lane * down]));
            }
        }
        if count % 2 == 1 {
            let last = (count - 1) * right;
            (0..lanes).for_each(|lane| words[count / 2][lane] = join(data[lane * down + last], bf16::ZERO));
        }
    }

    /// Two elements as one word, the first in its lower half.
    fn join(low: bf16, high: bf16) -> u32 {
        u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
    }

    /// The product of two panels.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn tile(a: &[[u32; ROWS]], b: &[[u32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
        let mut sums = [[_mm512_setzero_ps(); COLUMNS / LANES]; ROWS];
        for (a, b) in a.iter().zip(b) {
            // SAFETY: both addresses are 16 words inside a row of 32; the load asks for no alignment.
            let b = unsafe { [0, LANES].map(|at| _mm512_loadu_epi32(b.as_ptr().add(at).cast())) };
            let b = b.map(as_pairs);
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = as_pairs(_mm512_set1_epi32(*a as i32));
                *sums = [_mm512_dpbf16_ps(sums[0], a, b[0]), _mm512_dpbf16_ps(sums[1], a, b[1])];
            }
        }
        // SAFETY: two vectors of 16 floats are an array of 32 floats.
        sums.map(|row| unsafe { std::mem::transmute::<[__m512; 2], [f32; COLUMNS]>(row) })
    }

    /// The words of a vector as pairs of bf16.
    #[inline(always)]
    fn as_pairs(words: __m512i) -> __m512bh {
        // SAFETY: 16 words and 32 bf16 are the same 512 bits.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
    }

    /// Adds a tile to the rows of `out`, `stride` apart, `width` columns of which are there.
    fn add_tile(tile: &[[f32; COLUMNS]; ROWS], out: &mut [f32], stride: usize, width: usize) {
        for (row, tile) in out.chunks_mut(stride).zip(tile) {
            row.iter_mut().zip(&tile[..width.min(COLUMNS)]).for_each(|(sum, v)| *sum += *v);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against f64, on any strides and edges.

    use super::{Matrix, bf16, product_bf16, product_widened};
    use crate::testing::{Random, assert_close, assert_deterministic};

    fn values(random: &mut Random, len: usize) -> Vec<bf16> {
        random.values(len).into_iter().map(bf16::from_f32).collect()
    }

    #[test]
    fn products_of_any_shape_and_orientation_agree_with_f64() {
        let mut random = Random::fresh();
        for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let (m, n, k) = (random.between(1, 90), random.between(1, 90), random.between(1, 2500));
            println!("{m}x{n}x{k}");
            let (a, b) = (values(&mut random, m * k), values(&mut random, k * n));
            let oriented = |data, rows, columns, transposed| match transposed {
                true => Matrix::new(data, columns, rows).transposed(),
                false => Matrix::new(data, rows, columns),
            };
            let (a, b) = (oriented(&a[..], m, k, a_transposed), oriented(&b[..], k, n, b_transposed));
            let at = |m: &Matrix<'_, bf16>, i: usize, j: usize| {
                f64::from(m.data[i * m.row_stride + j * m.column_stride].to_f32())
            };
            let exact: Vec<f64> =
                (0..m * n).map(|place| (0..k).map(|i| at(&a, place / n, i) * at(&b, i, place % n)).sum()).collect();
            assert_close("bf16 product", &product_bf16(a, b), &exact);
            assert_close("widened product", &product_widened(a, b), &exact);
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let mut random = Random::fresh();
        let (a, b) = (values(&mut random, 500 * 300), values(&mut random, 300 * 77));
        assert_deterministic("bf16 product", || product_bf16(Matrix::new(&a, 500, 300), Matrix::new(&b, 300, 77)));
    }

    #[test]
    fn a_nan_reaches_its_row_and_no_other() {
        let mut a = vec![bf16::ONE; 40 * 17];
        a[5 * 17 + 3] = bf16::NAN;
        let b = vec![bf16::ONE; 17 * 33];
        let y = product_bf16(Matrix::new(&a, 40, 17), Matrix::new(&b, 17, 33));
        assert!(y.chunks_exact(33).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 5))));
    }
}
