//! SwiGLU against f64 and burn.

use super::{cpu, reference, swiglu};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

#[test]
fn forward_and_both_gradients_agree_with_f64() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let shape = [random.between(1, 300), random.between(1, 200)];
        let n = shape[0] * shape[1];
        let (gate, up, dy) = (random.values(n), random.values(n), random.values(n));
        let gate: Vec<f32> = gate.iter().map(|g| g * 4.0).collect();
        let exact = reference::forward(&wide(&gate), &wide(&up));
        let (d_gate, d_up) = reference::backward(&wide(&gate), &wide(&up), &wide(&dy));
        for set in [Fused, Reference] {
            let (tg, tu) = (leaf(&gate, shape, &device), leaf(&up, shape, &device));
            let y = swiglu(set, tg.clone(), tu.clone());
            assert_close("y", &values(y.clone()), &exact);
            let gradients = backward_with(y, &dy);
            assert_close("d_gate", &gradient(&tg, &gradients), &d_gate);
            assert_close("d_up", &gradient(&tu, &gradients), &d_up);
        }
    }
}

#[test]
fn the_reference_gradients_are_derivatives() {
    let mut random = Random::fresh();
    let (gate, up, dy) = (wide(&random.values(9)), wide(&random.values(9)), wide(&random.values(9)));
    let (d_gate, d_up) = reference::backward(&gate, &up, &dy);
    assert_gradient("d_gate", &mut random, &gate, &d_gate, |gate| dot(&reference::forward(gate, &up), &dy));
    assert_gradient("d_up", &mut random, &up, &d_up, |up| dot(&reference::forward(&gate, up), &dy));
}

#[test]
fn extreme_gates_saturate_and_a_nan_stays_a_nan() {
    let gate = [f32::NAN, 200.0, -200.0, 1.0];
    let y = values(swiglu(Fused, plain(&gate, [1, 4]), plain(&[1.0, 1.0, 1.0, f32::NAN], [1, 4])));
    assert!(y[0].is_nan() && y[1] == 200.0 && y[2] == 0.0 && y[3].is_nan(), "{y:?}");
    let mut dy = [1.0; 4];
    let d_up = cpu::backward(&gate, &[1.0; 4], &mut dy);
    assert!(dy[0].is_nan() && d_up[0].is_nan() && (dy[1], dy[2]) == (1.0, 0.0), "{dy:?} {d_up:?}");
}
