//! The burn operation of the embedding table.

use super::cpu;
use crate::KernelSet;
use crate::autograd::{Function, Host, HostElement};
use crate::vocab::VocabShard;
use burn::tensor::{Int, Tensor, TensorData, bf16};

/// Rows of `weight` (`[vocab, width]`) for `tokens`: the result is `[T, width]`.
///
/// The kernel takes f32 and bf16 (the gradient: f32 sums, each rounded once).
///
/// # Panics
/// If a token is outside the table; the message names its position.
pub fn embedding(set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let vocab = weight.dims()[0];
    let fused = set.fused_for(&weight, &weight) || set == KernelSet::Fused && Host::<bf16>::accepts(&weight);
    #[cfg(feature = "gpu")]
    let fused = fused || set.gpu_for(&weight, &weight);
    if !fused {
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &weight.device().inner());
        return weight.select(0, ids);
    }
    embedding_shard(weight, &VocabShard::whole(vocab), tokens)
}

/// Rows of `weight` (`[shard.words(), width]`) for the tokens of a vocabulary shard, zero for all others: the sum over ranks
/// is the embedding. f32 and bf16
/// tensors on Flex, f32, f16 and bf16 on a cubecl device.
///
/// # Panics
/// If a token is outside the vocabulary; the message names its position.
pub fn embedding_shard(weight: Tensor<2>, shard: &VocabShard, tokens: &[u32]) -> Tensor<2> {
    #[cfg(feature = "gpu")]
    if crate::cube::GpuTensor::accepts(&weight) {
        return on_gpu(weight, shard, tokens);
    }
    match Host::<bf16>::accepts(&weight) {
        true => on_host::<bf16>(weight, shard, tokens),
        false => on_host::<f32>(weight, shard, tokens),
    }
}

fn on_host<E: HostElement + cpu::Element>(weight: Tensor<2>, shard: &VocabShard, tokens: &[u32]) -> Tensor<2> {
    let [words, width] = weight.dims();
    let (function, [weight]) = Function::enter([weight.into()]);
    let y = cpu::forward_shard(&Host::<E>::new(weight), shard, width, tokens);
    let kept: Vec<u32> = if function.tracked()[0] { tokens.to_vec() } else { Vec::new() };
    let shard = shard.clone();
    function.finish(Host::from_vec(y, [tokens.len(), width]).into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let dy = Host::<E>::new(dy.into_dispatch());
            Host::from_vec(cpu::backward_shard(&shard, width, &kept, &dy), [words, width]).into_dispatch()
        })]
    })
}

#[cfg(feature = "gpu")]
fn on_gpu(weight: Tensor<2>, shard: &VocabShard, tokens: &[u32]) -> Tensor<2> {
    use crate::cube::GpuTensor;
    let [words, width] = weight.dims();
    let (function, [weight]) = Function::enter([weight.into()]);
    let weight = GpuTensor::new(weight);
    let table = weight.buffer();
    let y = super::cube::forward(weight.client(), &table, shard, width, tokens);
    let y = weight.with(y, [tokens.len(), width]).into_tensor();
    let kept: Vec<u32> = if function.tracked()[0] { tokens.to_vec() } else { Vec::new() };
    let (shard, elem) = (shard.clone(), table.elem);
    function.finish(y, move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let dy = GpuTensor::new(dy.into_dispatch());
            let table = super::cube::backward(dy.client(), &shard, width, &kept, &dy.buffer(), elem);
            dy.with(table, [words, width]).into_dispatch()
        })]
    })
}
