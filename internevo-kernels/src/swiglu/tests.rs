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

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::cube::Buffer;
    use crate::cube::testing::{assert_buffer, on_every_device, poison, random};

    #[test]
    fn forward_and_both_gradients_agree_with_f64_for_odd_sizes() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for len in [1, 3, 64, 8 * generator.between(1, 900), generator.between(1, 5000)] {
                let [a, b, c] = [(); 3].map(|()| random(&mut generator, client, len, elem));
                let ((gate, gate_on), (up, up_on), (dy, dy_on)) = (a, b, c);
                poison(client, len, elem);
                let y = cube::forward(client, &gate_on, &up_on);
                assert_buffer(&format!("y {len}"), client, &y, &reference::forward(&gate, &up), elem);
                let (exact_gate, exact_up) = reference::backward(&gate, &up, &dy);
                // Once beside a holder of the gradient, once over its memory.
                for holder in [Some(dy_on.clone()), None] {
                    let given = holder.clone().unwrap_or_else(|| dy_on.clone());
                    let fresh =
                        holder.is_none().then(|| Buffer::from_f32(client, &given.read_f32(client).unwrap(), elem));
                    let (d_gate, d_up) = cube::backward(client, &gate_on, &up_on, fresh.unwrap_or(given));
                    assert_buffer(&format!("d_gate {len}"), client, &d_gate, &exact_gate, elem);
                    assert_buffer(&format!("d_up {len}"), client, &d_up, &exact_up, elem);
                    assert_buffer(&format!("dy is kept {len}"), client, &dy_on, &dy, elem);
                }
            }
        });
    }

    #[test]
    fn extreme_gates_saturate_and_a_nan_stays_a_nan_on_a_device_too() {
        on_every_device(|client, elem| {
            let [gate, up] =
                [[f32::NAN, 200.0, -200.0, 1.0], [1.0, 1.0, 1.0, f32::NAN]].map(|v| Buffer::from_f32(client, &v, elem));
            let y = cube::forward(client, &gate, &up).read_f32(client).unwrap();
            assert!(y[0].is_nan() && y[1] == 200.0 && y[2] == 0.0 && y[3].is_nan(), "{y:?}");
            let one = || Buffer::from_f32(client, &[1.0; 4], elem);
            let (d_gate, d_up) = cube::backward(client, &gate, &one(), one());
            let [d_gate, d_up] = [d_gate, d_up].map(|d| d.read_f32(client).unwrap());
            assert!(
                d_gate[0].is_nan() && d_up[0].is_nan() && (d_gate[1], d_gate[2]) == (1.0, 0.0),
                "{d_gate:?} {d_up:?}"
            );
        });
    }

    #[test]
    fn the_operation_gives_the_gradients_of_burn() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let [gate, up, dy] = [(); 3].map(|()| random.values(13 * 40));
            let run = |set| {
                let (tg, tu) = (leaf(&gate, [13, 40], &device), leaf(&up, [13, 40], &device));
                let y = swiglu(set, tg.clone(), tu.clone());
                let gradients = backward_with(y.clone(), &dy);
                [values(y), gradient(&tg, &gradients), gradient(&tu, &gradients)]
            };
            for (fused, composed) in run(Fused).iter().zip(run(Reference)) {
                assert_close("fused against composed", fused, &wide(&composed));
            }
        }
    }
}
