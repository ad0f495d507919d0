//! The rotation against f64 and burn.

use super::{RotaryTable, reference, rotary};
use crate::KernelSet::{Fused, Reference};
use crate::attention::QkvLayout;
use crate::testing::*;

const BASE: f64 = 10_000.0;

#[test]
fn rotation_and_its_gradient_agree_with_f64() {
    let mut random = Random::fresh();
    for (device, q_per_kv) in tracked_devices().iter().zip([3, 1]) {
        let layout = QkvLayout { kv_heads: random.between(1, 3), q_per_kv, head_dim: 2 * random.between(1, 40) };
        let tokens = random.between(1, 120);
        let positions: Vec<u32> = (0..tokens).map(|_| random.between(0, 99) as u32).collect();
        let table = RotaryTable::new(layout.head_dim, BASE, 100);
        let (x, dy) = (random.values(tokens * layout.qkv_width()), random.values(tokens * layout.qkv_width()));
        for set in [Fused, Reference] {
            let qkv = leaf(&x, [tokens, layout.qkv_width()], device);
            let y = rotary(set, qkv.clone(), layout, &positions, &table);
            assert_close("y", &values(y.clone()), &reference::rotate(&wide(&x), layout, &positions, BASE, 1.0));
            let gradients = backward_with(y, &dy);
            let exact = reference::rotate(&wide(&dy), layout, &positions, BASE, -1.0);
            assert_close("dqkv", &gradient(&qkv, &gradients), &exact);
            assert_eq!(values(qkv), x, "the input is not changed while somebody holds it");
        }
    }
}

#[test]
fn the_reference_gradient_is_a_derivative() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 4 };
    let (x, dy) = (wide(&random.values(3 * 32)), wide(&random.values(3 * 32)));
    let positions = [0, 5, 2];
    let gradient = reference::rotate(&dy, layout, &positions, BASE, -1.0);
    let f = |x: &[f64]| dot(&reference::rotate(x, layout, &positions, BASE, 1.0), &dy);
    assert_gradient("dqkv", &mut random, &x, &gradient, f);
}

#[test]
#[should_panic(expected = "position 10 of token 1 is outside 0..10")]
fn a_position_outside_the_table_is_named() {
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 2 };
    rotary(Fused, plain(&[0.0; 12], [2, 6]), layout, &[9, 10], &RotaryTable::new(2, BASE, 10));
}
