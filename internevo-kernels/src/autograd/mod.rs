//! One generic autograd function: any number of float inputs of any rank, one float output, a backward closure.
//!
//! Every fused kernel of this crate, and every collective with its own backward further up, is an instance of
//! [`Function`]. So are [`recompute`] and [`deliver`], which shape the tape itself. Nothing about a particular kernel lives here.

mod host;
mod pair;
mod recompute;

pub use host::{Host, HostElement, HostTensor};
pub use recompute::{Recording, deliver, enter_beside, nothing, recompute};

#[cfg(feature = "gpu")]
use burn::backend::Cube;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTensor, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor,
    DispatchTensorKind, Flex, GradientCheckpointingStrategy,
};
use burn::tensor::Tensor;
use std::sync::{Arc, Mutex};

/// Calls a function that is generic over backend and checkpointing strategy (and more) with those of a [`Tape`].
macro_rules! on_tape {
    ($tape:expr, $function:ident$(::<$more:ident>)?($($argument:expr),*)) => {
        match ($tape.backend, $tape.strategy) {
            (TapeBackend::Flex, GradientCheckpointingStrategy::Disabled) => {
                $function::<Flex, NoCheckpointing $(, $more)?>($($argument),*)
            }
            (TapeBackend::Flex, GradientCheckpointingStrategy::Balanced) => {
                $function::<Flex, BalancedCheckpointing $(, $more)?>($($argument),*)
            }
            #[cfg(feature = "gpu")]
            (TapeBackend::Cube, GradientCheckpointingStrategy::Disabled) => {
                $function::<Cube, NoCheckpointing $(, $more)?>($($argument),*)
            }
            #[cfg(feature = "gpu")]
            (TapeBackend::Cube, GradientCheckpointingStrategy::Balanced) => {
                $function::<Cube, BalancedCheckpointing $(, $more)?>($($argument),*)
            }
        }
    };
}

/// An input of a [`Function`]: a float tensor whose rank is forgotten.
pub struct Input {
    tensor: DispatchTensor,
    tracked: bool,
}

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(tensor: Tensor<D>) -> Self {
        let tracked = tensor.is_autodiff() && tensor.is_tracked();
        Self { tensor: tensor.into_dispatch(), tracked }
    }
}

/// What a backward returns for one input: its gradient without autodiff, or `None` where none was asked for. `None` for an
/// input that needs one adds nothing: some other use of that input must give it a gradient.
pub type InputGradient = Option<DispatchTensor>;

/// The erased backward: gradient of the output, and which inputs need one.
type ErasedBackward<const N: usize> = Box<dyn FnOnce(DispatchTensor, [bool; N]) -> [InputGradient; N] + Send>;

/// A function being recorded on the tape: made by [`Function::enter`], ended by [`Function::finish`].
///
/// It works on tensors of the Flex backend and, with a GPU feature, of cubecl devices: with autodiff (either checkpointing strategy; the function itself is never recomputed), on
/// plain tensors (nothing is recorded), and on a mixture (plain tensors are constants). One output only: pack several
/// into one tensor. First order only, like burn's own tape.
///
/// ```
/// use internevo_kernels::autograd::Function;
/// use internevo_kernels::burn::tensor::{Device, Tensor};
///
/// fn double(x: Tensor<1>) -> Tensor<1> {
///     let (function, [x]) = Function::enter([x.into()]);
///     let y = Tensor::<1>::from_dispatch(x) * 2.0;
///     function.finish(y, |grad: Tensor<1>, [needed]| [needed.then(|| (grad * 2.0).into_dispatch())])
/// }
/// let x = Tensor::<1>::from_floats([1.0, 3.0], &Device::flex().autodiff()).require_grad();
/// let gradients = double(x.clone()).sum().backward();
/// assert_eq!(x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap(), [2.0, 2.0]);
/// ```
#[must_use = "a function that is not finished leaves no trace on the tape"]
pub struct Function<const N: usize> {
    tape: Option<Tape>,
    guards: Vec<NodeGuard>,
    tracked: [bool; N],
}

impl<const N: usize> Function<N> {
    /// Takes the inputs off the tape: returns the function and the inputs without autodiff, in the same order.
    ///
    /// The inputs are moved, so a buffer that nobody else holds can be reused by the forward.
    ///
    /// # Panics
    /// If an autodiff input lives on a backend that is not served, or two carry different checkpointing strategies.
    pub fn enter(inputs: [Input; N]) -> (Self, [DispatchTensor; N]) {
        let tracked = inputs.each_ref().map(|input| input.tracked);
        let tape = inputs.iter().find_map(|input| Tape::of(&input.tensor));
        let mut guards = Vec::with_capacity(N);
        let plain = inputs.map(|input| match tape {
            None => input.tensor,
            Some(tape) => on_tape!(tape, split(input.tensor, &mut guards)),
        });
        (Self { tape, guards, tracked }, plain)
    }

    /// Which inputs take part in a recorded graph. All false: the backward will never run, so save nothing for it.
    pub fn tracked(&self) -> [bool; N] {
        self.tracked
    }

    /// Attaches `output` (without autodiff) to the tape of the inputs.
    ///
    /// `backward` receives the gradient of the output, without autodiff and owned, and flags saying which inputs need
    /// a gradient. It is called at most once, on the thread that runs the backward pass.
    pub fn finish<const D: usize>(
        self,
        output: Tensor<D>,
        backward: impl FnOnce(Tensor<D>, [bool; N]) -> [InputGradient; N] + Send + 'static,
    ) -> Tensor<D> {
        let Some(tape) = self.tape else { return output };
        let erased: ErasedBackward<N> =
            Box::new(move |gradient, needed| backward(Tensor::from_dispatch(gradient), needed));
        let output = output.into_dispatch();
        Tensor::from_dispatch(on_tape!(tape, record::<N>(self.guards, output, erased)))
    }
}

/// Whose tape a function is recorded on.
#[derive(Clone, Copy, Debug)]
struct Tape {
    backend: TapeBackend,
    strategy: GradientCheckpointingStrategy,
}

#[derive(Clone, Copy, Debug)]
enum TapeBackend {
    Flex,
    #[cfg(feature = "gpu")]
    Cube,
}

impl Tape {
    /// The tape of a tensor with autodiff.
    fn of(tensor: &DispatchTensor) -> Option<Self> {
        let DispatchAutodiffContext::Enabled(strategy) = tensor.autodiff else { return None };
        let kind = match &tensor.kind {
            DispatchTensorKind::Autodiff(inner) => inner,
            kind => kind,
        };
        let backend = match kind {
            #[cfg(feature = "gpu")]
            DispatchTensorKind::Cube(_) => TapeBackend::Cube,
            // What is not Flex either is refused, by name, where the tensor is taken apart.
            _ => TapeBackend::Flex,
        };
        Some(Self { backend, strategy })
    }
}

/// Separates an input into its node on the tape and its plain primitive. A plain input becomes a constant node.
fn split<B: Backend, C: CheckpointStrategy>(tensor: DispatchTensor, guards: &mut Vec<NodeGuard>) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let tracked = match tensor.autodiff {
        DispatchAutodiffContext::Enabled(_) => {
            <DispatchTensor as DispatchKindConversion<Autodiff<B, C>>>::try_into_backend(tensor)
                .unwrap_or_else(|error| panic!("autograd function: {error}"))
                .float()
        }
        DispatchAutodiffContext::Disabled => {
            <Autodiff<B, C> as AutodiffBackend>::from_inner(into_primitive::<B>(tensor))
        }
    };
    let (primitive, guard) = tracked.into_parts();
    guards.push(guard);
    <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(primitive))
}

fn into_primitive<B: Backend>(tensor: DispatchTensor) -> B::FloatTensorPrimitive
where
    DispatchTensor: DispatchKindConversion<B>,
{
    <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor)
        .unwrap_or_else(|error| panic!("autograd function: {error}"))
        .float()
}

fn record<B: Backend, C: CheckpointStrategy, const N: usize>(
    guards: Vec<NodeGuard>,
    output: DispatchTensor,
    backward: ErasedBackward<N>,
) -> DispatchTensor
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let guards: [NodeGuard; N] = guards.try_into().expect("enter pushed one guard per input");
    let output = into_primitive::<B>(output);
    let output = match Backward::<B, N>::prepare::<C>(Step, guards).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(StepState(Arc::new(Mutex::new(Some(backward)))), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    <DispatchTensor as DispatchKindConversion<Autodiff<B, C>>>::from_backend(BackendTensor::Float(output))
}

/// The node type that burn's tape sees; the state carries the closure.
#[derive(Debug)]
struct Step;

/// burn asks for `Clone`; the tape runs a step once, so all clones share the one closure.
#[derive(Clone)]
struct StepState<const N: usize>(Arc<Mutex<Option<ErasedBackward<N>>>>);

impl<const N: usize> std::fmt::Debug for StepState<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("internevo_kernels::autograd::Function")
    }
}

impl<B: Backend, const N: usize> Backward<B, N> for Step
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = StepState<N>;

    fn backward(self, ops: Ops<StepState<N>, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let gradient = <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(gradient));
        let closure = ops.state.0.lock().expect("no closure runs under this lock").take();
        let closure = closure.expect("the tape is consumed by its one backward pass");
        let parents: [Option<NodeId>; N] = ops.parents.map(|parent| parent.map(|node| node.id));
        let outputs = closure(gradient, parents.each_ref().map(Option::is_some));
        for (parent, output) in parents.into_iter().zip(outputs) {
            if let (Some(parent), Some(output)) = (parent, output) {
                gradients.register::<B>(parent, into_primitive::<B>(output));
            }
        }
    }
}

#[cfg(test)]
mod tests;
