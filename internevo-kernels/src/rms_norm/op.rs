//! The burn operation of RMSNorm.

use super::cpu;
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
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

#[cfg(feature = "gpu")]
fn on_gpu(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    use crate::cube::{GpuTensor, cast};
    let (shape, width) = (x.dims(), weight.dims());
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (GpuTensor::new(x), GpuTensor::new(weight));
    let (y, rstd) = super::cube::forward(x.client(), &x.buffer(), &weight.buffer(), eps as f32);
    let y = x.with(y, shape).into_tensor();
    let saved = function.tracked().contains(&true).then_some((x, weight, rstd));
    function.finish(y, move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let (x, weight, rstd) = saved.expect("kept because an input is tracked");
        let dy = GpuTensor::new(dy.into_dispatch());
        let (dx, dw) = super::cube::backward(x.client(), &x.buffer(), &weight.buffer(), &rstd, &dy.buffer());
        let dw = cast(x.client(), &dw, weight.buffer().elem);
        [x_needed.then(|| x.with(dx, shape).into_dispatch()), weight_needed.then(|| x.with(dw, width).into_dispatch())]
    })
}
