//! Functions of two outputs. burn's tape knows steps of one output only, so a pair is three of them: one step of the inputs,
//! which holds the backward, and on it a branch for each output, which hands its gradient over.

use super::{Function, InputGradient};
use burn::backend::DispatchTensor;
use burn::tensor::Tensor;
use std::sync::{Arc, Mutex};

/// The gradients of the two outputs, as far as they have arrived.
type Arrived = Arc<Mutex<[Option<DispatchTensor>; 2]>>;

impl<const N: usize> Function<N> {
    /// [`Function::finish`] for a function of two outputs.
    ///
    /// `backward` runs once, after all that depends on either output, and gets a gradient for each output that has one: nothing
    /// is added up or filled with zeros for the other.
    ///
    /// ```
    /// use internevo_kernels::autograd::Function;
    /// use internevo_kernels::burn::tensor::{Device, Tensor};
    ///
    /// let x = Tensor::<1>::from_floats([3.0], &Device::flex().autodiff()).require_grad();
    /// let (function, [plain]) = Function::enter([x.clone().into()]);
    /// let plain = Tensor::<1>::from_dispatch(plain);
    /// let outputs = (plain.clone() * 2.0, plain * 5.0);
    /// let (double, _) = function.finish_pair(outputs, |double: Option<Tensor<1>>, quintuple: Option<Tensor<1>>, _| {
    ///     assert!(quintuple.is_none(), "nobody used it");
    ///     [double.map(|gradient| (gradient * 2.0).into_dispatch())]
    /// });
    /// let gradients = double.backward();
    /// assert_eq!(x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap(), [2.0]);
    /// ```
    pub fn finish_pair<const D: usize, const E: usize>(
        self,
        (first, second): (Tensor<D>, Tensor<E>),
        backward: impl FnOnce(Option<Tensor<D>>, Option<Tensor<E>>, [bool; N]) -> [InputGradient; N] + Send + 'static,
    ) -> (Tensor<D>, Tensor<E>) {
        let arrived = Arrived::default();
        let gradients = arrived.clone();
        let joint = self.finish(first.clone(), move |token: Tensor<D>, needed| {
            // It shares the memory of the gradient that came first, which the backward may want to write over.
            drop(token);
            let [first, second] =
                gradients.lock().expect("no branch panics under this lock").each_mut().map(Option::take);
            backward(first.map(Tensor::from_dispatch), second.map(Tensor::from_dispatch), needed)
        });
        (branch(&joint, first, 0, &arrived), branch(&joint, second, 1, &arrived))
    }
}

/// `output` as a step on `joint`. The tape runs `joint` if a gradient of any kind arrived there, so the branch that comes first
/// sends its own as a token, whose value nobody reads.
fn branch<const D: usize, const E: usize>(
    joint: &Tensor<D>,
    output: Tensor<E>,
    place: usize,
    arrived: &Arrived,
) -> Tensor<E> {
    let (function, _) = Function::enter([joint.clone().into()]);
    let arrived = arrived.clone();
    function.finish(output, move |gradient: Tensor<E>, [needed]| {
        let mut arrived = arrived.lock().expect("no branch panics under this lock");
        let first = arrived.iter().all(Option::is_none);
        arrived[place] = Some(gradient.clone().into_dispatch());
        [(needed && first).then(|| gradient.into_dispatch())]
    })
}

#[cfg(test)]
mod tests {
    use crate::autograd::Function;
    use crate::testing::{gradient, leaf, tracked_devices, values};
    use burn::tensor::Tensor;

    /// `(3x, x²)` and, for each gradient that arrives, its part of the derivative.
    fn triple_and_square(x: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
        let (function, [x]) = Function::enter([x.into()]);
        let x = Tensor::<2>::from_dispatch(x);
        let outputs = (x.clone() * 3.0, x.clone().square().flatten(0, 1));
        function.finish_pair(outputs, move |triple: Option<Tensor<2>>, square: Option<Tensor<1>>, [needed]| {
            let shape = x.dims();
            let square = square.map(|gradient| gradient.reshape(shape) * x * 2.0);
            let sum = [triple.map(|gradient| gradient * 3.0), square].into_iter().flatten().reduce(|a, b| a + b);
            [sum.filter(|_| needed).map(Tensor::into_dispatch)]
        })
    }

    #[test]
    fn each_output_alone_and_both_together_send_their_gradients() {
        for device in tracked_devices() {
            let gradient_of = |loss: fn(Tensor<2>, Tensor<1>) -> Tensor<1>| {
                let x = leaf(&[1.0, 2.0, -3.0, 0.5], [2, 2], &device);
                let (triple, square) = triple_and_square(x.clone() * 1.0);
                gradient(&x, &loss(triple, square).backward())
            };
            assert_eq!(gradient_of(|triple, _| triple.sum()), [3.0; 4]);
            assert_eq!(gradient_of(|_, square| square.sum()), [2.0, 4.0, -6.0, 1.0]);
            assert_eq!(gradient_of(|triple, square| triple.sum() + square.sum()), [5.0, 7.0, -3.0, 4.0]);
            // The first output again, after the second: as a residual stream does.
            let chained = |triple: Tensor<2>, square: Tensor<1>| (triple + square.reshape([2, 2])).sum();
            assert_eq!(gradient_of(chained), [5.0, 7.0, -3.0, 4.0]);
        }
    }

    #[test]
    fn an_output_used_twice_sends_the_sum_and_no_tape_means_no_backward() {
        let x = leaf(&[2.0], [1, 1], &tracked_devices()[0]);
        let (triple, _) = triple_and_square(x.clone());
        assert_eq!(gradient(&x, &(triple.clone().sum() + triple.sum() * 2.0).backward()), [9.0]);
        let (triple, square) = triple_and_square(x.without_autodiff());
        assert!(!triple.is_autodiff() && !square.is_autodiff());
        assert_eq!((values(triple), values(square)), (vec![6.0], vec![4.0]));
    }
}
