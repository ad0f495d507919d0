//! The fused head against f64, against its two halves, and across chunks.

use super::cpu::{Outcome, Reduction, Wanted, chunk_rows, forward, forward_parallel};
use super::{linear_cross_entropy, linear_cross_entropy_with};
use crate::KernelSet::{Fused, Reference};
use crate::autograd::HostTensor;
use crate::cross_entropy::cpu::Options;
use crate::linear::cpu::Shape;
use crate::testing::*;
use crate::{IGNORE_INDEX, VocabShard, cross_entropy, linear};
use std::sync::{Barrier, Mutex};

#[cfg(feature = "gpu")]
mod gpu;

/// f64 loss, `d_hidden` and `d_weight` of the unscaled loss.
fn exact(shape: Shape, hidden: &[f64], weight: &[f64], labels: &[i32], options: Options) -> (f64, Vec<f64>, Vec<f64>) {
    let logits = linear::reference::forward(shape, hidden, weight);
    let (loss, _) = cross_entropy::reference::forward(&logits, shape.d_out, labels, options);
    let d_logits = cross_entropy::reference::backward(&logits, shape.d_out, labels, options);
    let (dx, dw) = linear::reference::backward(shape, hidden, weight, &d_logits);
    (loss, dx, dw)
}

#[test]
fn loss_and_both_gradients_agree_with_f64_over_several_chunks() {
    let mut random = Random::fresh();
    let full = Options { label_smoothing: 0.1, z_loss: 0.01, scale: 1.0 };
    for (device, options) in tracked_devices().iter().zip([Options::default(), full]) {
        let vocab = random.between(60, 80);
        let shape =
            Shape { tokens: chunk_rows(vocab) * 2 + random.between(1, 40), d_in: random.between(5, 20), d_out: vocab };
        let (hidden, weight) = (random.values(shape.tokens * shape.d_in), random.values(vocab * shape.d_in));
        let labels: Vec<i32> = (0..shape.tokens)
            .map(|t| if t % 7 == 3 { IGNORE_INDEX } else { random.between(0, vocab - 1) as i32 })
            .collect();
        let (loss, dx, dw) = exact(shape, &wide(&hidden), &wide(&weight), &labels, options);
        for set in [Fused, Reference] {
            let (th, tw) =
                (leaf(&hidden, [shape.tokens, shape.d_in], device), leaf(&weight, [vocab, shape.d_in], device));
            let out = linear_cross_entropy_with(set, th.clone(), tw.clone(), &labels, options);
            assert_close("loss", &values(out.loss_sum.clone()), &[loss]);
            let gradients = out.loss_sum.backward();
            assert_close("d_hidden", &gradient(&th, &gradients), &dx);
            assert_close("d_weight", &gradient(&tw, &gradients), &dw);
        }
        let untracked = linear_cross_entropy_with(
            Fused,
            plain(&hidden, [shape.tokens, shape.d_in]),
            plain(&weight, [vocab, shape.d_in]),
            &labels,
            options,
        );
        assert_close("loss without gradients", &values(untracked.loss_sum), &[loss]);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let (tokens, width, vocab) = (300, 48, 1000);
    let (hidden, weight) = (random.values(tokens * width), random.values(vocab * width));
    let labels: Vec<i32> = (0..tokens).map(|_| random.between(0, vocab - 1) as i32).collect();
    let options = Options { label_smoothing: 0.1, ..Options::default() };
    assert_deterministic("linear_cross_entropy", || {
        let outcome = forward(&hidden, &weight, width, &labels, options, Wanted { hidden: true, weight: true });
        let mut out = outcome.d_hidden.unwrap();
        out.extend(outcome.d_weight.unwrap());
        out.push(outcome.totals.loss as f32);
        out
    });
}

#[test]
fn a_frozen_head_still_passes_a_gradient_to_the_hidden_states() {
    let mut random = Random::fresh();
    let hidden = leaf(&random.values(6 * 4), [6, 4], &tracked_devices()[0]);
    let out = linear_cross_entropy(
        Fused,
        hidden.clone(),
        plain(&random.values(9 * 4), [9, 4]),
        &[1, 2, 3, 4, 5, 8],
        0.0,
        1.0,
    );
    let gradients = out.loss_sum.backward();
    assert!(gradient(&hidden, &gradients).iter().any(|v| *v != 0.0));
}

#[test]
fn the_weight_and_the_hidden_states_are_free_again_after_the_forward() {
    let mut weight = HostTensor::from_vec(vec![0.5; 9 * 4], [9, 4]);
    let mut states = HostTensor::from_vec(vec![0.25; 2 * 4], [2, 4]);
    let addresses = [weight.as_ptr(), states.as_ptr()];
    let device = &tracked_devices()[0];
    let (hidden, head) = (leaf(&[1.0; 8], [2, 4], device), leaf(&[1.0; 36], [9, 4], device));
    let outputs = [
        linear_cross_entropy(Fused, hidden, weight.clone().into_tensor(), &[1, 2], 0.0, 1.0),
        linear_cross_entropy(Fused, states.clone().into_tensor(), head, &[1, 2], 0.0, 1.0),
    ];
    // Written in place if and only if nobody else holds the buffer.
    assert_eq!([weight.make_mut().as_ptr(), states.make_mut().as_ptr()], addresses);
    assert!(outputs.iter().all(|output| output.loss_sum.is_tracked()));
}

/// Combines what rank threads bring, in the order of ranks.
struct Meeting {
    parts: Mutex<Vec<Vec<f64>>>,
    barrier: Barrier,
}

impl Meeting {
    fn of(ranks: usize) -> Self {
        Self { parts: Mutex::new(vec![Vec::new(); ranks]), barrier: Barrier::new(ranks) }
    }

    /// The parts of all ranks.
    fn gather(&self, rank: usize, values: Vec<f64>) -> Vec<Vec<f64>> {
        self.parts.lock().unwrap()[rank] = values;
        self.barrier.wait();
        let parts = self.parts.lock().unwrap().clone();
        // Nobody brings the next part before all have read this one.
        self.barrier.wait();
        parts
    }

    fn combine(&self, rank: usize, values: Vec<f64>, f: fn(f64, f64) -> f64) -> Vec<f64> {
        let parts = self.gather(rank, values).into_iter();
        parts.reduce(|a, b| a.iter().zip(b).map(|(a, b)| f(*a, b)).collect()).unwrap()
    }

    fn reduce(&self, rank: usize, reduction: Reduction<'_>) -> Result<(), String> {
        match reduction {
            Reduction::Max(values) => {
                let all = self.combine(rank, wide(values), f64::max);
                values.iter_mut().zip(all).for_each(|(value, all)| *value = all as f32);
            }
            Reduction::Sum(values) => {
                let all = self.combine(rank, values.to_vec(), |a, b| a + b);
                values.copy_from_slice(&all);
            }
        }
        Ok(())
    }
}

#[test]
fn ranks_that_share_the_vocabulary_agree_with_f64_over_several_chunks() {
    let mut random = Random::fresh();
    for (ranks, label_smoothing) in [(1, 0.1), (2, 0.0), (3, 0.1), (4, 0.1)] {
        let (tokens, vocab, width) = (random.between(65, 200), random.between(3, 90), random.between(2, 20));
        let shape = Shape { tokens, d_in: width, d_out: vocab };
        let (hidden, weight) = (random.values(tokens * width), random.values(vocab * width));
        let labels: Vec<i32> =
            (0..tokens).map(|t| if t % 5 == 2 { IGNORE_INDEX } else { random.between(0, vocab - 1) as i32 }).collect();
        let options = Options { label_smoothing, z_loss: 0.01, scale: 1.0 };
        let (loss, dx, dw) = exact(shape, &wide(&hidden), &wide(&weight), &labels, options);
        let (shards, meeting) = (random.shards(vocab, ranks), Meeting::of(ranks));
        println!("{shape:?} {shards:?}");
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads = shards.iter().enumerate().map(|(rank, shard)| {
                let rows = &weight[shard.range().start * width..shard.range().end * width];
                let (hidden, labels, meeting) = (&hidden, &labels, &meeting);
                scope.spawn(move || {
                    let wanted = Wanted { hidden: true, weight: true };
                    let mut reduce = |reduction: Reduction<'_>| meeting.reduce(rank, reduction);
                    forward_parallel(hidden, rows, width, shard, labels, options, wanted, 64, &mut reduce).unwrap()
                })
            });
            threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(outcomes.iter().all(|outcome| outcome.totals == outcomes[0].totals));
        assert_close("loss", &[outcomes[0].totals.loss as f32], &[loss]);
        let d_weight: Vec<f32> = outcomes.iter().flat_map(|outcome| outcome.d_weight.clone().unwrap()).collect();
        assert_close("d_weight", &d_weight, &dw);
        let parts = outcomes.into_iter().map(|outcome| outcome.d_hidden.unwrap());
        let d_hidden = parts.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect()).unwrap();
        assert_close("d_hidden", &d_hidden, &dx);
    }
}

#[test]
fn a_failed_reduction_ends_the_work_with_its_error() {
    let (shard, options) = (VocabShard::new(0..2, 4), Options::default());
    let mut calls = 0;
    let mut reduce = |reduction: Reduction<'_>| {
        calls += 1;
        if matches!(reduction, Reduction::Sum(_)) { Err("a rank is gone") } else { Ok(()) }
    };
    let wanted = Wanted { hidden: true, weight: false };
    let outcome = forward_parallel(&[1.0; 6], &[1.0; 6], 3, &shard, &[0, 3], options, wanted, 1, &mut reduce);
    assert_eq!((outcome.err(), calls), (Some("a rank is gone"), 2));
}
