//! The burn operation of the embedding table.

use super::cpu;
use crate::KernelSet;
use crate::autograd::{Function, HostTensor};
use burn::tensor::{Int, Tensor, TensorData};

/// Rows of `weight` (`[vocab, width]`) for `tokens`: the result is `[T, width]`.
///
/// # Panics
/// If a token is outside the table; the message names its position.
pub fn embedding(set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let [vocab, width] = weight.dims();
    if !set.fused_for(&weight, &weight) {
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens.len()]), &weight.device().inner());
        return weight.select(0, ids);
    }
    let (function, [weight]) = Function::enter([weight.into()]);
    let y = cpu::forward(&HostTensor::new(weight), width, tokens);
    let tokens: Vec<u32> = if function.tracked()[0] { tokens.to_vec() } else { Vec::new() };
    let rows = y.len() / width.max(1);
    function.finish(HostTensor::from_vec(y, [rows, width]).into_tensor(), move |dy: Tensor<2>, [needed]| {
        [needed.then(|| {
            let dy = HostTensor::new(dy.into_dispatch());
            HostTensor::from_vec(cpu::backward(vocab, width, &tokens, &dy), [vocab, width]).into_dispatch()
        })]
    })
}
