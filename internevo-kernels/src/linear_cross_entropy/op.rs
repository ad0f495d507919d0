//! The burn operation of the fused head.

use super::cpu::{self, Outcome, Reduction, Wanted};
use crate::autograd::{Function, HostTensor};
use crate::cross_entropy::cpu::Options;
use crate::cross_entropy::op::{assemble, loss_tensor, scaled};
#[cfg(feature = "gpu")]
use crate::cube::{Buffer, Client, GpuTensor};
use crate::vocab::VocabShard;
use crate::{CrossEntropy, KernelSet, cross_entropy_with, linear};
use burn::tensor::Tensor;
use std::convert::Infallible;

/// `cross_entropy(linear(hidden, weight), labels, ...)` without the full logits: `hidden` is `[T, h]`, `weight` `[V, h]`.
///
/// When an input is tracked, its gradient is made here, chunk by chunk; at most [`cpu::chunk_rows`] rows of logits exist, on a
/// GPU those of `cube::Cut`.
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
    linear_cross_entropy_with(set, hidden, weight, labels, Options { label_smoothing, scale, ..Options::default() })
}

/// [`linear_cross_entropy`] with every option, z-loss too.
///
/// # Panics
/// As [`linear_cross_entropy`]; on a GPU also if the device fails, since the counts are read from it.
pub fn linear_cross_entropy_with(
    set: KernelSet,
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[i32],
    options: Options,
) -> CrossEntropy {
    let ([tokens, width], [vocab, w_width]) = (hidden.dims(), weight.dims());
    assert_eq!(width, w_width, "linear_cross_entropy: hidden is {tokens}x{width}, weight {vocab}x{w_width}");
    #[cfg(feature = "gpu")]
    if set.gpu_for(&hidden, &weight) {
        let outcome = on_gpu(hidden, weight, options, |client, hidden, weight, wanted| {
            Ok(super::cube::forward(client, hidden, weight, width, labels, options, wanted))
        });
        return outcome.unwrap_or_else(|error: Infallible| match error {});
    }
    if !set.fused_for(&hidden, &weight) {
        return cross_entropy_with(set, linear(set, hidden, weight), labels, options);
    }
    let outcome = recorded(hidden, weight, options, |hidden, weight, wanted| {
        Ok(cpu::forward(hidden, weight, width, labels, options, wanted))
    });
    outcome.unwrap_or_else(|error: Infallible| match error {})
}

/// [`linear_cross_entropy`] with the rows of `shard` of the weight, on ranks that share `hidden` and `labels`: the loss and the
/// counts are those of the whole vocabulary, the gradient of `hidden` is this rank's part of a sum over ranks.
///
/// `rows` and `reduce` are as in [`cpu::forward_parallel`], for f32 tensors on Flex. On GPUs, which must be of one kind, chunks are
/// those of `cube::Cut` for the whole vocabulary.
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
    let (width, options) = (hidden.dims()[1], Options { label_smoothing, scale, ..Options::default() });
    #[cfg(feature = "gpu")]
    if KernelSet::Fused.gpu_for(&hidden, &weight) {
        use super::cube::{Cut, forward_shard, reduced};
        return on_gpu(hidden, weight, options, |client, hidden, weight, wanted| {
            let cut = Cut::new(crate::cube::Machine::of(client), labels.len(), shard.vocab(), width, hidden.elem);
            let gather = &mut |statistics| reduced(client, &statistics, &mut reduce);
            forward_shard(client, hidden, weight, width, shard, labels, options, wanted, cut, gather)
        });
    }
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

/// [`recorded`] on a GPU.
#[cfg(feature = "gpu")]
fn on_gpu<E>(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    options: Options,
    forward: impl FnOnce(&Client, &Buffer, &Buffer, Wanted) -> Result<super::cube::Outcome, E>,
) -> Result<CrossEntropy, E> {
    let (shapes, device) = ([hidden.dims(), weight.dims()], hidden.device().inner());
    let (function, [hidden, weight]) = Function::enter([hidden.into(), weight.into()]);
    let (hidden, weight) = (GpuTensor::new(hidden), GpuTensor::new(weight));
    let client = hidden.client().clone();
    let [hidden_tracked, weight_tracked] = function.tracked();
    let wanted = Wanted { hidden: hidden_tracked, weight: weight_tracked };
    let outcome = forward(&client, &hidden.buffer(), &weight.buffer(), wanted)?;
    let totals = outcome.totals(&client);
    let totals = totals.unwrap_or_else(|error| panic!("linear_cross_entropy: the device failed: {error}"));
    let elem = hidden.buffer().elem;
    drop((hidden, weight));
    let loss = Tensor::from_data([(totals.loss * options.scale) as f32], &device);
    let (d_hidden, d_weight) = (outcome.d_hidden, outcome.d_weight);
    let loss = function.finish(loss, move |upstream: Tensor<1>, needed| {
        let factor = upstream.clone().into_scalar::<f32>() * options.scale as f32;
        let like = GpuTensor::new(upstream.into_dispatch());
        let give = |needed: bool, gradient: Option<Buffer>, shape| {
            needed.then(|| {
                let gradient = gradient.expect("made because the input is tracked");
                let gradient = super::cube::scaled(like.client(), &gradient, factor, elem);
                like.with(gradient, shape).into_dispatch()
            })
        };
        [give(needed[0], d_hidden, shapes[0]), give(needed[1], d_weight, shapes[1])]
    });
    Ok(assemble(loss, totals))
}
