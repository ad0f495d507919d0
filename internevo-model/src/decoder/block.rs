//! One pre-norm decoder block.

use burn::{module::Module, tensor::Tensor};
use internevo_kernels::{KernelSet, RotaryTable};

use super::{
    attention::{Attention, Packing},
    feed_forward::FeedForward,
    weights::{FlatReader, Norm},
};
use crate::{generate::LayerCache, spec::ModelSpec};

/// `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    attention_norm: Norm,
    attention: Attention,
    ffn_norm: Norm,
    feed_forward: FeedForward,
}

impl Block {
    pub(super) fn take(spec: &ModelSpec, source: &mut FlatReader<'_>) -> Self {
        Self {
            attention_norm: Norm::take(spec.hidden, spec.eps, source),
            attention: Attention::take(spec, source),
            ffn_norm: Norm::take(spec.hidden, spec.eps, source),
            feed_forward: FeedForward::take(spec, source),
        }
    }

    pub(super) fn refill(&mut self, source: &mut FlatReader<'_>) {
        self.attention_norm.refill(source);
        self.attention.refill(source);
        self.ffn_norm.refill(source);
        self.feed_forward.refill(source);
    }

    /// `x [T, hidden]` to the same shape.
    pub fn forward(&self, set: KernelSet, x: Tensor<2>, packing: &Packing<'_>) -> Tensor<2> {
        let normed = self.attention_norm.apply(set, x.clone());
        let x = x + self.attention.forward(set, normed, packing);
        self.add_feed_forward(set, x)
    }

    /// The same for the tokens after those in `cache`. Inference only.
    pub fn forward_cached(
        &self,
        set: KernelSet,
        x: Tensor<2>,
        positions: &[u32],
        table: &RotaryTable,
        cache: &mut LayerCache,
    ) -> Tensor<2> {
        let normed = self.attention_norm.apply(set, x.clone());
        let x = x + self.attention.forward_cached(set, normed, positions, table, cache);
        self.add_feed_forward(set, x)
    }

    fn add_feed_forward(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        let normed = self.ffn_norm.apply(set, x.clone());
        x + self.feed_forward.forward(set, normed)
    }
}
