//! The burn operation of SwiGLU.

use super::cpu;
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::{Tensor, activation::silu};

/// `silu(gate) · up`, element by element; both are `[T, ffn]`.
///
/// # Panics
/// If the shapes differ.
pub fn swiglu(set: KernelSet, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let shape = gate.dims();
    assert_eq!(shape, up.dims(), "swiglu: shapes of gate and up");
    #[cfg(feature = "gpu")]
    if set.gpu_for(&gate, &up) {
        return on_gpu(gate, up);
    }
    if !set.fused_for(&gate, &up) {
        return silu(gate) * up;
    }
    let (function, [gate, up]) = Function::enter([gate.into(), up.into()]);
    let (gate, up) = (HostTensor::new(gate), HostTensor::new(up));
    let y = HostTensor::from_vec(cpu::forward(&gate, &up), shape).into_tensor();
    let saved = function.tracked().contains(&true).then_some((gate, up));
    function.finish(y, move |dy: Tensor<2>, [gate_needed, up_needed]| {
        let (gate, up) = saved.expect("kept because an input is tracked");
        let mut dy = HostTensor::new(dy.into_dispatch());
        let d_up = HostTensor::from_vec(cpu::backward(&gate, &up, dy.make_mut()), shape);
        [gate_needed.then(|| dy.into_dispatch()), up_needed.then(|| d_up.into_dispatch())]
    })
}

#[cfg(feature = "gpu")]
fn on_gpu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    use crate::cube::GpuTensor;
    let shape = gate.dims();
    let (function, [gate, up]) = Function::enter([gate.into(), up.into()]);
    let (gate, up) = (GpuTensor::new(gate), GpuTensor::new(up));
    let y = super::cube::forward(gate.client(), &gate.buffer(), &up.buffer());
    let y = gate.with(y, shape).into_tensor();
    let saved = function.tracked().contains(&true).then_some((gate, up));
    function.finish(y, move |dy: Tensor<2>, [gate_needed, up_needed]| {
        let (gate, up) = saved.expect("kept because an input is tracked");
        let dy = GpuTensor::new(dy.into_dispatch()).into_buffer();
        let (d_gate, d_up) = super::cube::backward(gate.client(), &gate.buffer(), &up.buffer(), dy);
        let gradient = |needed: bool, buffer| needed.then(|| gate.with(buffer, shape).into_dispatch());
        [gradient(gate_needed, d_gate), gradient(up_needed, d_up)]
    })
}
