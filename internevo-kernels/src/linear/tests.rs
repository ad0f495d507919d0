//! The linear layer against f64, burn and itself.

use super::{Recall, Recalled, cpu::Shape, linear, linear_recalled, reference};
use crate::KernelSet::{Fused, Reference};
use crate::autograd::HostTensor;
use crate::testing::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// A recall of `values`, and how often it was called.
fn counted(values: &[f32], shape: [usize; 2]) -> (Recall, Arc<AtomicUsize>) {
    let (calls, values) = (Arc::new(AtomicUsize::new(0)), values.to_vec());
    let counter = calls.clone();
    let recall = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        HostTensor::from_vec(values.clone(), shape)
    };
    (Arc::new(recall), calls)
}

#[test]
fn recalled_operands_change_no_bit_and_are_asked_for_once() {
    let mut random = Random::fresh();
    for (device, set) in tracked_devices().iter().flat_map(|device| [(device, Fused), (device, Reference)]) {
        let shape = sizes(&mut random);
        let (x_shape, w_shape) = ([shape.tokens, shape.d_in], [shape.d_out, shape.d_in]);
        let (x, w) = (random.values(shape.tokens * shape.d_in), random.values(shape.d_out * shape.d_in));
        let dy = random.values(shape.tokens * shape.d_out);
        let run = |recalled: Recalled| {
            let (tx, tw) = (leaf(&x, x_shape, device), leaf(&w, w_shape, device));
            let y = linear_recalled(set, tx.clone(), tw.clone(), recalled);
            let gradients = backward_with(y.clone(), &dy);
            [values(y), gradient(&tx, &gradients), gradient(&tw, &gradients)].map(|values| bits(&values))
        };
        let (input, input_calls) = counted(&x, x_shape);
        let (weight, weight_calls) = counted(&w, w_shape);
        let both = run(Recalled { input: Some(input), weight: Some(weight) });
        assert!(both == run(Recalled::default()), "{set:?} {shape:?}");
        assert_eq!([input_calls, weight_calls].map(|calls| calls.load(Ordering::Relaxed)), [1, 1]);
    }
}

#[test]
fn a_recall_whose_gradient_nobody_needs_is_not_called() {
    let (x, w) = (leaf(&[1.0; 6], [2, 3], &tracked_devices()[0]), plain(&[2.0; 12], [4, 3]));
    let (input, calls) = counted(&[1.0; 6], [2, 3]);
    let y = linear_recalled(Fused, x.clone(), w, Recalled { input: Some(input), weight: None });
    assert_eq!(gradient(&x, &y.sum().backward()), [8.0; 6]);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// Whether the buffer of an operand (0: input, 1: weight) is free again after the forward, while the output lives.
fn freed(operand: usize, recalled: Recalled) -> bool {
    let shapes = [[2, 3], [4, 3]];
    let mut probe = HostTensor::from_vec(vec![1.0; shapes[operand].iter().product()], shapes[operand]);
    let constant = probe.clone().into_tensor();
    let other = leaf(&vec![1.0; shapes[1 - operand].iter().product()], shapes[1 - operand], &tracked_devices()[0]);
    let [x, weight] = if operand == 0 { [constant, other] } else { [other, constant] };
    let output = linear_recalled(Fused, x, weight, recalled);
    let address = probe.as_ptr();
    // Written in place if and only if nobody else holds the buffer.
    let unique = probe.make_mut().as_ptr() == address;
    drop(output);
    unique
}

#[test]
fn a_recalled_operand_is_freed_after_the_forward_and_a_saved_one_is_not() {
    let (input, weight) = (counted(&[1.0; 6], [2, 3]).0, counted(&[1.0; 12], [4, 3]).0);
    assert!(freed(0, Recalled { input: Some(input.clone()), weight: None }));
    assert!(freed(1, Recalled { input: None, weight: Some(weight.clone()) }));
    assert!(!freed(0, Recalled { input: None, weight: Some(weight) }));
    assert!(!freed(1, Recalled { input: Some(input), weight: None }));
}

#[test]
#[should_panic(expected = "linear: input is 2x3, weight 4x5")]
fn widths_that_differ_are_refused() {
    linear(Fused, plain(&[0.0; 6], [2, 3]), plain(&[0.0; 20], [4, 5]));
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::*;
    use burn::tensor::{DType, FloatDType, Tensor, TensorData};

    #[test]
    fn forward_and_both_gradients_agree_with_f64_on_a_device_and_operands_may_be_recalled() {
        let mut random = Random::fresh();
        for device in gpu_devices() {
            let shape = sizes(&mut random);
            let (x_shape, w_shape) = ([shape.tokens, shape.d_in], [shape.d_out, shape.d_in]);
            let (x, w) = (random.values(shape.tokens * shape.d_in), random.values(shape.d_out * shape.d_in));
            let dy = random.values(shape.tokens * shape.d_out);
            let (dx, dw) = reference::backward(shape, &wide(&x), &wide(&w), &wide(&dy));
            let recalled = Recalled { input: Some(counted(&x, x_shape).0), weight: Some(counted(&w, w_shape).0) };
            for recalled in [Recalled::default(), recalled] {
                let (tx, tw) = (leaf(&x, x_shape, &device), leaf(&w, w_shape, &device));
                let y = linear_recalled(Fused, tx.clone(), tw.clone(), recalled);
                assert_close("y", &values(y.clone()), &reference::forward(shape, &wide(&x), &wide(&w)));
                let gradients = backward_with(y, &dy);
                assert_close("dx", &gradient(&tx, &gradients), &dx);
                assert_close("dW", &gradient(&tw, &gradients), &dw);
            }
        }
    }

    #[test]
    fn the_gradient_of_an_f32_master_weight_is_f32_and_never_rounded_to_the_type_of_the_input() {
        let mut random = Random::fresh();
        let shape = Shape { tokens: 48, d_in: 40, d_out: 24 };
        for device in gpu_devices() {
            // What f16 holds exactly, so that f64 knows what the device multiplies.
            let half = |n: usize, random: &mut Random| -> Vec<f32> {
                random.values(n).into_iter().map(|v| (v * 64.0).round() / 64.0).collect()
            };
            let x = half(shape.tokens * shape.d_in, &mut random);
            let w = half(shape.d_out * shape.d_in, &mut random);
            let dy = half(shape.tokens * shape.d_out, &mut random);
            let data = TensorData::new(x.clone(), [shape.tokens, shape.d_in]);
            let tx = Tensor::<2>::from_data(data, &device).cast(FloatDType::F16);
            let tw = leaf(&w, [shape.d_out, shape.d_in], &device);
            let y = linear(Fused, tx, tw.clone());
            assert_eq!(y.dtype(), DType::F16);
            let weights = Tensor::<2>::from_data(TensorData::new(dy.clone(), y.dims()), &device.clone().inner());
            let gradients = (y * weights.cast(FloatDType::F16)).sum().backward();
            let dw = tw.grad(&gradients).unwrap();
            assert_eq!(dw.dtype(), DType::F32);
            let (_, exact) = reference::backward(shape, &wide(&x), &wide(&w), &wide(&dy));
            assert_close("dW", &values(dw), &exact);
        }
    }
}
