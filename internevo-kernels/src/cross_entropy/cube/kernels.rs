//! The kernels of cross-entropy. A load may hold the end of one row and the start of the next: a lane knows its row by its
//! index, and what the other row needs is masked.

use crate::cube::ElemType;
use crate::cube::lanes::{lane_indices, vector_max};
use crate::cube::reduce::{cube_max, cube_sum, scratch_len, vector_sum};
use cubecl::prelude::*;

/// Stands for a row without a label; more than any vocabulary has.
pub(super) const NO_LABEL: u32 = u32::MAX;

/// Numbers that the statistics of a row consist of.
pub const STATISTICS: usize = 4;

/// Numbers that are summed over rows.
pub(super) const COUNTED: usize = 3;

/// Less than any logit of use, and finite: the difference of two is no NaN.
const LOWEST: f32 = -3e38;

/// `value` where the lane, `first + lane`, is in `start..end`, else `other`.
#[cube]
fn within<N: Size>(value: Vector<f32, N>, first: usize, start: usize, end: usize, other: f32) -> Vector<f32, N> {
    let lanes = lane_indices::<N>();
    let width = N::value();
    let mut before = 0u32;
    if start > first {
        before = (start - first) as u32;
    }
    let mut inside = comptime!(width as u32).runtime();
    if end < first + width {
        inside = (end - first) as u32;
    }
    let value = select_many(lanes.greater_equal(&Vector::new(before)), value, Vector::new(other));
    select_many(lanes.less_than(&Vector::new(inside)), value, Vector::new(other))
}

#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn statistics_kernel<F: Float, N: Size>(
    logits: &[Vector<F, N>],
    labels: &[u32],
    statistics: &mut [f32],
    first_word: u32,
    rows: u32,
    #[comptime] words: usize,
    #[comptime] smoothed: bool,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[define(F)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let width = N::value();
    let aligned = comptime!(words.is_multiple_of(width));
    let start = row * words;
    let end = start + words;
    let mut i = start / width + UNIT_POS_X as usize;
    let mut last = (end + comptime!(width - 1)) / width;
    let label = labels[row];
    if label == NO_LABEL {
        last = 0usize;
    }
    let mut maximum = f32::new(LOWEST);
    let mut sum = 0.0f32;
    let mut total = Vector::<f32, N>::new(0.0f32);
    while i < last {
        let mut value = Vector::<f32, N>::cast_from(logits[i]);
        if smoothed {
            if aligned {
                total += value;
            } else {
                total += within::<N>(value, i * width, start, end, 0.0f32);
            }
        }
        if !aligned {
            value = within::<N>(value, i * width, start, end, f32::new(LOWEST));
        }
        let largest = max(vector_max::<N>(value), maximum);
        sum = sum * (maximum - largest).exp() + vector_sum::<N>((value - Vector::new(largest)).exp());
        maximum = largest;
        i += units as usize;
    }
    let largest = cube_max(maximum, &mut scratch, units, plane);
    let sum = cube_sum(sum * (maximum - largest).exp(), &mut scratch, units, plane);
    let mut logits_sum = 0.0f32;
    if smoothed {
        logits_sum = cube_sum(vector_sum::<N>(total), &mut scratch, units, plane);
    }
    if UNIT_POS_X == 0 {
        let mut logit = 0.0f32;
        let place = label - first_word;
        if place < words as u32 {
            let element = start + place as usize;
            let value = Vector::<f32, N>::cast_from(logits[element / width]);
            let lane = element % width;
            #[unroll]
            for k in 0..width {
                if lane == k {
                    logit = value.extract(k);
                }
            }
        }
        statistics[row * STATISTICS] = largest;
        statistics[row * STATISTICS + 1] = sum;
        statistics[row * STATISTICS + 2] = logit;
        statistics[row * STATISTICS + 3] = logits_sum;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn combine_kernel(
    parts: &[f32],
    labels: &[u32],
    log_sum_exp: &mut [f32],
    losses: &mut [f32],
    smoothing: f32,
    z_loss: f32,
    vocab: f32,
    ranks: u32,
    rows: u32,
) {
    let row = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    let rows = rows as usize;
    if row < rows {
        let mut maximum = f32::new(LOWEST);
        for rank in 0..ranks {
            maximum = max(maximum, parts[(rank as usize * rows + row) * STATISTICS]);
        }
        let mut sum = 0.0f32;
        let mut logit = 0.0f32;
        let mut logits = 0.0f32;
        for rank in 0..ranks {
            let at = (rank as usize * rows + row) * STATISTICS;
            sum += parts[at + 1] * (parts[at] - maximum).exp();
            logit += parts[at + 2];
            logits += parts[at + 3];
        }
        let normaliser = maximum + sum.ln();
        log_sum_exp[row] = normaliser;
        let mut loss = 0.0f32;
        let mut nll = 0.0f32;
        let mut correct = 0.0f32;
        if labels[row] != NO_LABEL {
            nll = normaliser - logit;
            loss = (1.0f32 - smoothing) * nll + z_loss * normaliser * normaliser;
            if smoothing > 0.0f32 {
                loss += smoothing * (normaliser - logits / vocab);
            }
            if logit >= maximum {
                correct = 1.0f32;
            }
        }
        losses[row] = loss;
        losses[rows + row] = nll;
        losses[2 * rows + row] = correct;
    }
}

/// The gradient of one row at the lanes of `value`, of which the first has index `column` in the row, before or in it.
#[cube]
fn row_gradient<N: Size>(
    value: Vector<f32, N>,
    lanes: Vector<u32, N>,
    column: u32,
    label: u32,
    log_sum_exp: f32,
    first_word: u32,
    scale: f32,
    on_label: f32,
    even: f32,
    z_loss_twice: f32,
) -> Vector<f32, N> {
    let mut gradient = Vector::<f32, N>::new(0.0f32);
    if label != NO_LABEL {
        let pull = Vector::<f32, N>::new(scale * (1.0f32 + z_loss_twice * log_sum_exp));
        let probability = (value - Vector::new(log_sum_exp)).exp();
        gradient = probability * pull - Vector::new(even);
        // Wrapping: where another shard has the label, or it is elsewhere in the row, no lane is at this distance.
        let place = label - first_word - column;
        let at_label = lanes.equal(&Vector::new(place));
        gradient = select_many(at_label, gradient - Vector::new(on_label), gradient);
    }
    gradient
}

#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn gradient_kernel<F: Float, N: Size>(
    logits: &[Vector<F, N>],
    labels: &[u32],
    log_sum_exp: &[f32],
    target: &mut [Vector<F, N>],
    first_word: u32,
    scale: f32,
    on_label: f32,
    even: f32,
    z_loss_twice: f32,
    loads: usize,
    #[comptime] words: usize,
    #[define(F)] _elem: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        let width = N::value();
        let first = i * width;
        let mut row = first / words;
        let column = (first - row * words) as u32;
        let value = Vector::<f32, N>::cast_from(logits[i]);
        let lanes = lane_indices::<N>();
        let mut gradient = row_gradient::<N>(
            value,
            lanes,
            column,
            labels[row],
            log_sum_exp[row],
            first_word,
            scale,
            on_label,
            even,
            z_loss_twice,
        );
        if comptime!(!words.is_multiple_of(width)) {
            // The lane at which the next row begins.
            let mut next = comptime!(words as u32) - column;
            while next < comptime!(width as u32) {
                row += 1;
                let other = row_gradient::<N>(
                    value,
                    lanes,
                    0u32 - next,
                    labels[row],
                    log_sum_exp[row],
                    first_word,
                    scale,
                    on_label,
                    even,
                    z_loss_twice,
                );
                gradient = select_many(lanes.greater_equal(&Vector::new(next)), other, gradient);
                next += comptime!(words as u32);
            }
        }
        target[i] = Vector::cast_from(gradient);
    }
}
