//! One pre-norm decoder block.

use std::sync::Arc;

use burn::{module::Module, tensor::Tensor};
use internevo_core::config::Recompute;
use internevo_kernels::{KernelSet, RotaryTable, autograd::recompute};

use super::{
    attention::{Attention, Packing},
    execution::Step,
    feed_forward::FeedForward,
    weights::{LocalReader, Matrix, Norm},
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
    pub(super) fn take(spec: &ModelSpec, source: &mut LocalReader<'_>) -> Self {
        Self {
            attention_norm: Norm::take(spec.eps, source),
            attention: Attention::take(spec, source),
            ffn_norm: Norm::take(spec.eps, source),
            feed_forward: FeedForward::take(source),
        }
    }

    pub(super) fn refill(&mut self, source: &mut LocalReader<'_>) {
        self.attention_norm.refill(source);
        self.attention.refill(source);
        self.ffn_norm.refill(source);
        self.feed_forward.refill(source);
    }

    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.attention.matrices().into_iter().chain(self.feed_forward.matrices())
    }

    /// This rank's residual stream to the same shape, keeping all activations for the backward pass, or those that
    /// `recomputes` and the execution leave.
    pub(super) fn forward(&self, step: &Step, x: Tensor<2>, packing: &Arc<Packing>, recomputes: bool) -> Tensor<2> {
        if !recomputes {
            return self.run(step, x, packing);
        }
        let (block, step, packing) = (self.clone(), step.clone(), packing.clone());
        recompute(x, move |x, recording| block.run(&step.again(recording), x, &packing))
    }

    fn run(&self, step: &Step, x: Tensor<2>, packing: &Arc<Packing>) -> Tensor<2> {
        let strategy = &step.on.strategy;
        let attended = match step.on.recompute {
            Recompute::Selective => {
                let (block, again, packing) = (self.clone(), step.clone(), packing.clone());
                recompute(x.clone(), move |x, recording| block.attend(&again.again(recording), x, &packing))
            }
            _ => self.attend(step, x.clone(), packing),
        };
        let (normed, x) = self.ffn_norm.run_sum(step, x, strategy.leave(self.attention.project(step, attended)));
        x + strategy.leave(self.feed_forward.run(step, &strategy.enter(normed)))
    }

    /// From the residual stream to what the heads attended to.
    fn attend(&self, step: &Step, x: Tensor<2>, packing: &Packing) -> Tensor<2> {
        let region = step.on.strategy.enter(self.attention_norm.run(step, x));
        self.attention.attend(step, &region, packing)
    }

    /// The tokens after those in `cache`, on a rank that holds everything. Inference only.
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
        let normed = self.ffn_norm.apply(set, x.clone());
        x + self.feed_forward.infer(set, normed)
    }
}
