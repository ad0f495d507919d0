//! The burn operation of grouped linear layers.

use super::{Shape, cpu};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::Tensor;

/// `y[t] = x[t] · weight[e]ᵀ` where `offsets[e] <= t < offsets[e + 1]`: `x` is `[T, d_in]` with rows sorted by expert, `weight`
/// `[experts, d_out, d_in]`, the result `[T, d_out]`.
///
/// # Panics
/// If the inner dimensions differ, or `offsets` do not cut the rows into a group for each expert.
pub fn grouped_linear(set: KernelSet, x: Tensor<2>, weight: Tensor<3>, offsets: &[u32]) -> Tensor<2> {
    let ([tokens, d_in], [experts, d_out, w_in]) = (x.dims(), weight.dims());
    assert_eq!(d_in, w_in, "grouped_linear: input is {tokens}x{d_in}, weight {experts}x{d_out}x{w_in}");
    let shape = Shape { experts, d_in, d_out };
    shape.check(offsets, tokens);
    #[cfg(feature = "gpu")]
    if set.gpu_for(&x, &weight) {
        return on_gpu(x, weight, shape, offsets);
    }
    if !set.fused_for(&x, &weight) {
        return composed(x, weight, shape, offsets);
    }
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (HostTensor::new(x), HostTensor::new(weight));
    let y = HostTensor::from_vec(cpu::forward(shape, &x, &weight, offsets), [tokens, d_out]).into_tensor();
    let [x_tracked, weight_tracked] = function.tracked();
    let (x, weight) = (weight_tracked.then_some(x), x_tracked.then_some(weight));
    let offsets = offsets.to_vec();
    function.finish(y, move |dy: Tensor<2>, _| {
        let dy = HostTensor::new(dy.into_dispatch());
        let dx = weight.map(|weight| cpu::backward_input(shape, &dy, &weight, &offsets));
        let dw = x.map(|x| cpu::backward_weight(shape, &dy, &x, &offsets));
        [
            dx.map(|dx| HostTensor::from_vec(dx, [tokens, d_in]).into_dispatch()),
            dw.map(|dw| HostTensor::from_vec(dw, [experts, d_out, d_in]).into_dispatch()),
        ]
    })
}

#[cfg(feature = "gpu")]
fn on_gpu(x: Tensor<2>, weight: Tensor<3>, shape: Shape, offsets: &[u32]) -> Tensor<2> {
    use super::cube;
    use crate::cube::{Buffer, GpuTensor, cast};
    let (x_shape, weight_shape) = (x.dims(), weight.dims());
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let (x, weight) = (GpuTensor::new(x), GpuTensor::new(weight));
    let offsets = Buffer::from_u32(x.client(), offsets);
    let y = cube::forward(x.client(), shape, &x.buffer(), &weight.buffer(), &offsets);
    let y = x.with(y, [x_shape[0], shape.d_out]).into_tensor();
    let [x_tracked, weight_tracked] = function.tracked();
    let (x, weight) = (weight_tracked.then_some(x), x_tracked.then_some(weight));
    function.finish(y, move |dy: Tensor<2>, _| {
        let dy = GpuTensor::new(dy.into_dispatch());
        let client = dy.client();
        let dx = weight.map(|weight| cube::backward_input(client, shape, &dy.buffer(), &weight.buffer(), &offsets));
        let dw = x.map(|x| {
            let dw = cube::backward_weight(client, shape, &dy.buffer(), &x.buffer(), &offsets);
            cast(client, &dw, dy.buffer().elem)
        });
        [dx.map(|dx| dy.with(dx, x_shape).into_dispatch()), dw.map(|dw| dy.with(dw, weight_shape).into_dispatch())]
    })
}

/// One product a group.
fn composed(x: Tensor<2>, weight: Tensor<3>, shape: Shape, offsets: &[u32]) -> Tensor<2> {
    let groups = offsets.windows(2).enumerate().filter(|(_, pair)| pair[0] < pair[1]);
    let products = groups.map(|(expert, pair)| {
        let weight = weight.clone().narrow(0, expert, 1).reshape([shape.d_out, shape.d_in]);
        x.clone().narrow(0, pair[0] as usize, (pair[1] - pair[0]) as usize).matmul(weight.transpose())
    });
    let products: Vec<Tensor<2>> = products.collect();
    if products.is_empty() {
        return x
            .matmul(weight.reshape([shape.experts * shape.d_out, shape.d_in]).narrow(0, 0, shape.d_out).transpose());
    }
    Tensor::cat(products, 0)
}
