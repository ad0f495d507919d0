//! The burn operation of cross-entropy.

use super::cpu::{self, Options, Totals};
use super::{CrossEntropy, IGNORE_INDEX, check_labels};
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use crate::simd::affine_in_place;
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

/// Cross-entropy of `logits` (`[T, V]`) against `labels` (`[T]`, [`IGNORE_INDEX`] for none), times `scale`.
///
/// `label_smoothing` ε gives `(1 - ε) nll + ε mean(-log p)` per position. When `logits` is tracked, its gradient is
/// computed here, in the buffer of the logits if nobody else holds it.
///
/// # Panics
/// If a label is outside the vocabulary; the message names its position.
pub fn cross_entropy(
    set: KernelSet,
    logits: Tensor<2>,
    labels: &[i32],
    label_smoothing: f64,
    scale: f64,
) -> CrossEntropy {
    cross_entropy_with(set, logits, labels, Options { label_smoothing, scale, ..Options::default() })
}

/// [`cross_entropy`] with every option, z-loss too.
///
/// # Panics
/// As [`cross_entropy`]; on a GPU also if the device fails, since the counts are read from it.
pub fn cross_entropy_with(set: KernelSet, logits: Tensor<2>, labels: &[i32], options: Options) -> CrossEntropy {
    let [tokens, vocab] = logits.dims();
    assert_eq!(tokens, labels.len(), "cross_entropy: logits of {tokens} tokens, {} labels", labels.len());
    check_labels(labels, vocab);
    #[cfg(feature = "gpu")]
    if set.gpu_for(&logits, &logits) {
        return on_gpu(logits, labels, options);
    }
    if !set.fused_for(&logits, &logits) {
        return composed(logits, labels, options);
    }
    let (function, [logits]) = Function::enter([logits.into()]);
    let mut logits = HostTensor::new(logits);
    let (totals, gradient) = if function.tracked()[0] {
        let totals = cpu::forward_with_gradient(logits.make_mut(), vocab, labels, options);
        (totals, Some(logits))
    } else {
        (cpu::forward(&logits, vocab, labels, options), None)
    };
    let loss = function.finish(loss_tensor(totals, options.scale), move |upstream: Tensor<1>, [needed]| {
        [needed.then(|| scaled(gradient.expect("made because the logits are tracked"), &upstream).into_dispatch())]
    });
    assemble(loss, totals)
}

/// The value of `loss_sum`.
pub(crate) fn loss_tensor(totals: Totals, scale: f64) -> Tensor<1> {
    HostTensor::from_vec(vec![(totals.loss * scale) as f32], [1]).into_tensor()
}

pub(crate) fn assemble(loss_sum: Tensor<1>, totals: Totals) -> CrossEntropy {
    CrossEntropy { loss_sum, nll_sum: totals.nll, labelled: totals.labelled, correct: totals.correct }
}

/// A stored gradient times the gradient that arrives at the loss, which is 1 unless somebody scaled the loss.
pub(crate) fn scaled(mut gradient: HostTensor, upstream: &Tensor<1>) -> HostTensor {
    let factor = HostTensor::new(upstream.clone().into_dispatch())[0];
    if factor != 1.0 {
        crate::rows::for_blocks(gradient.make_mut(), crate::rows::GRAIN, |_, block| {
            affine_in_place(block, factor, 0.0)
        });
    }
    gradient
}

#[cfg(feature = "gpu")]
fn on_gpu(logits: Tensor<2>, labels: &[i32], options: Options) -> CrossEntropy {
    use super::cube::{self, Labels};
    use crate::{VocabShard, cube::GpuTensor};
    let (shape, device) = (logits.dims(), logits.device().inner());
    let (function, [logits]) = Function::enter([logits.into()]);
    let logits = GpuTensor::new(logits);
    let client = logits.client().clone();
    let (labels, shard) = (Labels::new(&client, labels, shape[1]), VocabShard::whole(shape[1]));
    let rows = cube::forward(&client, &logits.buffer(), shape[1], &labels, options);
    let gradient = function.tracked()[0].then(|| {
        let like = logits.with(rows.log_sum_exp.clone(), [shape[0]]);
        let buffer = logits.buffer();
        drop(logits);
        let gradient = if buffer.handle.can_mut() {
            cube::gradient_in_place(&client, &buffer, &shard, &labels, &rows.log_sum_exp, options);
            buffer
        } else {
            cube::gradient(&client, &buffer, &shard, &labels, &rows.log_sum_exp, options)
        };
        like.with(gradient, shape)
    });
    let totals = rows.totals(&client).unwrap_or_else(|error| panic!("cross_entropy: the device failed: {error}"));
    let loss = Tensor::from_data([(totals.loss * options.scale) as f32], &device);
    let loss = function.finish(loss, move |upstream: Tensor<1>, [needed]| {
        [needed.then(|| scaled_on_gpu(gradient.expect("made because the logits are tracked"), &upstream))]
    });
    assemble(loss, totals)
}

/// [`scaled`] on a GPU.
#[cfg(feature = "gpu")]
fn scaled_on_gpu(gradient: crate::cube::GpuTensor, upstream: &Tensor<1>) -> burn::backend::DispatchTensor {
    let factor = upstream.clone().into_scalar::<f32>();
    if factor == 1.0 {
        return gradient.into_dispatch();
    }
    (gradient.into_tensor::<2>() * factor).into_dispatch()
}

fn composed(logits: Tensor<2>, labels: &[i32], options: Options) -> CrossEntropy {
    let [tokens, vocab] = logits.dims();
    let device = logits.device().inner();
    let smoothing = options.label_smoothing;
    let ids: Vec<i64> = labels.iter().map(|label| i64::from((*label).max(0))).collect();
    let weights: Vec<f32> = labels.iter().map(|label| f32::from(*label != IGNORE_INDEX)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [tokens, 1]), &device);
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [tokens, 1]), &device).cast(logits.dtype());
    let log_p = log_softmax(logits.clone(), 1);
    let nll = log_p.clone().gather(1, ids.clone()).neg();
    let mut losses = nll.clone() * (1.0 - smoothing) + log_p.mean_dim(1).neg() * smoothing;
    if options.z_loss > 0.0 {
        // What any logit lacks to its log-probability is the logarithm of the sum of exponentials.
        let log_sum_exp = logits.clone().gather(1, ids.clone()) + nll.clone();
        losses = losses + log_sum_exp.square() * options.z_loss;
    }
    let loss_sum = (losses * weights.clone() * options.scale).sum();
    let nll_sum = (nll.without_autodiff() * weights).sum().into_scalar::<f64>();
    let plain = logits.without_autodiff();
    let best = plain.clone().max_dim(1).lower_equal(plain.gather(1, ids)).into_data();
    let hits = best.iter::<bool>().zip(labels).filter(|(hit, label)| *hit && **label != IGNORE_INDEX).count();
    let labelled = labels.iter().filter(|label| **label != IGNORE_INDEX).count();
    assert!(vocab > 0 || tokens == 0, "cross_entropy: an empty vocabulary");
    CrossEntropy { loss_sum, nll_sum, labelled, correct: hits }
}
