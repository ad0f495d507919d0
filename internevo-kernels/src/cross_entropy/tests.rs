//! Cross-entropy against f64 and burn.

use super::cpu::{self, Options};
use super::{IGNORE_INDEX, cross_entropy, parallel, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

fn labels(random: &mut Random, tokens: usize, vocab: usize) -> Vec<i32> {
    let pick = |random: &mut Random| {
        if random.between(0, 4) == 0 { IGNORE_INDEX } else { random.between(0, vocab - 1) as i32 }
    };
    (0..tokens).map(|_| pick(random)).collect()
}

#[test]
fn loss_counts_and_gradient_agree_with_f64_with_and_without_smoothing() {
    let mut random = Random::fresh();
    for (device, smoothing) in tracked_devices().iter().zip([0.0, 0.1]) {
        let (tokens, vocab, scale) = (random.between(1, 90), random.between(2, 700), 0.25);
        let (x, labels) = (random.values(tokens * vocab), labels(&mut random, tokens, vocab));
        let x: Vec<f32> = x.iter().map(|x| x * 5.0).collect();
        let (loss, nll) = reference::forward(&wide(&x), vocab, &labels, smoothing);
        let exact = reference::backward(&wide(&x), vocab, &labels, smoothing);
        // Twice the loss goes into the backward: the stored gradient must follow the gradient that arrives.
        let exact: Vec<f64> = exact.iter().map(|g| g * scale * 2.0).collect();
        for set in [Fused, Reference] {
            let logits = leaf(&x, [tokens, vocab], device);
            let out = cross_entropy(set, logits.clone(), &labels, smoothing, scale);
            assert_close("loss", &values(out.loss_sum.clone()), &[loss * scale]);
            assert_close("nll", &[out.nll_sum as f32], &[nll]);
            assert_eq!(out.labelled, labels.iter().filter(|l| **l >= 0).count());
            assert_eq!(out.correct, hits(&x, vocab, &labels));
            let gradients = (out.loss_sum * 2.0).backward();
            assert_close("dlogits", &gradient(&logits, &gradients), &exact);
        }
        let untracked = cross_entropy(Fused, plain(&x, [tokens, vocab]), &labels, smoothing, scale);
        assert_close("loss of plain logits", &values(untracked.loss_sum), &[loss * scale]);
    }
}

fn hits(x: &[f32], vocab: usize, labels: &[i32]) -> usize {
    let hit = |(row, label): (&[f32], &i32)| *label >= 0 && row.iter().all(|v| *v <= row[*label as usize]);
    x.chunks_exact(vocab).zip(labels).filter(|pair| hit(*pair)).count()
}

#[test]
fn the_reference_gradient_is_a_derivative() {
    let mut random = Random::fresh();
    let (x, labels) = (wide(&random.values(5 * 6)), [3, IGNORE_INDEX, 0, 5, 1]);
    for smoothing in [0.0, 0.2] {
        let gradient = reference::backward(&x, 6, &labels, smoothing);
        assert_gradient("dlogits", &mut random, &x, &gradient, |x| reference::forward(x, 6, &labels, smoothing).0);
    }
}

#[test]
fn a_nan_logit_makes_the_loss_nan_unless_its_position_has_no_label() {
    let mut x = vec![0.5; 3 * 40];
    x[50] = f32::NAN;
    let loss = |labels: &[i32]| values(cross_entropy(Fused, plain(&x, [3, 40]), labels, 0.0, 1.0).loss_sum)[0];
    assert!(loss(&[1, 2, 3]).is_nan());
    assert!(!loss(&[1, IGNORE_INDEX, 3]).is_nan());
}

#[test]
fn without_labels_the_loss_and_the_gradient_are_zero() {
    let logits = leaf(&[1.0; 10], [2, 5], &tracked_devices()[0]);
    let out = cross_entropy(Fused, logits.clone(), &[IGNORE_INDEX; 2], 0.1, 1.0);
    assert_eq!((values(out.loss_sum.clone()), out.labelled, out.correct), (vec![0.0], 0, 0));
    assert_eq!(gradient(&logits, &out.loss_sum.backward()), [0.0; 10]);
}

#[test]
#[should_panic(expected = "label 5 at position 1 is outside 0..5")]
fn a_label_outside_the_vocabulary_is_named() {
    cross_entropy(Fused, plain(&[0.0; 10], [2, 5]), &[4, 5], 0.0, 1.0);
}

#[test]
#[should_panic(expected = "label -1 at position 0 is outside 0..5")]
fn a_negative_label_other_than_the_ignore_index_is_named() {
    cross_entropy(Reference, plain(&[0.0; 10], [2, 5]), &[-1, 0], 0.0, 1.0);
}

#[test]
fn phases_over_a_shared_vocabulary_agree_with_f64_and_give_one_result_on_all_ranks() {
    let mut random = Random::fresh();
    for (ranks, label_smoothing) in (1..=4).flat_map(|ranks| [(ranks, 0.0), (ranks, 0.1)]) {
        let (tokens, vocab) = (random.between(1, 60), random.between(2, 300));
        let options = Options { label_smoothing, scale: 0.5 };
        let (x, labels) = (random.values(tokens * vocab), labels(&mut random, tokens, vocab));
        let x: Vec<f32> = x.iter().map(|x| x * 5.0).collect();
        let (loss, nll) = reference::forward(&wide(&x), vocab, &labels, label_smoothing);
        let exact = reference::backward(&wide(&x), vocab, &labels, label_smoothing);

        let shards = random.shards(vocab, ranks);
        let mut start = 0;
        let mut logits: Vec<Vec<f32>> = Vec::new();
        for shard in &shards {
            logits.push(x.chunks_exact(vocab).flat_map(|row| &row[start..start + shard.words()]).copied().collect());
            start += shard.words();
        }
        let maxima = logits.iter().zip(&shards).map(|(logits, shard)| parallel::local_max(logits, shard, &labels));
        let maxima = maxima.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a.max(b)).collect()).unwrap();
        let ranks = logits.iter_mut().zip(&shards);
        let sums = ranks.map(|(logits, shard)| parallel::local_sums(logits, shard, &labels, &maxima, options));
        let sums = sums
            .collect::<Vec<_>>()
            .into_iter()
            .reduce(|a, b| a.iter().zip(b).map(|(a, b)| [a[0] + b[0], a[1] + b[1], a[2] + b[2]]).collect());
        let sums = sums.unwrap();
        let totals = parallel::totals(&labels, &maxima, &sums, vocab, options);
        assert_close("loss", &[totals.loss as f32], &[loss]);
        assert_close("nll", &[totals.nll as f32], &[nll]);
        assert_eq!(
            (totals.correct, totals.labelled),
            (hits(&x, vocab, &labels), labels.iter().filter(|l| **l >= 0).count())
        );
        let mut gradient = vec![0.0; x.len()];
        let mut start = 0;
        for (mut logits, shard) in logits.into_iter().zip(&shards) {
            parallel::gradient_in_place(&mut logits, shard, &labels, &sums, options);
            let words = shard.words();
            for (row, local) in gradient.chunks_exact_mut(vocab).zip(logits.chunks_exact(words.max(1))) {
                row[start..start + words].copy_from_slice(local);
            }
            start += words;
        }
        assert_close("dlogits", &gradient, &exact.iter().map(|g| g * 0.5).collect::<Vec<_>>());
        if shards.len() == 1 {
            let mut whole = x.clone();
            assert_eq!(cpu::forward_with_gradient(&mut whole, vocab, &labels, options), totals);
            assert!(bits(&whole) == bits(&gradient));
            assert_eq!(cpu::forward(&x, vocab, &labels, options), totals);
        }
    }
}
