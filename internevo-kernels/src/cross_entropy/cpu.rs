//! Cross-entropy on slices. `logits` is `[T, vocab]`, row-major, `labels` is `[T]`.

use super::{IGNORE_INDEX, check_labels};
use crate::rows::{for_blocks, rows_per_task};
use crate::simd::{LANES, affine_in_place, exp, exp_row, madd, max_row, multiversion, sum};

/// How the loss of one position is formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Share ε of the target spread evenly over the vocabulary: `(1 - ε) nll + ε mean(-log p)`.
    pub label_smoothing: f64,
    /// Factor on the gradient (1 / labelled tokens of the step, for a mean).
    pub scale: f64,
}

/// Sums over labelled positions, added in order of position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Smoothed losses, without the scale.
    pub loss: f64,
    /// Negative log-likelihoods.
    pub nll: f64,
    /// Positions with a label.
    pub labelled: usize,
    /// Positions where no logit exceeds the label's.
    pub correct: usize,
}

impl Totals {
    pub(crate) fn add(&mut self, other: Totals) {
        self.loss += other.loss;
        self.nll += other.nll;
        self.labelled += other.labelled;
        self.correct += other.correct;
    }
}

/// The loss alone; reads the logits only.
///
/// # Panics
/// If a label is outside the vocabulary (the message names its position) or the lengths do not fit.
pub fn forward(logits: &[f32], vocab: usize, labels: &[i32], options: Options) -> Totals {
    check(logits, vocab, labels);
    let mut rows = vec![Totals::default(); labels.len()];
    let task = rows_per_task(vocab);
    for_blocks(&mut rows, task, |block, rows| {
        for (i, total) in rows.iter_mut().enumerate() {
            let position = block * task + i;
            let row = &logits[position * vocab..][..vocab];
            if labels[position] != IGNORE_INDEX {
                let maximum = max(row);
                *total = row_totals(row, labels[position] as usize, options, maximum, exp_sum(row, maximum));
            }
        }
    });
    in_order(&rows)
}

/// The loss, turning `logits` into `scale` times the gradient of it. Rows without a label become zero.
///
/// # Panics
/// As [`forward`].
pub fn forward_with_gradient(logits: &mut [f32], vocab: usize, labels: &[i32], options: Options) -> Totals {
    check(logits, vocab, labels);
    let mut rows = vec![Totals::default(); labels.len()];
    let task = rows_per_task(vocab);
    let mut parts: Vec<_> = logits.chunks_mut((task * vocab).max(1)).zip(rows.chunks_mut(task)).collect();
    for_blocks(&mut parts, 1, |block, part| {
        let (logits, totals) = &mut part[0];
        for ((row, total), label) in logits.chunks_exact_mut(vocab).zip(totals.iter_mut()).zip(&labels[block * task..])
        {
            match *label {
                IGNORE_INDEX => row.fill(0.0),
                label => *total = gradient_row(row, label as usize, options),
            }
        }
    });
    in_order(&rows)
}

fn check(logits: &[f32], vocab: usize, labels: &[i32]) {
    assert_eq!(logits.len(), labels.len() * vocab, "cross_entropy: {} labels over {vocab} words", labels.len());
    check_labels(labels, vocab);
}

fn in_order(rows: &[Totals]) -> Totals {
    let mut total = Totals::default();
    rows.iter().for_each(|row| total.add(*row));
    total
}

fn row_totals(row: &[f32], label: usize, options: Options, maximum: f32, exponentials: f32) -> Totals {
    let log_sum_exp = f64::from(maximum) + f64::from(exponentials).ln();
    let nll = log_sum_exp - f64::from(row[label]);
    let smoothing = options.label_smoothing;
    let even = if smoothing > 0.0 { log_sum_exp - f64::from(sum(row)) / row.len() as f64 } else { 0.0 };
    let loss = (1.0 - smoothing) * nll + smoothing * even;
    Totals { loss, nll, labelled: 1, correct: usize::from(row[label] >= maximum) }
}

fn gradient_row(row: &mut [f32], label: usize, options: Options) -> Totals {
    let maximum = max(row);
    let totals_of = |row: &[f32], exponentials| row_totals(row, label, options, maximum, exponentials);
    // The totals need the logits, which the exponentials overwrite; they depend on the sum through the logarithm only.
    let before = totals_of(row, 1.0);
    let exponentials = exponentials_in_place(row, maximum);
    let log = f64::from(exponentials).ln();
    let (scale, smoothing) = (options.scale, options.label_smoothing);
    let even = smoothing / row.len() as f64;
    affine_in_place(row, (scale / f64::from(exponentials)) as f32, (-scale * even) as f32);
    row[label] -= (scale * (1.0 - smoothing)) as f32;
    Totals { loss: before.loss + log, nll: before.nll + log, ..before }
}

multiversion! {
    fn max<const FMA>(row: &[f32]) -> f32 {
        let _ = FMA;
        max_row(row)
    }
}

multiversion! {
    fn exponentials_in_place<const FMA>(row: &mut [f32], maximum: f32) -> f32 {
        exp_row::<FMA>(row, 1.0, maximum)
    }
}

multiversion! {
    /// `Σ exp(x - maximum)`, in the lane order of [`exponentials_in_place`].
    fn exp_sum<const FMA>(row: &[f32], maximum: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (chunks, tail) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] += exp::<FMA>(madd::<FMA>(chunk[i], 1.0, -maximum));
            }
        }
        for (lane, v) in lanes.iter_mut().zip(tail) {
            *lane += exp::<FMA>(madd::<FMA>(*v, 1.0, -maximum));
        }
        crate::simd::add_lanes(lanes)
    }
}
