//! RMSNorm on slices. `x`, `y`, `dy`, `dx` are `[rows, width]`, `weight` is `[width]`, `rstd` (1 / root mean square) is
//! `[rows]`.

use crate::rows::{for_blocks, rows_per_task, written};
use crate::simd::{add_in_place, madd, multiversion, reduce2};
use std::mem::MaybeUninit;

/// Returns `(y, rstd)`; keep `rstd` for the backward.
///
/// # Panics
/// If `x` is not whole rows of `weight.len()`.
pub fn forward(x: &[f32], weight: &[f32], eps: f64) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let rows = row_count(x, width);
    let mut rstd = vec![0.0; rows];
    let task = rows_per_task(width);
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let mut parts: Vec<_> = y.chunks_mut(task * width).zip(rstd.chunks_mut(task)).collect();
        for_blocks(&mut parts, 1, |block, part| {
            let (y, rstd) = &mut part[0];
            let x = &x[block * task * width..][..y.len()];
            for ((x, y), r) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd.iter_mut()) {
                *r = forward_row(x, weight, y, eps as f32);
            }
        });
    };
    // SAFETY: the blocks are whole rows and cover `y`, and `forward_row` writes its row: all rows have `width` elements.
    let y = unsafe { written(x.len(), fill) };
    (y, rstd)
}

/// [`forward`] of `x + residual`, in one pass: turns `x` into the sum in place.
///
/// # Panics
/// If `x` is not whole rows of `weight.len()` or `residual` has another length.
pub fn forward_residual(x: &mut [f32], residual: &[f32], weight: &[f32], eps: f64) -> (Vec<f32>, Vec<f32>) {
    let width = weight.len();
    let rows = row_count(x, width);
    assert_eq!(residual.len(), x.len(), "input and residual of an RMSNorm");
    let mut rstd = vec![0.0; rows];
    let task = rows_per_task(width);
    let len = x.len();
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let sums = x.chunks_mut(task * width).zip(residual.chunks(task * width));
        let mut parts: Vec<_> = y.chunks_mut(task * width).zip(rstd.chunks_mut(task)).zip(sums).collect();
        for_blocks(&mut parts, 1, |_, part| {
            let ((y, rstd), (x, residual)) = &mut part[0];
            let rows = x.chunks_exact_mut(width).zip(residual.chunks_exact(width));
            for (((x, residual), y), r) in rows.zip(y.chunks_exact_mut(width)).zip(rstd.iter_mut()) {
                add_in_place(x, residual);
                *r = forward_row(x, weight, y, eps as f32);
            }
        });
    };
    // SAFETY: the blocks are whole rows and cover `y`, and `forward_row` writes its row: all rows have `width` elements.
    let y = unsafe { written(len, fill) };
    (y, rstd)
}

/// Turns `dy` into `dx` in place and returns `dw`. The sum over rows goes by fixed blocks, so it never depends on threads.
///
/// # Panics
/// As [`forward`].
pub fn backward(x: &[f32], weight: &[f32], rstd: &[f32], dy: &mut [f32]) -> Vec<f32> {
    backward_residual(x, weight, rstd, dy, None)
}

/// [`backward`] after [`forward_residual`], in one pass: `d_sum`, the gradient that the sum has from elsewhere, is added to `dx`,
/// which is the gradient of both addends.
///
/// # Panics
/// As [`forward_residual`].
pub fn backward_residual(sum: &[f32], weight: &[f32], rstd: &[f32], dy: &mut [f32], d_sum: Option<&[f32]>) -> Vec<f32> {
    let width = weight.len();
    assert_eq!(rstd.len(), row_count(sum, width), "one rstd per row");
    assert_eq!(dy.len(), sum.len(), "gradient and input of an RMSNorm");
    assert!(d_sum.is_none_or(|d| d.len() == sum.len()), "gradient of the sum of an RMSNorm");
    let task = rows_per_task(width);
    let mut partial = vec![0.0; dy.len().div_ceil((task * width).max(1)) * width];
    let mut parts: Vec<_> = dy.chunks_mut(task * width).zip(partial.chunks_mut(width)).collect();
    for_blocks(&mut parts, 1, |block, part| {
        let (dy, dw) = &mut part[0];
        let first = block * task;
        for (i, dy) in dy.chunks_exact_mut(width).enumerate() {
            let row = (first + i) * width..(first + i + 1) * width;
            backward_row(&sum[row.clone()], weight, rstd[first + i], dy, dw);
            if let Some(d_sum) = d_sum {
                add_in_place(dy, &d_sum[row]);
            }
        }
    });
    let mut dw = vec![0.0; width];
    for part in partial.chunks_exact(width.max(1)) {
        add_in_place(&mut dw, part);
    }
    dw
}

fn row_count(x: &[f32], width: usize) -> usize {
    assert!(width > 0 && x.len().is_multiple_of(width), "RMSNorm: {} elements are not rows of {width}", x.len());
    x.len() / width
}

multiversion! {
    fn forward_row<const FMA>(x: &[f32], weight: &[f32], y: &mut [MaybeUninit<f32>], eps: f32) -> f32 {
        let squares = reduce2(x, x, |sum, a, b| madd::<FMA>(a, b, sum));
        let rstd = 1.0 / (squares / x.len() as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            y.write(*x * rstd * *w);
        }
        rstd
    }
}

multiversion! {
    /// `dx = rstd (dy w - x̂ mean(dy w x̂))` over `dy`; `dw += dy x̂`.
    fn backward_row<const FMA>(x: &[f32], weight: &[f32], rstd: f32, dy: &mut [f32], dw: &mut [f32]) {
        for (((g, dy), x), w) in dw.iter_mut().zip(dy.iter_mut()).zip(x).zip(weight) {
            *g = madd::<FMA>(*dy, *x * rstd, *g);
            *dy *= *w;
        }
        let mean = reduce2(dy, x, |sum, a, b| madd::<FMA>(a, b, sum)) * rstd / x.len() as f32;
        for (dy, x) in dy.iter_mut().zip(x) {
            *dy = rstd * madd::<FMA>(-mean, *x * rstd, *dy);
        }
    }
}
