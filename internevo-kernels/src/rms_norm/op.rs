//! The burn operations of RMSNorm.

use super::cpu;
use crate::KernelSet;
use crate::autograd::{Function, HostTensor, InputGradient};
#[cfg(feature = "gpu")]
use crate::cube::{GpuTensor, cast};
use burn::tensor::Tensor;

/// RMSNorm of each row: `x` is `[T, h]`, `weight` `[h]`.
///
/// # Panics
/// If the widths differ.
pub fn rms_norm(set: KernelSet, x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let [tokens, width] = x.dims();
    assert_eq!(weight.dims(), [width], "rms_norm: input is {tokens}x{width}, weight {:?}", weight.dims());
    #[cfg(feature = "gpu")]
    if set.gpu_for(&x, &weight) {
        return on_gpu(x, weight, eps);
    }
    if !set.fused_for(&x, &weight) {
        let rms = (x.clone().square().mean_dim(1) + eps).sqrt();
        return x / rms * weight.unsqueeze();
    }
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (HostTensor::new(x), HostTensor::new(weight));
    let (y, rstd) = cpu::forward(&x, &weight, eps);
    let y = HostTensor::from_vec(y, [tokens, width]).into_tensor();
    let saved = function.tracked().contains(&true).then_some((x, weight, rstd));
    function.finish(y, move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let (x, weight, rstd) = saved.expect("kept because an input is tracked");
        let mut dy = HostTensor::new(dy.into_dispatch());
        let dw = cpu::backward(&x, &weight, &rstd, dy.make_mut());
        let dw = HostTensor::from_vec(dw, [width]);
        [x_needed.then(|| dy.into_dispatch()), weight_needed.then(|| dw.into_dispatch())]
    })
}

/// The residual stream and its norm in one pass: `(y, sum)` with `sum = x + residual` and `y = rms_norm(sum)`. `x` and
/// `residual` are `[T, h]`, `weight` is `[h]`. The sum takes the memory of `x` if nobody else holds it. The backward is one pass
/// as well, in which the gradients of both outputs meet.
///
/// # Panics
/// If the shapes differ.
pub fn rms_norm_residual(
    set: KernelSet,
    x: Tensor<2>,
    residual: Tensor<2>,
    weight: Tensor<1>,
    eps: f64,
) -> (Tensor<2>, Tensor<2>) {
    let [tokens, width] = x.dims();
    assert_eq!(residual.dims(), [tokens, width], "rms_norm_residual: shapes of input and residual");
    assert_eq!(weight.dims(), [width], "rms_norm_residual: input is {tokens}x{width}, weight {:?}", weight.dims());
    #[cfg(feature = "gpu")]
    if set.gpu_for(&x, &residual) && set.gpu_for(&x, &weight) {
        return residual_on_gpu(x, residual, weight, eps);
    }
    if !(set.fused_for(&x, &residual) && set.fused_for(&x, &weight)) {
        let sum = x + residual;
        return (rms_norm(set, sum.clone(), weight, eps), sum);
    }
    let (function, [x, residual, weight]) = Function::enter([x.into(), residual.into(), weight.into()]);
    let [mut sum, residual, weight] = [x, residual, weight].map(HostTensor::new);
    let (y, rstd) = cpu::forward_residual(sum.make_mut(), &residual, &weight, eps);
    let outputs = (HostTensor::from_vec(y, [tokens, width]).into_tensor(), sum.clone().into_tensor());
    let saved = function.tracked().contains(&true).then_some((sum, weight, rstd));
    function.finish_pair(outputs, move |dy: Option<Tensor<2>>, d_sum: Option<Tensor<2>>, needed| {
        let (sum, weight, rstd) = saved.expect("kept because an input is tracked");
        let Some(dy) = dy else { return passed_on(d_sum, weight.into_tensor(), needed) };
        let mut dy = HostTensor::new(dy.into_dispatch());
        let d_sum = d_sum.map(|d| HostTensor::new(d.into_dispatch()));
        let dw = cpu::backward_residual(&sum, &weight, &rstd, dy.make_mut(), d_sum.as_deref());
        addends(dy.into_tensor(), HostTensor::from_vec(dw, [width]).into_tensor(), needed)
    })
}

/// The gradients of `(x, residual, weight)`: the addends share one.
fn addends(dx: Tensor<2>, dw: Tensor<1>, [x, residual, weight]: [bool; 3]) -> [InputGradient; 3] {
    let dx = |needed: bool| needed.then(|| dx.clone().into_dispatch());
    [dx(x), dx(residual), weight.then(|| dw.into_dispatch())]
}

/// [`addends`] where the norm was not used: the gradient of the sum goes on.
fn passed_on(d_sum: Option<Tensor<2>>, weight: Tensor<1>, needed: [bool; 3]) -> [InputGradient; 3] {
    addends(d_sum.expect("one of the two outputs has a gradient"), weight.zeros_like(), needed)
}

#[cfg(feature = "gpu")]
fn on_gpu(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let (shape, width) = (x.dims(), weight.dims());
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (GpuTensor::new(x), GpuTensor::new(weight));
    let (y, rstd) = super::cube::forward(x.client(), &x.buffer(), &weight.buffer(), eps as f32);
    let y = x.with(y, shape).into_tensor();
    let saved = function.tracked().contains(&true).then_some((x, weight, rstd));
    function.finish(y, move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let (x, weight, rstd) = saved.expect("kept because an input is tracked");
        let dy = GpuTensor::new(dy.into_dispatch()).into_buffer();
        let (dx, dw) = super::cube::backward_residual(x.client(), &x.buffer(), &weight.buffer(), &rstd, dy, None);
        let dw = cast(x.client(), &dw, weight.buffer().elem);
        [x_needed.then(|| x.with(dx, shape).into_dispatch()), weight_needed.then(|| x.with(dw, width).into_dispatch())]
    })
}

#[cfg(feature = "gpu")]
fn residual_on_gpu(x: Tensor<2>, residual: Tensor<2>, weight: Tensor<1>, eps: f64) -> (Tensor<2>, Tensor<2>) {
    let (shape, width) = (x.dims(), weight.dims());
    let (function, [x, residual, weight]) = Function::enter([x.into(), residual.into(), weight.into()]);
    let [x, residual, weight] = [x, residual, weight].map(GpuTensor::new);
    let client = x.client().clone();
    let normed = super::cube::forward_residual(&client, &x.buffer(), &residual.buffer(), &weight.buffer(), eps as f32);
    let sum = x.with(normed.sum, shape);
    let outputs = (x.with(normed.y, shape).into_tensor(), sum.clone().into_tensor());
    let saved = function.tracked().contains(&true).then_some((sum, weight, normed.rstd));
    function.finish_pair(outputs, move |dy: Option<Tensor<2>>, d_sum: Option<Tensor<2>>, needed| {
        let (sum, weight, rstd) = saved.expect("kept because an input is tracked");
        let Some(dy) = dy else { return passed_on(d_sum, weight.into_tensor(), needed) };
        let dy = GpuTensor::new(dy.into_dispatch()).into_buffer();
        let d_sum = d_sum.map(|d| GpuTensor::new(d.into_dispatch()).into_buffer());
        let (scale, stream) = (weight.buffer(), sum.buffer());
        let (dx, dw) = super::cube::backward_residual(&client, &stream, &scale, &rstd, dy, d_sum.as_ref());
        let dw = cast(&client, &dw, scale.elem);
        addends(sum.with(dx, shape).into_tensor(), sum.with(dw, width).into_tensor(), needed)
    })
}
