//! Activation recomputation (Chen et al., 2016) on the tape, and the delivery of weight gradients that goes with it. What is
//! recomputed, and where delivered gradients go, is the caller's business.

use super::{Function, HostTensor};
use burn::backend::GradientCheckpointingStrategy;
use burn::tensor::{Device, Tensor};

/// Whether the function given to [`recompute`] is run for its value or to be differentiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// For its value. What is recorded is lost, but lives, with all that it saved, until the next backward pass.
    Off,
    /// In the backward: the tape is wanted.
    On,
}

impl Recording {
    /// `tensor` as the function should use it: with its autodiff when recording, otherwise without, so that nothing is
    /// recorded.
    pub fn of<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Off => tensor.without_autodiff(),
            Self::On => tensor,
        }
    }
}

/// `f(x)`, keeping only `x` on the tape: the backward runs `f` again, this time recorded, and differentiates it.
///
/// `f` gets `x` without autodiff and [`Recording::Off`] in the forward, and a leaf with the autodiff of `x` and
/// [`Recording::On`] in the backward. It must give the same values both times. Tensors that it captures pass through
/// [`Recording::of`], so that the forward leaves no trace, and weights among them through [`deliver`]: the backward is one of
/// its own inside the outer one, so **a gradient that reaches a leaf of the outside in any other way is lost**, and a leaf
/// that the outer tape uses as well would lock the two backwards against each other.
///
/// The result is tracked even if `x` is not, since weights inside `f` may need gradients. If `x` has no autodiff at all,
/// nothing is recorded. Calls nest.
///
/// ```
/// use internevo_kernels::autograd::{deliver, recompute};
/// use internevo_kernels::burn::tensor::{Device, Tensor};
/// use internevo_kernels::{KernelSet, linear};
///
/// let device = Device::flex().autodiff();
/// let x = Tensor::<2>::ones([4, 3], &device).require_grad();
/// let weight = Tensor::<2>::ones([5, 3], &device).require_grad();
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let y = recompute(x.clone(), move |x, recording| {
///     let sender = sender.clone();
///     let weight = deliver(recording.of(weight.clone()), None, move |gradient| sender.send(gradient.len()).unwrap());
///     linear(KernelSet::Fused, x, weight)
/// });
/// let gradients = y.sum().backward();
/// assert_eq!(x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap(), [5.0; 12]);
/// assert_eq!(receiver.recv(), Ok(15));
/// ```
pub fn recompute(x: Tensor<2>, f: impl Fn(Tensor<2>, Recording) -> Tensor<2> + Send + 'static) -> Tensor<2> {
    let Some(strategy) = x.gradient_checkpointing_strategy() else {
        return f(x, Recording::Off).without_autodiff();
    };
    // What makes the result tracked when x is not.
    let anchor = on_tape(nothing::<1>(), strategy).require_grad();
    let (function, [x, _]) = Function::enter([x.into(), anchor.into()]);
    let x = Tensor::<2>::from_dispatch(x);
    let y = f(x.clone(), Recording::Off).without_autodiff();
    function.finish(y, move |dy: Tensor<2>, [x_needed, _]| {
        let x = on_tape(x, strategy);
        let x = if x_needed { x.require_grad() } else { x };
        let y = f(x.clone(), Recording::On);
        let dx = match y.is_autodiff() && y.is_tracked() {
            true => x.grad_remove(&mut seeded(y, dy).backward()),
            false => None,
        };
        let dx = dx.or_else(|| x_needed.then(|| x.without_autodiff().zeros_like()));
        [dx.map(Tensor::into_dispatch), Some(nothing::<1>().into_dispatch())]
    })
}

/// `weight`, whose gradient goes to `sink` instead of the leaf; shares the buffer.
///
/// The gradient is that of all uses of the result. `sink` runs on the thread of the backward pass, in an order that depends on
/// the graph alone: right after the operation that uses the result together with `beside`, the activation it is applied to;
/// without one, at the end of the backward pass (of the inner one, inside [`recompute`]). It does not run if `weight` is not
/// tracked or no gradient arrives. The tape meets a leaf of its own rather than `weight`, so tapes of several micro-batches
/// that use one weight stay apart, and `weight` is left without a gradient.
pub fn deliver<const D: usize>(
    weight: Tensor<D>,
    beside: Option<&Tensor<2>>,
    sink: impl FnOnce(HostTensor) + Send + 'static,
) -> Tensor<D> {
    let Some((function, plain)) = enter_beside(&weight, beside) else { return weight };
    function.finish(plain, |gradient: Tensor<D>, _| {
        sink(HostTensor::new(gradient.into_dispatch()));
        [Some(nothing::<D>().into_dispatch()), None]
    })
}

/// Begins a function of `weight` whose backward runs right after that of the operations on `beside`: burn's tape runs steps by
/// their depth in the graph, and `beside` is as deep as it gets before them. The tape meets a leaf of its own instead of
/// `weight`; the backward gives an empty tensor for the first input and nothing for the second.
///
/// Returns the function and the plain weight, or `None` if the weight is not tracked.
pub fn enter_beside<const D: usize>(
    weight: &Tensor<D>,
    beside: Option<&Tensor<2>>,
) -> Option<(Function<2>, Tensor<D>)> {
    let strategy = weight.gradient_checkpointing_strategy().filter(|_| weight.is_tracked())?;
    let leaf = on_tape(weight.clone().without_autodiff(), strategy).require_grad();
    let same_tape = |x: &&Tensor<2>| x.is_tracked() && x.gradient_checkpointing_strategy() == Some(strategy);
    let beside = beside.filter(same_tape).map_or_else(|| nothing::<2>().into(), |x| x.clone().into());
    let (function, [plain, _]) = Function::enter([leaf.into(), beside]);
    Some((function, Tensor::from_dispatch(plain)))
}

/// A tensor without elements and without autodiff: the gradient of a leaf whose gradient went elsewhere.
pub fn nothing<const D: usize>() -> Tensor<D> {
    Tensor::empty([0; D], &Device::flex())
}

/// A plain tensor as an untracked one with autodiff.
fn on_tape<const D: usize>(plain: Tensor<D>, strategy: GradientCheckpointingStrategy) -> Tensor<D> {
    plain.autodiff().with_gradient_checkpointing_strategy(strategy)
}

/// A scalar whose backward sends `gradient` into `y`.
fn seeded(y: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    let (function, _) = Function::enter([y.into()]);
    let zero = Tensor::zeros([1], &Device::flex());
    function.finish(zero, |_: Tensor<1>, _| [Some(gradient.into_dispatch())])
}

#[cfg(test)]
mod tests;
