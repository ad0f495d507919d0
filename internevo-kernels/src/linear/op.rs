//! The burn operation of the linear layer, with operands kept for the backward or asked for again.

use super::cpu::{self, Shape};
use crate::KernelSet;
use crate::autograd::{Function, Host, HostElement, HostTensor};
#[cfg(feature = "gpu")]
use crate::cube::GpuTensor;
use burn::tensor::{DType, Tensor, bf16};
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
/// The kernel takes f32 or, on both sides, bf16 (f32 sums, each result rounded once).
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
    let route = Route::of(set, &x, &weight);
    if route == Route::Composed && recalled.input.is_none() && recalled.weight.is_none() {
        let weight = weight.cast(x.dtype());
        return x.matmul(weight.transpose());
    }
    let shape = Shape { tokens, d_in, d_out };
    let (dtype, master) = (x.dtype(), weight.dtype());
    let (function, [x, weight]) = Function::enter([x.into(), weight.into()]);
    let plain = |tensor| match route {
        Route::F32 => HostTensor::new(tensor).into_tensor::<2>(),
        _ => Tensor::from_dispatch(tensor),
    };
    let (x, weight) = (plain(x), plain(weight).cast(dtype));
    let y = route.forward(shape, &x, &weight);
    let [x_tracked, weight_tracked] = function.tracked();
    let x = weight_tracked.then(|| operand(x, recalled.input));
    let weight = x_tracked.then(|| operand(weight, recalled.weight));
    function.finish(y, move |dy: Tensor<2>, [x_needed, weight_needed]| {
        let dx = x_needed.then(|| {
            let weight = weight.expect("made because x is tracked")();
            route.backward_input(shape, &dy, &weight)
        });
        let dw = weight_needed.then(|| {
            let x = x.expect("made because the weight is tracked")();
            route.backward_weight(shape, &dy, &x, master)
        });
        [dx.map(Tensor::into_dispatch), dw.map(Tensor::into_dispatch)]
    })
}

/// Who computes the products.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The kernel on f32.
    F32,
    /// The kernel on bf16.
    Bf16,
    /// burn on a cubecl device, with gradients of the weight's own type.
    #[cfg(feature = "gpu")]
    Device,
    /// burn.
    Composed,
}

impl Route {
    fn of(set: KernelSet, x: &Tensor<2>, weight: &Tensor<2>) -> Self {
        match set {
            _ if set.fused_for(x, weight) => Route::F32,
            KernelSet::Fused if Host::<bf16>::accepts(x) && Host::<bf16>::accepts(weight) => Route::Bf16,
            #[cfg(feature = "gpu")]
            KernelSet::Fused if GpuTensor::accepts(x) && GpuTensor::accepts(weight) => Route::Device,
            _ => Route::Composed,
        }
    }

    fn forward(self, shape: Shape, x: &Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
        let dims = [shape.tokens, shape.d_out];
        match self {
            Route::F32 => on_host::<f32>([x, weight], dims, |x, weight| cpu::forward(shape, x, weight)),
            Route::Bf16 => on_host::<bf16>([x, weight], dims, |x, weight| cpu::forward(shape, x, weight)),
            _ => x.clone().matmul(weight.clone().transpose()),
        }
    }

    fn backward_input(self, shape: Shape, dy: &Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
        let dims = [shape.tokens, shape.d_in];
        match self {
            Route::F32 => on_host::<f32>([dy, weight], dims, |dy, weight| cpu::backward_input(shape, dy, weight)),
            Route::Bf16 => on_host::<bf16>([dy, weight], dims, |dy, weight| cpu::backward_input(shape, dy, weight)),
            _ => dy.clone().matmul(weight.clone()),
        }
    }

    fn backward_weight(self, shape: Shape, dy: &Tensor<2>, x: &Tensor<2>, master: DType) -> Tensor<2> {
        let dims = [shape.d_out, shape.d_in];
        match self {
            Route::F32 => on_host::<f32>([dy, x], dims, |dy, x| cpu::backward_weight(shape, dy, x)),
            Route::Bf16 => on_host::<bf16>([dy, x], dims, |dy, x| cpu::backward_weight(shape, dy, x)),
            #[cfg(feature = "gpu")]
            Route::Device => crate::cube::product(dy.clone().transpose(), x.clone(), master),
            Route::Composed => dy.clone().transpose().matmul(x.clone()).cast(master),
        }
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

/// A product of plain tensors in host memory, of shape `dims`.
fn on_host<E: HostElement>(
    operands: [&Tensor<2>; 2],
    dims: [usize; 2],
    product: impl FnOnce(&[E], &[E]) -> Vec<E>,
) -> Tensor<2> {
    let [a, b] = operands.map(|tensor| Host::<E>::new(tensor.clone().into_dispatch()));
    Host::from_vec(product(&a, &b), dims).into_tensor()
}
