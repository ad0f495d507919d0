//! RMSNorm against f64 and burn.

use super::{cpu, reference, rms_norm, rms_norm_residual};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;
use burn::tensor::{Device, Tensor, TensorData};

const EPS: f64 = 1e-5;

#[test]
fn forward_and_both_gradients_agree_with_f64_for_odd_sizes() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let (tokens, width) = (random.between(1, 900), random.between(1, 300));
        let (x, w, dy) = (random.values(tokens * width), random.values(width), random.values(tokens * width));
        let exact = reference::forward(&wide(&x), &wide(&w), EPS);
        let (dx, dw) = reference::backward(&wide(&x), &wide(&w), EPS, &wide(&dy));
        for set in [Fused, Reference] {
            let (tx, tw) = (leaf(&x, [tokens, width], &device), leaf(&w, [width], &device));
            let y = rms_norm(set, tx.clone(), tw.clone(), EPS);
            assert_close("y", &values(y.clone()), &exact);
            let gradients = backward_with(y, &dy);
            assert_close("dx", &gradient(&tx, &gradients), &dx);
            assert_close("dw", &gradient(&tw, &gradients), &dw);
        }
    }
}

#[test]
fn the_reference_gradients_are_derivatives() {
    let mut random = Random::fresh();
    let (x, w, dy) = (wide(&random.values(21)), wide(&random.values(7)), wide(&random.values(21)));
    let (dx, dw) = reference::backward(&x, &w, EPS, &dy);
    assert_gradient("dx", &mut random, &x, &dx, |x| dot(&reference::forward(x, &w, EPS), &dy));
    assert_gradient("dw", &mut random, &w, &dw, |w| dot(&reference::forward(&x, w, EPS), &dy));
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let (rows, width) = (700, 129);
    let (x, w, dy) = (random.values(rows * width), random.values(width), random.values(rows * width));
    assert_deterministic("rms_norm", || {
        let (mut out, rstd) = cpu::forward(&x, &w, EPS);
        let mut dx = dy.clone();
        out.extend(cpu::backward(&x, &w, &rstd, &mut dx));
        out.extend(dx);
        out
    });
}

#[test]
fn a_nan_spoils_its_row_and_the_weight_gradient() {
    let device = &tracked_devices()[0];
    let mut x = vec![1.0; 3 * 50];
    x[60] = f32::NAN;
    let (tx, tw) = (leaf(&x, [3, 50], device), leaf(&[1.0; 50], [50], device));
    let y = rms_norm(Fused, tx.clone(), tw.clone(), EPS);
    let out = values(y.clone());
    assert!(out.chunks_exact(50).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 1))));
    let gradients = y.sum().backward();
    assert!(gradient(&tw, &gradients).iter().all(|v| v.is_nan()));
}

/// Values of the norm and the sum with a residual, and the gradients of input, residual and weight, from `inputs` in that order.
fn residual_step(set: crate::KernelSet, device: &Device, shape: [usize; 2], inputs: &Residual) -> [Vec<f32>; 5] {
    let (x, residual) = (leaf(&inputs.x, shape, device), leaf(&inputs.residual, shape, device));
    let weight = leaf(&inputs.weight, [shape[1]], device);
    let (y, sum) = rms_norm_residual(set, x.clone(), residual.clone(), weight.clone(), EPS);
    let weighted = |t: Tensor<2>, by: &[f32]| {
        (t.clone() * Tensor::from_data(TensorData::new(by.to_vec(), shape), &t.device().inner())).sum()
    };
    let gradients = (weighted(y.clone(), &inputs.dy) + weighted(sum.clone(), &inputs.d_sum)).backward();
    let [dx, d_residual] = [x, residual].map(|leaf| gradient(&leaf, &gradients));
    [values(y), values(sum), dx, d_residual, gradient(&weight, &gradients)]
}

struct Residual {
    x: Vec<f32>,
    residual: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
    d_sum: Vec<f32>,
}

impl Residual {
    fn random(random: &mut Random, [tokens, width]: [usize; 2]) -> Self {
        let mut matrix = || random.values(tokens * width);
        let (x, residual, dy, d_sum) = (matrix(), matrix(), matrix(), matrix());
        Self { x, residual, weight: random.values(width), dy, d_sum }
    }

    /// What [`residual_step`] should give.
    fn exact(&self) -> [Vec<f64>; 5] {
        let weight = wide(&self.weight);
        let (y, sum) = reference::forward_residual(&wide(&self.x), &wide(&self.residual), &weight, EPS);
        let (dx, dw) = reference::backward_residual(&sum, &weight, EPS, &wide(&self.dy), &wide(&self.d_sum));
        [y, sum, dx.clone(), dx, dw]
    }
}

#[test]
fn norm_and_sum_with_a_residual_and_all_gradients_agree_with_f64() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let shape = [random.between(1, 500), random.between(1, 300)];
        let inputs = Residual::random(&mut random, shape);
        for set in [Fused, Reference] {
            let found = residual_step(set, &device, shape, &inputs);
            for (what, (out, exact)) in RESIDUAL_PARTS.iter().zip(found.iter().zip(inputs.exact())) {
                assert_close(what, out, &exact);
            }
        }
    }
}

const RESIDUAL_PARTS: [&str; 5] = ["y", "sum", "dx", "d_residual", "dw"];

#[test]
fn fusing_the_residual_changes_no_bit() {
    let mut random = Random::fresh();
    let (shape, device) = ([37, 129], &tracked_devices()[0]);
    let inputs = Residual::random(&mut random, shape);
    let apart = {
        let (x, residual) = (leaf(&inputs.x, shape, device), leaf(&inputs.residual, shape, device));
        let weight = leaf(&inputs.weight, [shape[1]], device);
        let sum = x.clone() + residual;
        let y = rms_norm(Fused, sum.clone(), weight.clone(), EPS);
        let by =
            |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &device.clone().inner());
        let gradients = ((y.clone() * by(&inputs.dy)).sum() + (sum * by(&inputs.d_sum)).sum()).backward();
        [values(y), gradient(&x, &gradients), gradient(&weight, &gradients)].map(|v| bits(&v))
    };
    let [y, _, dx, _, dw] = residual_step(Fused, device, shape, &inputs).map(|v| bits(&v));
    assert!([y, dx, dw] == apart);
}

#[test]
fn either_output_of_the_residual_norm_may_go_unused() {
    for device in &tracked_devices()[..1] {
        let leaves =
            || (leaf(&[1.0, 2.0], [1, 2], device), leaf(&[3.0, 4.0], [1, 2], device), leaf(&[1.0; 2], [2], device));
        let (x, residual, weight) = leaves();
        let (y, _) = rms_norm_residual(Fused, x.clone(), residual.clone(), weight.clone(), EPS);
        let (dx, dw) = reference::backward(&[4.0, 6.0], &[1.0; 2], EPS, &[1.0; 2]);
        let gradients = y.sum().backward();
        assert_close("dx", &gradient(&x, &gradients), &dx);
        assert_close("dw", &gradient(&weight, &gradients), &dw);
        let (x, residual, weight) = leaves();
        let (_, sum) = rms_norm_residual(Fused, x.clone(), residual.clone(), weight.clone(), EPS);
        let gradients = sum.sum().backward();
        assert_eq!(gradient(&x, &gradients), [1.0; 2]);
        assert_eq!(gradient(&residual, &gradients), [1.0; 2]);
        assert_eq!(gradient(&weight, &gradients), [0.0; 2]);
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::cube::testing::{assert_buffer, on_every_device, poison, random};
    use crate::cube::{Buffer, F32};

    /// Widths from a few elements to a row that no cube holds in its registers. Below, `dx` is what rounding leaves of nothing.
    fn widths(generator: &mut Random) -> [usize; 7] {
        [5, 64, 8 * generator.between(1, 130), generator.between(5, 1500), 4096, 12_288, 40_003]
    }

    #[test]
    fn forward_and_both_gradients_agree_with_f64_for_odd_sizes() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for width in widths(&mut generator) {
                let rows = generator.between(1, 40).min(60_000 / width).max(1);
                let (x, x_on) = random(&mut generator, client, rows * width, elem);
                let (w, w_on) = random(&mut generator, client, width, elem);
                let (dy, dy_on) = random(&mut generator, client, rows * width, elem);
                poison(client, rows * width, elem);
                let (y, rstd) = cube::forward(client, &x_on, &w_on, EPS as f32);
                let (dx, dw) = cube::backward(client, &x_on, &w_on, &rstd, &dy_on);
                let (exact_dx, exact_dw) = reference::backward(&x, &w, EPS, &dy);
                let what = format!("{rows}x{width}");
                assert_buffer(&format!("y {what}"), client, &y, &reference::forward(&x, &w, EPS), elem);
                assert_buffer(&format!("dx {what}"), client, &dx, &exact_dx, elem);
                assert_buffer(&format!("dw {what}"), client, &dw, &exact_dw, F32);
                assert_buffer(&format!("dy is kept {what}"), client, &dy_on, &dy, elem);
            }
        });
    }

    #[test]
    fn the_residual_is_added_on_the_way_and_gradients_meet_over_the_memory_of_one() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for width in widths(&mut generator) {
                let rows = generator.between(1, 40).min(60_000 / width).max(1);
                let [a, b, c, d] = [(); 4].map(|()| random(&mut generator, client, rows * width, elem));
                let ((x, x_on), (residual, residual_on), (dy, dy_on), (d_sum, d_sum_on)) = (a, b, c, d);
                let (w, w_on) = random(&mut generator, client, width, elem);
                poison(client, rows * width, elem);
                let normed = cube::forward_residual(client, &x_on, &residual_on, &w_on, EPS as f32);
                let (exact, sum) = reference::forward_residual(&x, &residual, &w, EPS);
                let what = format!("{rows}x{width}");
                assert_buffer(&format!("y {what}"), client, &normed.y, &exact, elem);
                assert_buffer(&format!("sum {what}"), client, &normed.sum, &sum, elem);
                // The backward is judged by the sum that it is given.
                let sum = wide(&normed.sum.read_f32(client).unwrap());
                let (exact_dx, exact_dw) = reference::backward_residual(&sum, &w, EPS, &dy, &d_sum);
                let (dx, dw) =
                    cube::backward_residual(client, &normed.sum, &w_on, &normed.rstd, dy_on, Some(&d_sum_on));
                assert_buffer(&format!("dx {what}"), client, &dx, &exact_dx, elem);
                assert_buffer(&format!("dw {what}"), client, &dw, &exact_dw, F32);
            }
        });
    }

    #[test]
    fn a_nan_spoils_its_row_and_the_weight_gradient_on_a_device_too() {
        on_every_device(|client, elem| {
            let mut x = vec![1.0; 3 * 48];
            x[60] = f32::NAN;
            let [x, w, dy] = [&x, &vec![1.0; 48], &vec![1.0; 3 * 48]].map(|v| Buffer::from_f32(client, v, elem));
            let (y, rstd) = cube::forward(client, &x, &w, EPS as f32);
            let (dx, dw) = cube::backward(client, &x, &w, &rstd, &dy);
            for out in [y, dx] {
                let out = out.read_f32(client).unwrap();
                assert!(out.chunks_exact(48).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 1))));
            }
            assert!(dw.read_f32(client).unwrap().iter().all(|v| v.is_nan()));
        });
    }

    #[test]
    fn the_operations_give_the_gradients_of_burn() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let inputs = Residual::random(&mut random, [13, 40]);
            let [fused, composed] = [Fused, Reference].map(|set| residual_step(set, &device, [13, 40], &inputs));
            for (what, (fused, composed)) in RESIDUAL_PARTS.iter().zip(fused.iter().zip(composed)) {
                assert_close(what, fused, &wide(&composed));
            }
            let run = |set| {
                let (tx, tw) = (leaf(&inputs.x, [13, 40], &device), leaf(&inputs.weight, [40], &device));
                let y = rms_norm(set, tx.clone(), tw.clone(), EPS);
                let gradients = backward_with(y.clone(), &inputs.dy);
                [values(y), gradient(&tx, &gradients), gradient(&tw, &gradients)]
            };
            for (fused, composed) in run(Fused).iter().zip(run(Reference)) {
                assert_close("fused against composed", fused, &wide(&composed));
            }
        }
    }
}
