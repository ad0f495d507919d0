//! Cross-entropy over logits whose vocabulary several ranks share (Megatron-LM: Shoeybi et al., 2019), on slices. Each rank
//! takes the phases in order, and the caller reduces over the ranks in between:
//!
//! 1. [`local_max`], then the maximum over ranks;
//! 2. [`local_sums`], then the sum over ranks;
//! 3. [`totals`], the same on every rank, and [`gradient_in_place`] of the rank's own logits.
//!
//! `logits` is `[T, shard.words()]`, row-major, `labels` is `[T]`.

use super::cpu::{Options, Totals, for_rows, gradient_row, in_order, max, row_totals, sums_in_place};
use super::{IGNORE_INDEX, check_labels};
use crate::rows::{for_blocks, rows_per_task};
use crate::vocab::VocabShard;

pub use super::cpu::RowSums;

/// The largest logit of each labelled row; `-∞` for rows without a label.
///
/// # Panics
/// If a label is outside the vocabulary (the message names its position) or the lengths do not fit; so do the others here.
pub fn local_max(logits: &[f32], shard: &VocabShard, labels: &[i32]) -> Vec<f32> {
    check(logits, shard, labels);
    let (words, task) = (shard.words(), rows_per_task(shard.words()));
    let mut maxima = vec![f32::NEG_INFINITY; labels.len()];
    for_blocks(&mut maxima, task, |block, maxima| {
        for (i, maximum) in maxima.iter_mut().enumerate() {
            let position = block * task + i;
            if labels[position] != IGNORE_INDEX {
                *maximum = max(&logits[position * words..][..words]);
            }
        }
    });
    maxima
}

/// The sums of each row, turning the logits of labelled rows into exponentials relative to the row's global maximum.
pub fn local_sums(
    logits: &mut [f32],
    shard: &VocabShard,
    labels: &[i32],
    maxima: &[f32],
    options: Options,
) -> Vec<RowSums> {
    check(logits, shard, labels);
    assert_eq!(maxima.len(), labels.len(), "cross_entropy: maxima and labels");
    let mut sums = vec![RowSums::default(); labels.len()];
    for_rows(logits, shard.words(), &mut sums, |position, row, sums| {
        if labels[position] != IGNORE_INDEX {
            *sums = sums_in_place(row, shard.place_of(labels[position] as usize), maxima[position], options);
        }
    });
    sums
}

/// The loss and the counts, from global maxima and sums.
pub fn totals(labels: &[i32], maxima: &[f32], sums: &[RowSums], vocab: usize, options: Options) -> Totals {
    assert_eq!((maxima.len(), sums.len()), (labels.len(), labels.len()), "cross_entropy: maxima, sums and labels");
    let rows = maxima.iter().zip(sums).zip(labels).filter(|(_, label)| **label != IGNORE_INDEX);
    in_order(rows.map(|((maximum, sums), _)| row_totals(*maximum, *sums, vocab, options)))
}

/// Turns the exponentials that [`local_sums`] left into `scale` times the gradient of the loss, from global maxima and sums.
/// Rows without a label become zero.
pub fn gradient_in_place(
    exponentials: &mut [f32],
    shard: &VocabShard,
    labels: &[i32],
    maxima: &[f32],
    sums: &[RowSums],
    options: Options,
) {
    check(exponentials, shard, labels);
    assert_eq!((maxima.len(), sums.len()), (labels.len(), labels.len()), "cross_entropy: maxima, sums and labels");
    for_rows(exponentials, shard.words(), &mut vec![(); labels.len()], |position, row, ()| match labels[position] {
        IGNORE_INDEX => row.fill(0.0),
        label => {
            let (label, sums) = (shard.place_of(label as usize), sums[position]);
            gradient_row(row, label, maxima[position], sums, shard.vocab(), options);
        }
    });
}

fn check(logits: &[f32], shard: &VocabShard, labels: &[i32]) {
    assert_eq!(logits.len(), labels.len() * shard.words(), "cross_entropy: {} labels over {shard:?}", labels.len());
    check_labels(labels, shard.vocab());
}
