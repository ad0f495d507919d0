//! Cross-entropy on slices. `logits` is `[T, vocab]`, row-major, `labels` is `[T]`.

use super::{IGNORE_INDEX, check_labels};
use crate::rows::{for_blocks, rows_per_task};
use crate::simd::{LANES, affine_in_place, exp, exp_row, madd, max_row, multiversion, sum};

/// How the loss of one position is formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Share ε of the target spread evenly over the vocabulary: `(1 - ε) nll + ε mean(-log p)`.
    pub label_smoothing: f64,
    /// Factor ζ of `ζ log²Z`, with `Z` the sum of a row's exponentials: keeps logits from drifting (PaLM: Chowdhery et al.,
    /// 2022, section 5).
    pub z_loss: f64,
    /// Factor on the gradient (1 / labelled tokens of the step, for a mean).
    pub scale: f64,
}

impl Default for Options {
    /// The plain sum of negative log-likelihoods.
    fn default() -> Self {
        Self { label_smoothing: 0.0, z_loss: 0.0, scale: 1.0 }
    }
}

/// Sums over labelled positions, added in order of position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Losses with smoothing and z-loss, without the scale.
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

/// What one row adds up to over words: the exponentials of logits minus the maximum, the logit of the label (0 if it is not
/// among the words), and the logits themselves (0 without label smoothing).
pub type RowSums = [f64; 3];

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
                let sums = row_sums(row, Some(labels[position] as usize), exp_sum(row, maximum), options);
                *total = row_totals(maximum, sums, vocab, options);
            }
        }
    });
    in_order(rows)
}

/// The loss, turning `logits` into `scale` times the gradient of it. Rows without a label become zero.
///
/// # Panics
/// As [`forward`].
pub fn forward_with_gradient(logits: &mut [f32], vocab: usize, labels: &[i32], options: Options) -> Totals {
    check(logits, vocab, labels);
    let mut rows = vec![Totals::default(); labels.len()];
    for_rows(logits, vocab, &mut rows, |position, row, total| match labels[position] {
        IGNORE_INDEX => row.fill(0.0),
        label => {
            let (label, maximum) = (Some(label as usize), max(row));
            let sums = sums_in_place(row, label, maximum, options);
            *total = row_totals(maximum, sums, vocab, options);
            gradient_row(row, label, maximum, sums, vocab, options);
        }
    });
    in_order(rows)
}

/// Calls `f(position, row, out)` for the rows of `words` logits and their elements of `out`; for none if there are no words.
pub(super) fn for_rows<T: Send>(
    logits: &mut [f32],
    words: usize,
    out: &mut [T],
    f: impl Fn(usize, &mut [f32], &mut T) + Sync,
) {
    let task = rows_per_task(words);
    let mut parts: Vec<_> = logits.chunks_mut((task * words).max(1)).zip(out.chunks_mut(task)).collect();
    for_blocks(&mut parts, 1, |block, part| {
        let (logits, out) = &mut part[0];
        for (i, (row, out)) in logits.chunks_exact_mut(words).zip(out.iter_mut()).enumerate() {
            f(block * task + i, row, out);
        }
    });
}

fn check(logits: &[f32], vocab: usize, labels: &[i32]) {
    assert_eq!(logits.len(), labels.len() * vocab, "cross_entropy: {} labels over {vocab} words", labels.len());
    check_labels(labels, vocab);
}

pub(super) fn in_order(rows: impl IntoIterator<Item = Totals>) -> Totals {
    let mut total = Totals::default();
    rows.into_iter().for_each(|row| total.add(row));
    total
}

/// The sums of a row whose exponentials sum to `exponentials`. `label` is the label's place in the row, if it is there.
fn row_sums(row: &[f32], label: Option<usize>, exponentials: f32, options: Options) -> RowSums {
    let logit = label.map_or(0.0, |label| f64::from(row[label]));
    let logits = if options.label_smoothing > 0.0 { f64::from(sum(row)) } else { 0.0 };
    [f64::from(exponentials), logit, logits]
}

/// The sums of a row, which becomes exponentials relative to `maximum`.
pub(super) fn sums_in_place(row: &mut [f32], label: Option<usize>, maximum: f32, options: Options) -> RowSums {
    let [_, logit, logits] = row_sums(row, label, 0.0, options);
    [f64::from(exponentials_in_place(row, maximum)), logit, logits]
}

/// Loss and counts of a labelled row, from its maximum and sums over the whole vocabulary.
pub(super) fn row_totals(
    maximum: f32,
    [exponentials, logit, logits]: RowSums,
    vocab: usize,
    options: Options,
) -> Totals {
    let log_sum_exp = log_sum_exp(maximum, exponentials);
    let nll = log_sum_exp - logit;
    let smoothing = options.label_smoothing;
    let even = if smoothing > 0.0 { log_sum_exp - logits / vocab as f64 } else { 0.0 };
    let loss = (1.0 - smoothing) * nll + smoothing * even + options.z_loss * log_sum_exp * log_sum_exp;
    Totals { loss, nll, labelled: 1, correct: usize::from(logit >= f64::from(maximum)) }
}

fn log_sum_exp(maximum: f32, exponentials: f64) -> f64 {
    f64::from(maximum) + exponentials.ln()
}

/// Turns the exponentials of a row into `scale` times the gradient of its loss, from its maximum and sums over the whole
/// vocabulary.
pub(super) fn gradient_row(
    row: &mut [f32],
    label: Option<usize>,
    maximum: f32,
    sums: RowSums,
    vocab: usize,
    options: Options,
) {
    let (scale, smoothing) = (options.scale, options.label_smoothing);
    let even = smoothing / vocab as f64;
    // Both the likelihood and the z-loss pull at every logit by its probability.
    let pull = 1.0 + 2.0 * options.z_loss * log_sum_exp(maximum, sums[0]);
    affine_in_place(row, (scale * pull / sums[0]) as f32, (-scale * even) as f32);
    if let Some(label) = label {
        row[label] -= (scale * (1.0 - smoothing)) as f32;
    }
}

multiversion! {
    pub(super) fn max<const FMA>(row: &[f32]) -> f32 {
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
