//! The burn operation of the linear layer, with operands kept for the backward or asked for again.

use super::cpu::{self, Shape};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::Tensor;
use std::sync::Arc;

/// Gives an operand of the forward again, in the backward: gathers it from the ranks that share it, say.
///
/// Must return the values of the forward, row-major, in the operand's shape. Runs on the thread of the backward pass.
pub type Recall = Arc<dyn Fn() -> HostTensor + Send + Sync>;

/// Which operands of [`linear_recalled`] the tape does not keep, and how the backward gets them instead.
#[derive(Clone, Default)]
pub struct Recalled {
    /// For the input `[T, d_in]`; called if the weight needs a gradient.
    pub input: Option<Recall>,
    /// For the weight `[d_out, d_in]`; called if the input needs a gradient.
    pub weight: Option<Recall>,
}

/// `y = x · Wᵀ`: `x` is `[T, d_in]`, `weight` `[d_out, d_in]`, the result `[T, d_out]`.
///
/// On a cubecl device this is burn's matrix product (cubek), on tensor cores where the device has them. There `x` may be f16 or
/// bf16 beside an f32 master `weight`: the product is that of the rounded weight, and the weight's gradient comes in f32, never
/// rounded to the type of `x`.
///
/// # Panics
/// If the inner dimensions differ.
pub fn linear(set: KernelSet, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    linear_recalled(set, x, weight, Recalled::default())
}

/// [`linear`] that forgets the operands named in `recalled` after the forward: same result, same gradients.
///
/// The backward calls each closure at most once, the weight's before the input's, and drops what it gave right after the
/// product. That is moved to the operand's device and cast to its float type where it has another.
///
/// # Panics
/// If the inner dimensions differ, or, in the backward, if a closure gives a tensor of another size.
pub fn linear_recalled(set: KernelSet, x: Tensor<2>, weight: Tensor<2>, recalled: Recalled) -> Tensor<2> {
    let ([tokens, d_in], [d_out, w_in]) = (x.dims(), weight.dims());
    assert_eq!(d_in, w_in, "linear: input is {tokens}x{d_in}, weight {d_out}x{w_in}");
    let engine = Engine::of(set, &x, &weight);
    if engine == Engine::Burn && recalled.input.is_none() && recalled.weight.is_none() {
        let weight = weight.cast(x.dtype());
        return x.matmul(weight.transpose());
    }
    let shape = Shape { tokens, d_in, d_out };
    let (dtype, master) = (x.dtype(), weight.dtype());
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let plain = |tensor| match engine {
        Engine::Host => HostTensor::new(tensor).into_tensor::<2>(),
        _ => Tensor::from_dispatch(tensor),
    };
    let (x, weight) = (plain(x), plain(weight));
    let weight = weight.cast(dtype);
    let y = match engine {
        Engine::Host => from_host(cpu::forward(shape, &host(&x), &host(&weight)), [tokens, d_out]),
        _ => x.clone().matmul(weight.clone().transpose()),
    };
    let [x_tracked, weight_tracked] = function.tracked();
    let x = weight_tracked.then(|| operand(x, recalled.input));
    let weight = x_tracked.then(|| operand(weight, recalled.weight));
    function.finish(y, move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let dx = x_needed.then(|| {
            let weight = weight.expect("made because x is tracked")();
            match engine {
                Engine::Host => from_host(cpu::backward_input(shape, &host(&dy), &host(&weight)), [tokens, d_in]),
                _ => dy.clone().matmul(weight),
            }
        });
        let dw = weight_needed.then(|| {
            let x = x.expect("made because the weight is tracked")();
            match engine {
                Engine::Host => from_host(cpu::backward_weight(shape, &host(&dy), &host(&x)), [d_out, d_in]),
                #[cfg(feature = "gpu")]
                Engine::Device => crate::cube::product(dy.transpose(), x, master),
                _ => dy.transpose().matmul(x).cast(master),
            }
        });
        [dx.map(Tensor::into_dispatch), dw.map(Tensor::into_dispatch)]
    })
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// The kernels of this crate, on slices.
    Host,
    /// burn's matrix product on a cubecl device, with gradients of the weight's own type.
    #[cfg(feature = "gpu")]
    Device,
    /// burn operations.
    Burn,
}

impl Engine {
    fn of(set: KernelSet, x: &Tensor<2>, weight: &Tensor<2>) -> Self {
        if set.fused_for(x, weight) {
            return Self::Host;
        }
        #[cfg(feature = "gpu")]
        if set == KernelSet::Fused && crate::cube::GpuTensor::accepts(x) && crate::cube::GpuTensor::accepts(weight) {
            return Self::Device;
        }
        Self::Burn
    }
}

/// How the backward gets an operand: saved here, or asked for again.
fn operand(tensor: Tensor<2>, recall: Option<Recall>) -> Box<dyn FnOnce() -> Tensor<2> + Send> {
    let Some(recall) = recall else { return Box::new(|| tensor) };
    let (shape, dtype, device) = (tensor.dims(), tensor.dtype(), tensor.device());
    Box::new(move || {
        let host = recall();
        assert_eq!(host.len(), shape[0] * shape[1], "linear: elements of a recalled operand {shape:?}");
        host.into_tensor::<2>().reshape(shape).to_device(&device).cast(dtype)
    })
}

fn host(tensor: &Tensor<2>) -> HostTensor {
    HostTensor::new(tensor.clone().into_dispatch())
}

fn from_host(data: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    HostTensor::from_vec(data, shape).into_tensor()
}
