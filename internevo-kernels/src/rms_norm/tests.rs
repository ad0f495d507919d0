//! RMSNorm against f64 and burn.

use super::{cpu, reference, rms_norm};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

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

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::cube::F32;
    use crate::cube::testing::{assert_buffer, on_every_device, random};

    #[test]
    fn forward_and_both_gradients_agree_with_f64_for_odd_sizes() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for width in [5, 7, 64, 8 * generator.between(1, 130), generator.between(5, 1500)] {
                let rows = generator.between(1, 40);
                let (x, x_on) = random(&mut generator, client, rows * width, elem);
                let (w, w_on) = random(&mut generator, client, width, elem);
                let (dy, dy_on) = random(&mut generator, client, rows * width, elem);
                let (y, rstd) = cube::forward(client, &x_on, &w_on, EPS as f32);
                let (dx, dw) = cube::backward(client, &x_on, &w_on, &rstd, &dy_on);
                let (exact_dx, exact_dw) = reference::backward(&x, &w, EPS, &dy);
                let what = format!("{rows}x{width}");
                assert_buffer(&format!("y {what}"), client, &y, &reference::forward(&x, &w, EPS), elem);
                assert_buffer(&format!("dx {what}"), client, &dx, &exact_dx, elem);
                assert_buffer(&format!("dw {what}"), client, &dw, &exact_dw, F32);
            }
        });
    }

    #[test]
    fn the_operation_gives_the_gradients_of_burn() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let (x, w, dy) = (random.values(13 * 40), random.values(40), random.values(13 * 40));
            let run = |set| {
                let (tx, tw) = (leaf(&x, [13, 40], &device), leaf(&w, [40], &device));
                let y = rms_norm(set, tx.clone(), tw.clone(), EPS);
                let gradients = backward_with(y.clone(), &dy);
                [values(y), gradient(&tx, &gradients), gradient(&tw, &gradients)].map(|v| wide(&v))
            };
            for (fused, composed) in run(Fused).into_iter().zip(run(Reference)) {
                let fused: Vec<_> = fused.into_iter().map(|v| v as f32).collect();
                assert_close("fused against composed", &fused, &composed);
            }
        }
    }
}
