//! The embedding table against f64 and burn.

use super::{cpu, embedding, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;
use burn::tensor::{DType, FloatDType, bf16};

#[test]
fn rows_are_gathered_and_gradients_of_equal_tokens_add_up() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let (vocab, width, tokens) = (random.between(2, 50), random.between(1, 70), random.between(1, 300));
        let ids: Vec<u32> = (0..tokens).map(|_| random.between(0, vocab - 1) as u32).collect();
        let (table, dy) = (random.values(vocab * width), random.values(tokens * width));
        for set in [Fused, Reference] {
            let weight = leaf(&table, [vocab, width], &device);
            let y = embedding(set, weight.clone(), &ids);
            assert_close("y", &values(y.clone()), &reference::forward(&wide(&table), width, &ids));
            let gradients = backward_with(y, &dy);
            let exact = reference::backward(vocab, width, &ids, &wide(&dy));
            assert_close("dW", &gradient(&weight, &gradients), &exact);
        }
    }
}

#[test]
fn the_gradient_has_the_same_bits_for_every_number_of_threads() {
    let mut random = Random::fresh();
    let ids: Vec<u32> = (0..3000).map(|_| random.between(0, 200) as u32).collect();
    let dy = random.values(3000 * 33);
    assert_deterministic("embedding gradient", || cpu::backward(201, 33, &ids, &dy));
}

#[test]
fn a_bf16_table_gives_its_rows_and_a_gradient_of_f32_sums_rounded_once() {
    let mut random = Random::fresh();
    let (vocab, width, tokens) = (random.between(2, 9), random.between(1, 70), random.between(100, 300));
    let ids: Vec<u32> = (0..tokens).map(|_| random.between(0, vocab - 1) as u32).collect();
    let narrow = |values: Vec<f32>| -> Vec<bf16> { values.into_iter().map(bf16::from_f32).collect() };
    let (table, dy) = (narrow(random.values(vocab * width)), narrow(random.values(tokens * width)));
    let wide = |values: &[bf16]| -> Vec<f32> { values.iter().map(|v| v.to_f32()).collect() };
    for device in tracked_devices() {
        let weight = leaf(&wide(&table), [vocab, width], &device).cast(FloatDType::BF16).detach().require_grad();
        let y = embedding(Fused, weight.clone(), &ids);
        assert_eq!(y.dtype(), DType::BF16);
        let y = y.cast(FloatDType::F32);
        assert_eq!(values(y.clone()), cpu::forward(&wide(&table), width, &ids));
        let gradient = weight.grad(&backward_with(y, &wide(&dy))).unwrap();
        assert_eq!(gradient.dtype(), DType::BF16);
        let sums = cpu::backward(vocab, width, &ids, &wide(&dy));
        assert!(bits(&values(gradient.cast(FloatDType::F32))) == bits(&wide(&narrow(sums))));
    }
    assert_deterministic("bf16 gradient", || wide(&cpu::backward(vocab, width, &ids, &dy)));
}

#[test]
fn the_reference_gradient_is_a_derivative() {
    let mut random = Random::fresh();
    let (table, dy, ids) = (wide(&random.values(12)), wide(&random.values(15)), [3, 0, 3, 1, 3]);
    let dw = reference::backward(4, 3, &ids, &dy);
    assert_gradient("dW", &mut random, &table, &dw, |table| dot(&reference::forward(table, 3, &ids), &dy));
}

#[test]
#[should_panic(expected = "token 7 at position 2 is outside 0..7")]
fn a_token_outside_the_table_is_named() {
    embedding(Fused, plain(&[0.0; 14], [7, 2]), &[0, 6, 7]);
}

#[test]
fn shards_of_the_table_add_up_to_the_embedding_and_hold_the_rows_of_its_gradient() {
    let mut random = Random::fresh();
    for ranks in 1..=4 {
        let (vocab, width, tokens) = (random.between(1, 40), random.between(1, 50), random.between(1, 200));
        let ids: Vec<u32> = (0..tokens).map(|_| random.between(0, vocab - 1) as u32).collect();
        let (table, dy) = (random.values(vocab * width), random.values(tokens * width));
        let (mut sum, mut gradient) = (vec![0.0; tokens * width], Vec::new());
        for shard in random.shards(vocab, ranks) {
            let rows = &table[shard.range().start * width..shard.range().end * width];
            let part = cpu::forward_shard(rows, &shard, width, &ids);
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            gradient.extend(cpu::backward_shard(&shard, width, &ids, &dy));
        }
        assert_eq!(sum, cpu::forward(&table, width, &ids));
        assert!(bits(&gradient) == bits(&cpu::backward(vocab, width, &ids, &dy)));
        assert_close("dW", &gradient, &reference::backward(vocab, width, &ids, &wide(&dy)));
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::VocabShard;
    use crate::cube::F32;
    use crate::cube::testing::{assert_buffer, on_every_device, poison, random};

    #[test]
    fn rows_of_a_shard_are_gathered_and_gradients_of_equal_tokens_add_up() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for width in [1, 64, generator.between(1, 70)] {
                let (vocab, count) = (generator.between(2, 50), generator.between(1, 300));
                let ids: Vec<u32> = (0..count).map(|_| generator.between(0, vocab - 1) as u32).collect();
                let (dy, dy_on) = random(&mut generator, client, count * width, elem);
                let whole = reference::backward(vocab, width, &ids, &dy);
                for shard in generator.shards(vocab, 4).into_iter().chain([VocabShard::whole(vocab)]) {
                    let rows = shard.range().start * width..shard.range().end * width;
                    let (table, table_on) = random(&mut generator, client, rows.len(), elem);
                    // The rows of other shards count as zero.
                    let mut padded = vec![0.0; vocab * width];
                    padded[rows.clone()].copy_from_slice(&table);
                    poison(client, count * width, elem);
                    let y = cube::forward(client, &table_on, &shard, width, &ids);
                    assert_buffer("y", client, &y, &reference::forward(&padded, width, &ids), elem);
                    for to in [elem, F32] {
                        poison(client, rows.len(), to);
                        let gradient = cube::backward(client, &shard, width, &ids, &dy_on, to);
                        assert_buffer("dW", client, &gradient, &whole[rows.clone()], to);
                    }
                }
            }
        });
    }

    #[test]
    fn the_operation_gives_the_gradients_of_burn() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let ids: Vec<u32> = (0..60).map(|_| random.between(0, 16) as u32).collect();
            let (table, dy) = (random.values(17 * 12), random.values(60 * 12));
            let run = |set| {
                let weight = leaf(&table, [17, 12], &device);
                let y = embedding(set, weight.clone(), &ids);
                let gradients = backward_with(y.clone(), &dy);
                [values(y), gradient(&weight, &gradients)]
            };
            for (fused, composed) in run(Fused).iter().zip(run(Reference)) {
                assert_close("fused against composed", fused, &wide(&composed));
            }
        }
    }
}
