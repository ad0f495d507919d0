//! The burn operation of the fused head.

use super::cpu::{self, Wanted};
use crate::autograd::{Function, HostTensor};
use crate::cross_entropy::cpu::Options;
use crate::cross_entropy::op::{assemble, loss_tensor, scaled};
use crate::{CrossEntropy, KernelSet, cross_entropy, linear};
use burn::tensor::Tensor;

/// `cross_entropy(linear(hidden, weight), labels, ...)` without the full logits: `hidden` is `[T, h]`, `weight` `[V, h]`.
///
/// When an input is tracked, its gradient is made here, chunk by chunk; at most [`cpu::chunk_rows`] rows of logits exist.
///
/// # Panics
/// If the widths differ or a label is outside the vocabulary; the message names its position.
pub fn linear_cross_entropy(
    set: KernelSet,
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[i32],
    label_smoothing: f64,
    scale: f64,
) -> CrossEntropy {
    let ([tokens, width], [vocab, w_width]) = (hidden.dims(), weight.dims());
    assert_eq!(width, w_width, "linear_cross_entropy: hidden is {tokens}x{width}, weight {vocab}x{w_width}");
    if !set.fused_for(&hidden, &weight) {
        return cross_entropy(set, linear(set, hidden, weight), labels, label_smoothing, scale);
    }
    let (function, [hidden, weight]) = Function::enter([hidden.into(), weight.into()]);
    let (hidden, weight) = (HostTensor::new(hidden), HostTensor::new(weight));
    let [hidden_tracked, weight_tracked] = function.tracked();
    let wanted = Wanted { hidden: hidden_tracked, weight: weight_tracked };
    let outcome = cpu::forward(&hidden, &weight, width, labels, Options { label_smoothing, scale }, wanted);
    let d_hidden = outcome.d_hidden.map(|gradient| HostTensor::from_vec(gradient, [tokens, width]));
    let d_weight = outcome.d_weight.map(|gradient| HostTensor::from_vec(gradient, [vocab, width]));
    let loss = function.finish(loss_tensor(outcome.totals, scale), move |upstream: Tensor<1>, needed| {
        let give = |needed: bool, gradient: Option<HostTensor>| {
            needed.then(|| scaled(gradient.expect("made because the input is tracked"), &upstream).into_dispatch())
        };
        [give(needed[0], d_hidden), give(needed[1], d_weight)]
    });
    assemble(loss, outcome.totals)
}
