//! The embedding table against f64 and burn.

use super::{cpu, embedding, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

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
