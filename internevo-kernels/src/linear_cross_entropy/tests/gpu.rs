//! The fused head on cubecl devices: against f64 in every type, over chunks and ranks, and the memory it takes.

use super::super::cube::{self, Cut, scaled};
use super::super::linear_cross_entropy_shard;
use super::*;
use crate::CrossEntropy;
use crate::cross_entropy::cpu::Totals;
use crate::cube::testing::{assert_buffer, clients, floats, on_every_device, random};
use crate::cube::{BF16, Buffer, ElemType, F32, Machine};
use burn::tensor::Tensor;
use cubecl::MemoryScope;
use std::convert::Infallible;

#[test]
fn loss_and_both_gradients_agree_with_f64_over_several_chunks_and_parts() {
    let mut generator = Random::fresh();
    let full = Options { label_smoothing: 0.1, z_loss: 0.01, scale: 0.5 };
    on_every_device(|client, elem| {
        for (vocab, width, options) in [(200, 24, full), (generator.between(130, 160), 7, Options::default())] {
            let tokens = 128 + generator.between(1, 40);
            let shape = Shape { tokens, d_in: width, d_out: vocab };
            let (hidden, hidden_on) = random(&mut generator, client, tokens * width, elem);
            let (weight, weight_on) = random(&mut generator, client, vocab * width, elem);
            let pick = |t| if t % 7 == 3 { IGNORE_INDEX } else { generator.between(0, vocab - 1) as i32 };
            let labels: Vec<i32> = (0..tokens).map(pick).collect();
            let (loss, dx, dw) = exact(shape, &hidden, &weight, &labels, options);
            let wanted = Wanted { hidden: true, weight: true };
            let out = cube::forward(client, &hidden_on, &weight_on, width, &labels, options, wanted);
            let totals = out.totals(client).unwrap();
            // 16-bit logits are off by their own rounding.
            let error = (totals.loss - loss).abs() / loss;
            assert!(error <= if elem == F32 { 1e-5 } else { 1e-3 }, "loss off by {error:.1e} in {elem:?}");
            assert_buffer("d_hidden", client, &out.d_hidden.unwrap(), &dx, elem);
            let d_weight = out.d_weight.unwrap();
            assert_buffer("d_weight", client, &d_weight, &dw, elem);
            let half: Vec<f64> = dw.iter().map(|g| g * 0.5).collect();
            assert_buffer("scaled", client, &scaled(client, &d_weight, 0.5, elem), &half, elem);
        }
    });
}

/// What the ranks that share a vocabulary combine.
#[derive(Clone, Copy, Debug)]
enum Brought {
    /// Their statistics, one after the other.
    Gathered,
    /// Maxima and sums, on the host.
    Reduced,
}

/// The head of each rank, on a thread of its own: totals, gradients of hidden states and weight.
fn of_ranks(
    [hidden, weight]: [&[f64]; 2],
    shards: &[VocabShard],
    labels: &[i32],
    (index, elem, options): (usize, ElemType, Options),
    brought: Brought,
) -> Vec<(Totals, Vec<f32>, Vec<f32>)> {
    let (width, meeting) = (hidden.len() / labels.len(), Meeting::of(shards.len()));
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<_>>();
    let rank = |(rank, shard): (usize, &VocabShard)| {
        let client = &clients()[index];
        let buffer = |values: &[f64]| Buffer::from_f32(client, &narrow(values), elem);
        let (hidden, weight) =
            (buffer(hidden), buffer(&weight[shard.range().start * width..shard.range().end * width]));
        let wanted = Wanted { hidden: true, weight: true };
        let cut = Cut::new(Machine::of(client), labels.len(), shard.vocab(), width, elem);
        let mut gather = |statistics: Buffer| match brought {
            Brought::Gathered => {
                let all = meeting.gather(rank, wide(&statistics.read_f32(client).unwrap())).concat();
                Ok(Buffer::from_f32(client, &narrow(&all), F32))
            }
            Brought::Reduced => {
                let mut reduce = |reduction: Reduction<'_>| meeting.reduce(rank, reduction);
                cube::reduced(client, &statistics, &mut reduce)
            }
        };
        let gather = &mut gather;
        let out = cube::forward_shard(client, &hidden, &weight, width, shard, labels, options, wanted, cut, gather);
        let out = out.unwrap();
        let read = |gradient: &Option<Buffer>| gradient.as_ref().unwrap().read_f32(client).unwrap();
        (out.totals(client).unwrap(), read(&out.d_hidden), read(&out.d_weight))
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let threads = shards.iter().enumerate().map(|shard| scope.spawn(move || rank(shard)));
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ranks_that_share_the_vocabulary_agree_with_f64_over_several_chunks() {
    let mut generator = Random::fresh();
    let options = Options { label_smoothing: 0.1, z_loss: 0.01, scale: 0.5 };
    for (index, client) in clients().iter().enumerate() {
        let cases = floats(client).into_iter().flat_map(|elem| [1, 2, 4].map(|ranks| (elem, ranks)));
        for ((elem, ranks), brought) in cases.zip([Brought::Reduced, Brought::Gathered].into_iter().cycle()) {
            let (vocab, width) = (generator.between(130, 200), generator.between(5, 20));
            let shape = Shape { tokens: 128 + generator.between(1, 40), d_in: width, d_out: vocab };
            let (hidden, _) = random(&mut generator, client, shape.tokens * width, elem);
            let (weight, _) = random(&mut generator, client, vocab * width, elem);
            let pick = |t| if t % 7 == 3 { IGNORE_INDEX } else { generator.between(0, vocab - 1) as i32 };
            let labels: Vec<i32> = (0..shape.tokens).map(pick).collect();
            let (loss, dx, dw) = exact(shape, &hidden, &weight, &labels, options);
            let shards = generator.shards(vocab, ranks);
            println!("{shape:?} {shards:?} {elem:?} {brought:?}");
            let outcomes = of_ranks([&hidden, &weight], &shards, &labels, (index, elem, options), brought);
            assert!(outcomes.iter().all(|outcome| outcome.0 == outcomes[0].0));
            let error = (outcomes[0].0.loss - loss).abs() / loss;
            assert!(error <= if elem == F32 { 1e-5 } else { 1e-3 }, "loss off by {error:.1e}");
            let compare = |what, found: &[f32], exact: &[f64]| {
                assert_buffer(what, client, &Buffer::from_f32(client, found, F32), exact, elem);
            };
            let d_weight: Vec<f32> = outcomes.iter().flat_map(|(_, _, d_weight)| d_weight.clone()).collect();
            compare("d_weight", &d_weight, &dw);
            let parts = outcomes.into_iter().map(|(_, d_hidden, _)| d_hidden);
            let d_hidden = parts.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect()).unwrap();
            compare("d_hidden", &d_hidden, &dx);
        }
    }
}

#[test]
fn a_failed_gathering_ends_the_work_with_its_error() {
    let client = &clients()[0];
    let [hidden, weight] = [6, 6].map(|len| Buffer::from_f32(client, &vec![1.0; len], F32));
    let (shard, cut) = (VocabShard::new(0..2, 4), Cut { rows: 1, words: 1 });
    let (options, wanted) = (Options::default(), Wanted { hidden: true, weight: false });
    let mut calls = 0;
    let mut gather = |statistics| {
        calls += 1;
        if calls == 2 { Err("a rank is gone") } else { Ok(statistics) }
    };
    let labels = [0, 3];
    let out = cube::forward_shard(client, &hidden, &weight, 3, &shard, &labels, options, wanted, cut, &mut gather);
    assert_eq!((out.err(), calls), (Some("a rank is gone"), 2));
}

#[test]
fn the_operation_on_a_shard_that_is_the_whole_gives_the_loss_and_gradients_of_burn() {
    let mut random = Random::fresh();
    for device in gpu_devices() {
        let (hidden, weight) = (random.values(150 * 12), random.values(140 * 12));
        let labels: Vec<i32> = (0..150).map(|_| random.between(0, 139) as i32).collect();
        let leaves = || (leaf(&hidden, [150, 12], &device), leaf(&weight, [140, 12], &device));
        let differentiated = |(th, tw): (Tensor<2>, Tensor<2>), out: CrossEntropy| {
            let gradients = out.loss_sum.backward();
            [values(out.loss_sum), gradient(&th, &gradients), gradient(&tw, &gradients)]
        };
        let whole = VocabShard::whole(140);
        let (th, tw) = leaves();
        let mut reductions = 0;
        let reduce = |_: Reduction<'_>| {
            reductions += 1;
            Ok::<_, Infallible>(())
        };
        let out = linear_cross_entropy_shard(th.clone(), tw.clone(), &whole, &labels, 0.1, 0.25, 64, reduce).unwrap();
        let fused = differentiated((th, tw), out);
        // Two for each chunk of 128 rows.
        assert_eq!(reductions, 4);
        let (th, tw) = leaves();
        let composed = linear_cross_entropy(Reference, th.clone(), tw.clone(), &labels, 0.1, 0.25);
        for (fused, composed) in fused.into_iter().zip(differentiated((th, tw), composed)) {
            assert_close("fused against composed", &fused, &wide(&composed));
        }
    }
}

#[test]
fn the_operation_gives_the_loss_and_gradients_of_burn() {
    let mut random = Random::fresh();
    for device in gpu_devices() {
        let (hidden, weight) = (random.values(150 * 12), random.values(140 * 12));
        let labels: Vec<i32> = (0..150).map(|_| random.between(0, 139) as i32).collect();
        let options = Options { label_smoothing: 0.1, z_loss: 0.01, scale: 0.25 };
        let run = |set| {
            let (th, tw) = (leaf(&hidden, [150, 12], &device), leaf(&weight, [140, 12], &device));
            let out = linear_cross_entropy_with(set, th.clone(), tw.clone(), &labels, options);
            let gradients = (out.loss_sum.clone() * 2.0).backward();
            [values(out.loss_sum), gradient(&th, &gradients), gradient(&tw, &gradients)]
        };
        for (fused, composed) in run(Fused).into_iter().zip(run(Reference)) {
            assert_close("fused against composed", &fused, &wide(&composed));
        }
    }
}

#[test]
fn a_cut_of_a_large_head_takes_less_than_a_tenth_of_the_logits() {
    for client in clients() {
        let machine = Machine { multiprocessors: Some(132), ..Machine::of(&client) };
        for (tokens, vocab, width) in [(16_384, 92_544, 4096), (16_384, 32_000, 2048), (65_536, 200_003, 8192)] {
            let cut = Cut::new(machine, tokens, vocab, width, BF16);
            assert!(cut.rows >= 128 && cut.rows.is_multiple_of(128) && cut.words >= 128);
            assert!(cut.scratch_bytes(tokens, vocab, width, BF16) * 10 < tokens * vocab * 2, "{cut:?}");
        }
    }
}

#[test]
fn a_head_reserves_less_device_memory_than_gradients_and_a_tenth_of_the_logits() {
    // A thread of its own has memory pools of its own.
    let measured = std::thread::spawn(|| clients().iter().map(reserved_and_allowed).collect::<Vec<_>>());
    for (reserved, allowed) in measured.join().unwrap() {
        assert!(reserved < allowed, "{reserved} bytes reserved, {allowed} allowed");
    }
}

/// Bytes that the pools of this thread grow by for a head, and those of its gradients and a tenth of its logits.
fn reserved_and_allowed(client: &crate::cube::Client) -> (usize, usize) {
    let (tokens, vocab, width) = (16_384, 8192, 8);
    let mut generator = Random::fresh();
    let (_, hidden) = random(&mut generator, client, tokens * width, F32);
    let (_, weight) = random(&mut generator, client, vocab * width, F32);
    let labels = vec![1; tokens];
    let reserved = || client.memory_report(MemoryScope::CurrentStream).usage().bytes_reserved as usize;
    let before = reserved();
    let wanted = Wanted { hidden: true, weight: true };
    let out = cube::forward(client, &hidden, &weight, width, &labels, Options::default(), wanted);
    out.totals(client).unwrap();
    let gradients = (tokens + vocab) * width * F32.size();
    (reserved() - before, gradients + tokens * vocab * F32.size() / 10)
}
