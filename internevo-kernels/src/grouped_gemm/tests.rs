//! Grouped linear layers against f64 and burn, with skewed and empty groups.

use super::{Shape, cpu, grouped_linear, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

/// Offsets of `experts` groups: the second is empty, the last has more than half of the rows.
fn skewed(random: &mut Random, experts: usize, rows: usize) -> Vec<u32> {
    let mut offsets: Vec<u32> = (1..experts).map(|_| random.between(0, rows / 2) as u32).chain([0]).collect();
    offsets.sort_unstable();
    if experts > 2 {
        offsets[2] = offsets[1];
    }
    offsets.push(rows as u32);
    offsets
}

#[test]
fn forward_and_both_gradients_agree_with_f64_for_skewed_groups() {
    let mut random = Random::fresh();
    for (device, experts) in tracked_devices().iter().zip([1, 5]) {
        let shape = Shape { experts, d_in: random.between(1, 90), d_out: random.between(1, 300) };
        let rows = random.between(1, 900);
        let offsets = skewed(&mut random, experts, rows);
        let (x, w) = (random.values(rows * shape.d_in), random.values(shape.weight_len()));
        let dy = random.values(rows * shape.d_out);
        let exact = reference::forward(shape, &wide(&x), &wide(&w), &offsets);
        let (dx, dw) = reference::backward(shape, &wide(&x), &wide(&w), &offsets, &wide(&dy));
        println!("{shape:?} {offsets:?}");
        for set in [Fused, Reference] {
            let (tx, tw) = (leaf(&x, [rows, shape.d_in], device), leaf(&w, [experts, shape.d_out, shape.d_in], device));
            let y = grouped_linear(set, tx.clone(), tw.clone(), &offsets);
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
    let (shape, offsets) = (Shape { experts: 3, d_in: 4, d_out: 3 }, [0, 2, 2, 7]);
    let (x, w, dy) = (wide(&random.values(28)), wide(&random.values(36)), wide(&random.values(21)));
    let (dx, dw) = reference::backward(shape, &x, &w, &offsets, &dy);
    assert_gradient("dx", &mut random, &x, &dx, |x| dot(&reference::forward(shape, x, &w, &offsets), &dy));
    assert_gradient("dw", &mut random, &w, &dw, |w| dot(&reference::forward(shape, &x, w, &offsets), &dy));
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let (shape, offsets) = (Shape { experts: 4, d_in: 96, d_out: 200 }, [0, 700, 700, 731, 1500]);
    let (x, w, dy) = (random.values(1500 * 96), random.values(shape.weight_len()), random.values(1500 * 200));
    assert_deterministic("grouped_gemm", || {
        let mut out = cpu::forward(shape, &x, &w, &offsets);
        out.extend(cpu::backward_input(shape, &dy, &w, &offsets));
        out.extend(cpu::backward_weight(shape, &dy, &x, &offsets));
        out
    });
}

#[test]
fn a_nan_spoils_its_row_and_its_expert_alone() {
    let (shape, offsets) = (Shape { experts: 2, d_in: 3, d_out: 2 }, [0, 2, 4]);
    let (mut x, w) = ([1.0; 12], [1.0; 12]);
    x[4] = f32::NAN;
    let y = cpu::forward(shape, &x, &w, &offsets);
    assert!(y.chunks_exact(2).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 1))));
    let dw = cpu::backward_weight(shape, &[1.0; 8], &x, &offsets);
    assert!(dw[..6].iter().any(|v| v.is_nan()) && dw[6..].iter().all(|v| v.is_finite()));
}

#[test]
#[should_panic(expected = "offsets [0, 3, 2] for 2 rows of 2 experts")]
fn offsets_that_are_not_sorted_are_named() {
    grouped_linear(Fused, plain(&[0.0; 2], [2, 1]), plain(&[0.0; 2], [2, 1, 1]), &[0, 3, 2]);
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::cube::testing::{assert_buffer, clients, on_every_device, random};
    use crate::cube::{Buffer, F32};

    #[test]
    fn all_three_products_agree_with_f64_for_skewed_groups() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for (experts, d_in, d_out) in [(1, 1, 1), (4, 24, 72), (5, 33, 68), (3, generator.between(1, 90), 65)] {
                let shape = Shape { experts, d_in, d_out };
                let rows = generator.between(1, 200);
                let offsets = skewed(&mut generator, experts, rows);
                let offsets_on = Buffer::from_u32(client, &offsets);
                let (x, x_on) = random(&mut generator, client, rows * d_in, elem);
                let (w, w_on) = random(&mut generator, client, shape.weight_len(), elem);
                let (dy, dy_on) = random(&mut generator, client, rows * d_out, elem);
                let (dx, dw) = reference::backward(shape, &x, &w, &offsets, &dy);
                let what = format!("{shape:?} {offsets:?}");
                let y = cube::forward(client, shape, &x_on, &w_on, &offsets_on);
                assert_buffer(&format!("y {what}"), client, &y, &reference::forward(shape, &x, &w, &offsets), elem);
                let out = cube::backward_input(client, shape, &dy_on, &w_on, &offsets_on);
                assert_buffer(&format!("dx {what}"), client, &out, &dx, elem);
                let out = cube::backward_weight(client, shape, &dy_on, &x_on, &offsets_on);
                assert_buffer(&format!("dw {what}"), client, &out, &dw, F32);
            }
        });
    }

    #[test]
    fn a_nan_spoils_its_row_alone_and_a_second_run_gives_the_same_bits() {
        let mut generator = Random::fresh();
        for client in clients() {
            let (shape, offsets) = (Shape { experts: 2, d_in: 40, d_out: 30 }, Buffer::from_u32(&client, &[0, 50, 90]));
            let mut x = generator.values(90 * 40);
            x[70 * 40 + 3] = f32::NAN;
            let x = Buffer::from_f32(&client, &x, F32);
            let (_, w) = random(&mut generator, &client, shape.weight_len(), F32);
            let run = || cube::forward(&client, shape, &x, &w, &offsets).read_f32(&client).unwrap();
            let y = run();
            assert!(y.chunks_exact(30).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 70))));
            assert!(bits(&y) == bits(&run()));
        }
    }

    #[test]
    fn the_operation_gives_the_gradients_of_burn() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let offsets = [0, 9, 9, 30];
            let (x, w, dy) = (random.values(30 * 12), random.values(3 * 20 * 12), random.values(30 * 20));
            let run = |set| {
                let (tx, tw) = (leaf(&x, [30, 12], &device), leaf(&w, [3, 20, 12], &device));
                let y = grouped_linear(set, tx.clone(), tw.clone(), &offsets);
                let gradients = backward_with(y.clone(), &dy);
                [values(y), gradient(&tx, &gradients), gradient(&tw, &gradients)]
            };
            for (fused, composed) in run(Fused).into_iter().zip(run(Reference)) {
                assert_close("fused against composed", &fused, &wide(&composed));
            }
        }
    }
}
