//! Cross-entropy against f64 and burn.

use super::cpu::{self, Options, Totals};
use super::{IGNORE_INDEX, cross_entropy, parallel, reference};
use crate::KernelSet::{Fused, Reference};
use crate::VocabShard;
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

/// All phases by ranks that hold `shards`, one after the other: totals, and the gradient of all logits.
fn in_phases(x: &[f32], labels: &[i32], shards: &[VocabShard], options: Options) -> (Totals, Vec<f32>) {
    let vocab = shards[0].vocab();
    let columns = |shard: &VocabShard| x.chunks_exact(vocab).flat_map(|row| &row[shard.range()]).copied().collect();
    let mut ranks: Vec<(&VocabShard, Vec<f32>)> = shards.iter().map(|shard| (shard, columns(shard))).collect();
    let maxima = ranks.iter().map(|(shard, logits)| parallel::local_max(logits, shard, labels));
    let maxima = maxima.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a.max(b)).collect()).unwrap();
    let sums = ranks.iter_mut().map(|(shard, logits)| parallel::local_sums(logits, shard, labels, &maxima, options));
    let add = |a: [f64; 3], b: [f64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
    let sums = sums.reduce(|a, b| a.into_iter().zip(b).map(|(a, b)| add(a, b)).collect()).unwrap();
    let mut gradient = vec![f32::NAN; x.len()];
    for (shard, mut logits) in ranks.into_iter().filter(|(shard, _)| shard.words() > 0) {
        parallel::gradient_in_place(&mut logits, shard, labels, &sums, options);
        for (row, local) in gradient.chunks_exact_mut(vocab).zip(logits.chunks_exact(shard.words())) {
            row[shard.range()].copy_from_slice(local);
        }
    }
    (parallel::totals(labels, &maxima, &sums, vocab, options), gradient)
}

#[test]
fn phases_over_a_shared_vocabulary_agree_with_f64() {
    let mut random = Random::fresh();
    for (ranks, label_smoothing) in (1..=4).flat_map(|ranks| [(ranks, 0.0), (ranks, 0.1)]) {
        let (tokens, vocab) = (random.between(1, 60), random.between(2, 300));
        let (x, labels) = (random.values(tokens * vocab), labels(&mut random, tokens, vocab));
        let x: Vec<f32> = x.iter().map(|x| x * 5.0).collect();
        let options = Options { label_smoothing, scale: 0.5 };
        let (totals, gradient) = in_phases(&x, &labels, &random.shards(vocab, ranks), options);
        let (loss, nll) = reference::forward(&wide(&x), vocab, &labels, label_smoothing);
        assert_close("loss", &[totals.loss as f32], &[loss]);
        assert_close("nll", &[totals.nll as f32], &[nll]);
        let counts = (hits(&x, vocab, &labels), labels.iter().filter(|label| **label >= 0).count());
        assert_eq!((totals.correct, totals.labelled), counts);
        let exact = reference::backward(&wide(&x), vocab, &labels, label_smoothing);
        assert_close("dlogits", &gradient, &exact.iter().map(|g| g * options.scale).collect::<Vec<_>>());
    }
}

#[test]
fn phases_of_one_rank_and_the_kernel_in_one_piece_give_the_same_bits() {
    let mut random = Random::fresh();
    let (vocab, options) = (random.between(2, 300), Options { label_smoothing: 0.1, scale: 0.5 });
    let (mut x, labels) = (random.values(40 * vocab), labels(&mut random, 40, vocab));
    let (totals, gradient) = in_phases(&x, &labels, &[VocabShard::whole(vocab)], options);
    assert_eq!(cpu::forward(&x, vocab, &labels, options), totals);
    assert_eq!(cpu::forward_with_gradient(&mut x, vocab, &labels, options), totals);
    assert!(bits(&x) == bits(&gradient));
}

#[test]
fn a_nan_logit_of_one_rank_makes_the_shared_loss_nan() {
    let mut x = vec![0.5; 2 * 10];
    x[17] = f32::NAN;
    let shards = [VocabShard::new(0..6, 10), VocabShard::new(6..10, 10)];
    let options = Options { label_smoothing: 0.0, scale: 1.0 };
    let (totals, gradient) = in_phases(&x, &[1, 2], &shards, options);
    assert!(totals.loss.is_nan() && gradient[..10].iter().all(|g| g.is_finite()));
    assert!(gradient[10..].iter().all(|g| g.is_nan()), "every logit of the row gets a NaN gradient");
}
