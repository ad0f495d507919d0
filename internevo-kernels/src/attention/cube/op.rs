//! The burn operations of attention on a cubecl device. Shapes are checked by the callers in `attention/op.rs`.

use super::{Attention, DeviceHeads, Outcome, backward, forward};
use crate::attention::{AttentionMask, QkvLayout, Segments};
use crate::autograd::Function;
use crate::cube::{Buffer, GpuTensor};
use burn::tensor::Tensor;

/// Attention of an interleaved `qkv`, `[T, (H + 2K) · D]`: `[T, H · D]`.
pub(in crate::attention) fn interleaved(
    qkv: Tensor<2>,
    layout: QkvLayout,
    segments: Segments,
    mask: AttentionMask,
) -> Tensor<2> {
    let shape = qkv.dims();
    let (function, [qkv]) = Function::enter([qkv.into()]);
    let qkv = GpuTensor::new(qkv);
    let buffer = qkv.buffer();
    let operands = layout.interleaved().map(|heads| heads.on(&buffer));
    let (output, lse) = forward(qkv.client(), &operands, &Attention::new(layout, &segments, mask));
    let output = qkv.with(output, [shape[0], layout.output_width()]);
    let saved = function.tracked()[0].then(|| (qkv.clone(), output.clone(), lse));
    function.finish(output.into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let (qkv, output, lse) = saved.expect("kept because the input is tracked");
            let (qkv_buffer, output) = (qkv.buffer(), output.buffer());
            let d_output = GpuTensor::new(dy.into_dispatch()).buffer();
            let gradient = Buffer::empty(qkv.client(), qkv_buffer.len, qkv_buffer.elem);
            let outcome = Outcome { output: &output, lse: &lse, d_output: &d_output, d_lse: None };
            let [operands, gradients] = [&qkv_buffer, &gradient].map(|b| layout.interleaved().map(|heads| heads.on(b)));
            backward(qkv.client(), &operands, &outcome, &Attention::new(layout, &segments, mask), &gradients);
            qkv.with(gradient, shape).into_dispatch()
        })]
    })
}

/// Attention of `q` `[T_q, H, D]` over `k` and `v` `[T_k, K, D]`: the output, and the log-sum-exp `[T_q, H]`, f32. Both may be
/// differentiated.
pub(in crate::attention) fn separate(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    layout: QkvLayout,
    segments: Segments,
    mask: AttentionMask,
) -> (Tensor<3>, Tensor<2>) {
    let shapes = [q.dims(), k.dims(), v.dims()];
    let (function, inputs) = Function::enter([q.into(), k.into(), v.into()]);
    let inputs = inputs.map(GpuTensor::new);
    let buffers = inputs.each_ref().map(GpuTensor::buffer);
    let like = inputs[0].clone();
    let (output, lse) = forward(like.client(), &views(layout, &buffers), &Attention::new(layout, &segments, mask));
    let statistics = like.with(lse.clone(), [segments.queries(), layout.heads()]).into_tensor();
    let output = like.with(output, shapes[0]);
    let saved = function.tracked().contains(&true).then(|| (inputs, output.clone(), lse));
    let outputs = (output.into_tensor(), statistics);
    function.finish_pair(outputs, move |dy: Option<Tensor<3>>, d_lse: Option<Tensor<2>>, needed| {
        let (inputs, output, lse) = saved.expect("kept because an input is tracked");
        let dy = dy.unwrap_or_else(|| output.clone().into_tensor().zeros_like());
        let client = inputs[0].client();
        let buffers = inputs.each_ref().map(GpuTensor::buffer);
        let gradients = buffers.each_ref().map(|like| Buffer::empty(client, like.len, like.elem));
        let (output, d_output) = (output.buffer(), GpuTensor::new(dy.into_dispatch()).buffer());
        let d_lse = d_lse.map(|gradient| GpuTensor::new(gradient.into_dispatch()).buffer());
        let outcome = Outcome { output: &output, lse: &lse, d_output: &d_output, d_lse: d_lse.as_ref() };
        let attention = Attention::new(layout, &segments, mask);
        backward(client, &views(layout, &buffers), &outcome, &attention, &views(layout, &gradients));
        let mut gradients = gradients.into_iter().zip(shapes).zip(needed);
        std::array::from_fn(|i| {
            let ((gradient, shape), needed) = gradients.next().expect("one of three");
            needed.then(|| inputs[i].with(gradient, shape).into_dispatch())
        })
    })
}

fn views(layout: QkvLayout, buffers: &[Buffer; 3]) -> DeviceHeads<'_> {
    let places = layout.separate();
    std::array::from_fn(|i| places[i].on(&buffers[i]))
}
