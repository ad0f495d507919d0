//! The burn operation of the linear layer.

use super::cpu::{self, Shape};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::Tensor;

/// `y = x · Wᵀ`: `x` is `[T, d_in]`, `weight` `[d_out, d_in]`, the result `[T, d_out]`.
///
/// # Panics
/// If the inner dimensions differ.
pub fn linear(set: KernelSet, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([tokens, d_in], [d_out, w_in]) = (x.dims(), weight.dims());
    assert_eq!(d_in, w_in, "linear: input is {tokens}x{d_in}, weight {d_out}x{w_in}");
    if !set.fused_for(&x, &weight) {
        return x.matmul(weight.transpose());
    }
    let shape = Shape { tokens, d_in, d_out };
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (HostTensor::new(x), HostTensor::new(weight));
    let y = HostTensor::from_vec(cpu::forward(shape, &x, &weight), [tokens, d_out]);
    let [x_tracked, weight_tracked] = function.tracked();
    let (x, weight) = (weight_tracked.then_some(x), x_tracked.then_some(weight));
    function.finish(y.into_tensor(), move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let dy = HostTensor::new(dy.into_dispatch());
        let dx = x_needed.then(|| {
            let weight = weight.expect("kept because x is tracked");
            HostTensor::from_vec(cpu::backward_input(shape, &dy, &weight), [tokens, d_in]).into_dispatch()
        });
        let dw = weight_needed.then(|| {
            let x = x.expect("kept because the weight is tracked");
            HostTensor::from_vec(cpu::backward_weight(shape, &dy, &x), [d_out, d_in]).into_dispatch()
        });
        [dx, dw]
    })
}
