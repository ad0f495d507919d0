//! The burn operation of the fused head.

use super::cpu::{self, Outcome, Reduction, Wanted};
use crate::autograd::{Function, HostTensor};
use crate::cross_entropy::cpu::Options;
use crate::cross_entropy::op::{assemble, loss_tensor, scaled};
use crate::vocab::VocabShard;
use crate::{CrossEntropy, KernelSet, cross_entropy, linear};
use burn::tensor::Tensor;
use std::convert::Infallible;

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
    let options = Options { label_smoothing, scale };
    let outcome = recorded(hidden, weight, options, |hidden, weight, wanted| {
        Ok(cpu::forward(hidden, weight, width, labels, options, wanted))
    });
    outcome.unwrap_or_else(|error: Infallible| match error {})
}

/// [`linear_cross_entropy`] with the rows of `shard` of the weight, on ranks that share `hidden` and `labels`: the loss and the
/// counts are those of the whole vocabulary, the gradient of `hidden` is this rank's part of a sum over ranks.
///
/// `rows` and `reduce` are as in [`cpu::forward_parallel`]. f32 tensors on Flex.
///
/// # Errors
/// The first error of `reduce`.
///
/// # Panics
/// As [`linear_cross_entropy`], or if the weight does not have the rows of `shard`.
pub fn linear_cross_entropy_shard<E>(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    shard: &VocabShard,
    labels: &[i32],
    label_smoothing: f64,
    scale: f64,
    rows: usize,
    mut reduce: impl FnMut(Reduction<'_>) -> Result<(), E>,
) -> Result<CrossEntropy, E> {
    let (width, options) = (hidden.dims()[1], Options { label_smoothing, scale });
    recorded(hidden, weight, options, |hidden, weight, wanted| {
        cpu::forward_parallel(hidden, weight, width, shard, labels, options, wanted, rows, &mut reduce)
    })
}

/// Records a head whose forward makes the gradients.
fn recorded<E>(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    options: Options,
    forward: impl FnOnce(&[f32], &[f32], Wanted) -> Result<Outcome, E>,
) -> Result<CrossEntropy, E> {
    let shapes = [hidden.dims(), weight.dims()];
    let (function, [hidden, weight]) = Function::enter([hidden.into(), weight.into()]);
    let (hidden, weight) = (HostTensor::new(hidden), HostTensor::new(weight));
    let [hidden_tracked, weight_tracked] = function.tracked();
    let outcome = forward(&hidden, &weight, Wanted { hidden: hidden_tracked, weight: weight_tracked })?;
    drop((hidden, weight));
    let d_hidden = outcome.d_hidden.map(|gradient| HostTensor::from_vec(gradient, shapes[0]));
    let d_weight = outcome.d_weight.map(|gradient| HostTensor::from_vec(gradient, shapes[1]));
    let loss = function.finish(loss_tensor(outcome.totals, options.scale), move |upstream: Tensor<1>, needed| {
        let give = |needed: bool, gradient: Option<HostTensor>| {
            needed.then(|| scaled(gradient.expect("made because the input is tracked"), &upstream).into_dispatch())
        };
        [give(needed[0], d_hidden), give(needed[1], d_weight)]
    });
    Ok(assemble(loss, outcome.totals))
}
