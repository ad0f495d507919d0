//! Cross-entropy against f64 and burn.

use super::cpu::{self, Options, Totals};
use super::{IGNORE_INDEX, cross_entropy, cross_entropy_with, parallel, reference};
use crate::KernelSet::{Fused, Reference};
use crate::VocabShard;
use crate::testing::*;

fn labels(random: &mut Random, tokens: usize, vocab: usize) -> Vec<i32> {
    let pick = |random: &mut Random| {
        if random.between(0, 4) == 0 { IGNORE_INDEX } else { random.between(0, vocab - 1) as i32 }
    };
    (0..tokens).map(|_| pick(random)).collect()
}

/// Options with a scale, without and with everything else.
fn plain_and_full(scale: f64) -> [Options; 2] {
    [Options { scale, ..Options::default() }, Options { label_smoothing: 0.1, z_loss: 0.02, scale }]
}

#[test]
fn loss_counts_and_gradient_agree_with_f64_with_and_without_smoothing_and_z_loss() {
    let mut random = Random::fresh();
    let scale = 0.25;
    for (device, options) in tracked_devices().iter().zip(plain_and_full(scale)) {
        let (tokens, vocab) = (random.between(1, 90), random.between(2, 700));
        let (x, labels) = (random.values(tokens * vocab), labels(&mut random, tokens, vocab));
        let x: Vec<f32> = x.iter().map(|x| x * 5.0).collect();
        let (loss, nll) = reference::forward(&wide(&x), vocab, &labels, options);
        let exact = reference::backward(&wide(&x), vocab, &labels, options);
        // Twice the loss goes into the backward: the stored gradient must follow the gradient that arrives.
        let exact: Vec<f64> = exact.iter().map(|g| g * scale * 2.0).collect();
        for set in [Fused, Reference] {
            let logits = leaf(&x, [tokens, vocab], device);
            let out = cross_entropy_with(set, logits.clone(), &labels, options);
            assert_close("loss", &values(out.loss_sum.clone()), &[loss * scale]);
            assert_close("nll", &[out.nll_sum as f32], &[nll]);
            assert_eq!(out.labelled, labels.iter().filter(|l| **l >= 0).count());
            assert_eq!(out.correct, hits(&x, vocab, &labels));
            let gradients = (out.loss_sum * 2.0).backward();
            assert_close("dlogits", &gradient(&logits, &gradients), &exact);
        }
        let untracked = cross_entropy_with(Fused, plain(&x, [tokens, vocab]), &labels, options);
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
    for options in plain_and_full(1.0) {
        let gradient = reference::backward(&x, 6, &labels, options);
        assert_gradient("dlogits", &mut random, &x, &gradient, |x| reference::forward(x, 6, &labels, options).0);
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
        parallel::gradient_in_place(&mut logits, shard, labels, &maxima, &sums, options);
        for (row, local) in gradient.chunks_exact_mut(vocab).zip(logits.chunks_exact(shard.words())) {
            row[shard.range()].copy_from_slice(local);
        }
    }
    (parallel::totals(labels, &maxima, &sums, vocab, options), gradient)
}

#[test]
fn phases_over_a_shared_vocabulary_agree_with_f64() {
    let mut random = Random::fresh();
    for (ranks, options) in (1..=4).flat_map(|ranks| plain_and_full(0.5).map(|options| (ranks, options))) {
        let (tokens, vocab) = (random.between(1, 60), random.between(2, 300));
        let (x, labels) = (random.values(tokens * vocab), labels(&mut random, tokens, vocab));
        let x: Vec<f32> = x.iter().map(|x| x * 5.0).collect();
        let (totals, gradient) = in_phases(&x, &labels, &random.shards(vocab, ranks), options);
        let (loss, nll) = reference::forward(&wide(&x), vocab, &labels, options);
        assert_close("loss", &[totals.loss as f32], &[loss]);
        assert_close("nll", &[totals.nll as f32], &[nll]);
        let counts = (hits(&x, vocab, &labels), labels.iter().filter(|label| **label >= 0).count());
        assert_eq!((totals.correct, totals.labelled), counts);
        let exact = reference::backward(&wide(&x), vocab, &labels, options);
        assert_close("dlogits", &gradient, &exact.iter().map(|g| g * options.scale).collect::<Vec<_>>());
    }
}

#[test]
fn phases_of_one_rank_and_the_kernel_in_one_piece_give_the_same_bits() {
    let mut random = Random::fresh();
    let (vocab, [_, options]) = (random.between(2, 300), plain_and_full(0.5));
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
    let options = Options::default();
    let (totals, gradient) = in_phases(&x, &[1, 2], &shards, options);
    assert!(totals.loss.is_nan() && gradient[..10].iter().all(|g| g.is_finite()));
    assert!(gradient[10..].iter().all(|g| g.is_nan()), "every logit of the row gets a NaN gradient");
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube::{self, Labels};
    use super::*;
    use crate::cube::testing::{assert_buffer, clients, on_every_device, random};
    use crate::cube::{Buffer, Client, F32};

    /// Vocabularies of whole loads, of odd size, below a load, and beyond a cube's first loads.
    const VOCABS: [usize; 5] = [512, 333, 3, 1, 8191];

    fn assert_loss(what: &str, totals: Totals, exact: (f64, f64), tolerance: f64) {
        for (what_of, out, exact) in [("loss", totals.loss, exact.0), ("nll", totals.nll, exact.1)] {
            let error = (out - exact).abs() / exact.abs().max(1.0);
            assert!(error <= tolerance, "{what_of} of {what}: {out} for {exact}");
        }
    }

    #[test]
    fn loss_counts_and_gradient_in_place_agree_with_f64_for_odd_vocabularies() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for (vocab, options) in VOCABS.iter().flat_map(|vocab| plain_and_full(0.5).map(|options| (*vocab, options)))
            {
                let tokens = 4 * generator.between(1, 6) + generator.between(0, 1);
                let (x, logits) = random(&mut generator, client, tokens * vocab, elem);
                let labels = labels(&mut generator, tokens, vocab);
                let labels_on = Labels::new(client, &labels, vocab);
                let rows = cube::forward_with_gradient(client, &logits, vocab, &labels_on, options);
                let totals = rows.totals(client).unwrap();
                let what = format!("{tokens}x{vocab} {options:?}");
                assert_loss(&what, totals, reference::forward(&x, vocab, &labels, options), 1e-5);
                let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
                let counts = (hits(&narrow, vocab, &labels), labels.iter().filter(|label| **label >= 0).count());
                assert_eq!((totals.correct, totals.labelled), counts);
                let exact = reference::backward(&x, vocab, &labels, options);
                let exact: Vec<f64> = exact.iter().map(|g| g * options.scale).collect();
                assert_gradients(&what, client, &logits, &exact);
            }
        });
    }

    /// As `assert_buffer`, where all gradients may be zero up to rounding: a vocabulary of one word, or no label.
    fn assert_gradients(what: &str, client: &Client, gradient: &Buffer, exact: &[f64]) {
        if exact.iter().any(|g| g.abs() > 1e-3) {
            return assert_buffer(what, client, gradient, exact, gradient.elem);
        }
        let out = gradient.read_f32(client).unwrap();
        assert!(out.iter().zip(exact).all(|(out, exact)| (f64::from(*out) - exact).abs() < 1e-6), "{what}");
    }

    #[test]
    fn pieces_of_a_shared_vocabulary_agree_with_f64() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for (ranks, options) in (1..=4).zip(plain_and_full(0.5).into_iter().cycle()) {
                let (tokens, vocab) = (generator.between(1, 30), generator.between(2, 700));
                let labels = labels(&mut generator, tokens, vocab);
                let labels_on = Labels::new(client, &labels, vocab);
                let (x, _) = random(&mut generator, client, tokens * vocab, elem);
                let ranks = generator.shards(vocab, ranks).into_iter().map(|shard| {
                    let own = x.chunks_exact(vocab).flat_map(|row| &row[shard.range()]).map(|x| *x as f32);
                    let logits = Buffer::from_f32(client, &own.collect::<Vec<_>>(), elem);
                    (shard, logits)
                });
                let ranks: Vec<_> = ranks.collect();
                // What an all-gather would bring.
                let parts = ranks.iter().flat_map(|(shard, logits)| {
                    cube::statistics(client, logits, shard, &labels_on, options).read_f32(client).unwrap()
                });
                let parts = Buffer::from_f32(client, &parts.collect::<Vec<_>>(), F32);
                let rows = cube::combine(client, &parts, vocab, &labels_on, options);
                let totals = rows.totals(client).unwrap();
                assert_loss("a shared vocabulary", totals, reference::forward(&x, vocab, &labels, options), 1e-5);
                let exact = reference::backward(&x, vocab, &labels, options);
                for (shard, logits) in &ranks {
                    let other = cube::gradient(client, logits, shard, &labels_on, &rows.log_sum_exp, options);
                    cube::gradient_in_place(client, logits, shard, &labels_on, &rows.log_sum_exp, options);
                    let exact = exact.chunks_exact(vocab).flat_map(|row| &row[shard.range()]);
                    let exact: Vec<f64> = exact.map(|g| g * options.scale).collect();
                    assert_gradients(&format!("{shard:?}"), client, logits, &exact);
                    let read = |buffer: &Buffer| bits(&buffer.read_f32(client).unwrap());
                    assert!(shard.words() == 0 || read(&other) == read(logits));
                }
            }
        });
    }

    #[test]
    fn a_nan_spoils_its_row_unless_that_has_no_label() {
        on_every_device(|client, elem| {
            let mut x = vec![0.5; 3 * 41];
            (x[50], x[90]) = (f32::NAN, f32::NAN);
            let logits = Buffer::from_f32(client, &x, elem);
            let labels = Labels::new(client, &[1, 2, IGNORE_INDEX], 41);
            let rows = cube::forward_with_gradient(client, &logits, 41, &labels, Options::default());
            let losses = rows.losses.read_f32(client).unwrap();
            assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2] == 0.0);
            let gradient = logits.read_f32(client).unwrap();
            assert!(gradient[..41].iter().all(|g| g.is_finite()) && gradient[41..82].iter().all(|g| g.is_nan()));
            assert!(gradient[82..].iter().all(|g| *g == 0.0));
        });
    }

    #[test]
    fn logits_beyond_every_exponential_and_masked_words_keep_their_loss() {
        on_every_device(|client, elem| {
            let logits = Buffer::from_f32(client, &[3e4, 3e4, f32::NEG_INFINITY, -3e4, -3e4, -3e4], elem);
            let labels = Labels::new(client, &[0, 1], 3);
            let rows = cube::forward(client, &logits, 3, &labels, Options::default());
            let losses = rows.losses.read_f32(client).unwrap();
            assert!((losses[0] - 2f32.ln()).abs() < 5e-3 && (losses[1] - 3f32.ln()).abs() < 5e-3, "{losses:?}");
        });
    }

    #[test]
    fn a_second_run_gives_the_same_bits() {
        let mut generator = Random::fresh();
        for client in clients() {
            let (_, logits) = random(&mut generator, &client, 9 * 2000, F32);
            let labels = Labels::new(&client, &labels(&mut generator, 9, 2000), 2000);
            let run = || {
                let rows = cube::forward(&client, &logits, 2000, &labels, Options::default());
                bits(&rows.losses.read_f32(&client).unwrap())
            };
            assert_eq!(run(), run());
        }
    }

    #[test]
    fn the_operation_gives_the_loss_and_gradients_of_burn() {
        let mut random = Random::fresh();
        for (device, options) in gpu_devices().iter().zip(plain_and_full(0.5)) {
            let (x, labels) = (random.values(17 * 60), labels(&mut random, 17, 60));
            let run = |set| {
                let logits = leaf(&x, [17, 60], device);
                let out = cross_entropy_with(set, logits.clone(), &labels, options);
                let gradients = (out.loss_sum.clone() * 2.0).backward();
                let numbers = [values(out.loss_sum)[0], out.nll_sum as f32];
                (numbers, gradient(&logits, &gradients), (out.labelled, out.correct), values(logits))
            };
            let (fused, composed) = (run(Fused), run(Reference));
            assert_close("loss and nll", &fused.0, &wide(&composed.0));
            assert_close("dlogits", &fused.1, &wide(&composed.1));
            assert_eq!(fused.2, composed.2);
            assert_eq!(fused.3, x, "logits that somebody holds stay");
        }
    }
}
