//! The linear layer against f64, burn and itself.

use super::{cpu::Shape, linear, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

fn sizes(random: &mut Random) -> Shape {
    Shape { tokens: random.between(1, 90), d_in: random.between(1, 130), d_out: random.between(1, 110) }
}

#[test]
fn forward_and_both_gradients_agree_with_f64_for_odd_sizes() {
    let mut random = Random::fresh();
    for device in tracked_devices() {
        let shape = sizes(&mut random);
        let (x, w) = (random.values(shape.tokens * shape.d_in), random.values(shape.d_out * shape.d_in));
        let dy = random.values(shape.tokens * shape.d_out);
        let exact = reference::forward(shape, &wide(&x), &wide(&w));
        let (dx, dw) = reference::backward(shape, &wide(&x), &wide(&w), &wide(&dy));
        for set in [Fused, Reference] {
            let (tx, tw) =
                (leaf(&x, [shape.tokens, shape.d_in], &device), leaf(&w, [shape.d_out, shape.d_in], &device));
            let y = linear(set, tx.clone(), tw.clone());
            assert_close("y", &values(y.clone()), &exact);
            let gradients = backward_with(y, &dy);
            assert_close("dx", &gradient(&tx, &gradients), &dx);
            assert_close("dW", &gradient(&tw, &gradients), &dw);
        }
    }
}

#[test]
fn the_reference_gradients_are_derivatives() {
    let mut random = Random::fresh();
    let shape = Shape { tokens: 3, d_in: 5, d_out: 4 };
    let (x, w, dy) = (wide(&random.values(15)), wide(&random.values(20)), wide(&random.values(12)));
    let (dx, dw) = reference::backward(shape, &x, &w, &dy);
    assert_gradient("dx", &mut random, &x, &dx, |x| dot(&reference::forward(shape, x, &w), &dy));
    assert_gradient("dW", &mut random, &w, &dw, |w| dot(&reference::forward(shape, &x, w), &dy));
}

#[test]
fn a_nan_in_the_input_reaches_its_row_and_no_other() {
    let mut x = vec![1.0; 40 * 17];
    x[5 * 17 + 3] = f32::NAN;
    let y = values(linear(Fused, plain(&x, [40, 17]), plain(&[0.5; 17 * 33], [33, 17])));
    assert!(y.chunks_exact(33).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 5))));
}

#[test]
#[should_panic(expected = "linear: input is 2x3, weight 4x5")]
fn widths_that_differ_are_refused() {
    linear(Fused, plain(&[0.0; 6], [2, 3]), plain(&[0.0; 20], [4, 5]));
}
