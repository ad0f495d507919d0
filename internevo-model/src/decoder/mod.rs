//! The decoder: InternLM2's structure (LLaMA with one fused, interleaved `wqkv`) on flat packed batches.
//!
//! Activations are `[T, width]` with `T` the tokens of a packed micro-batch; there is no padding anywhere. Module paths
//! are the global parameter names, and their order is the order of [`crate::param_table`].
//!
//! Not here: the kernels (internevo-kernels), generation ([`mod@crate::generate`]), how parameters become a flat vector and
//! back (`parameters.rs`).

mod attention;
mod block;
mod execution;
mod feed_forward;
mod parameters;
mod weights;

use std::sync::Arc;

pub use attention::Attention;
use attention::Packing;
pub use block::Block;
pub use execution::Execution;
use execution::Step;
pub use feed_forward::FeedForward;
pub use weights::{Matrix, Norm};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use internevo_core::batch::PackedBatch;
use internevo_kernels::{CrossEntropy, RotaryTable, autograd::HostTensor, embedding};
use internevo_parallel::{WeightGatherer, state::LocalTable, strategy::LossOptions};
use weights::LocalReader;

use crate::{
    error::ModelError,
    generate::KvCache,
    init::initial_parameters,
    spec::{ModelSpec, whole_table},
};

/// A decoder with its parameters, or one rank's part of them, on one device.
///
/// Each rank builds its own: leaves shared between two threads would join their tapes, and a collective inside a
/// backward pass would then wait for itself.
#[derive(Module, Debug)]
pub struct Decoder {
    tok_embeddings: Matrix,
    layers: Vec<Block>,
    norm: Norm,
    output: Matrix,
    #[module(skip)]
    spec: ModelSpec,
    #[module(skip)]
    rotary: RotaryTable,
}

impl Decoder {
    /// A decoder with freshly drawn weights ([`crate::init`]). On an autodiff device it can be trained.
    ///
    /// # Errors
    /// When the dimensions contradict each other.
    pub fn init(spec: &ModelSpec, seed: u64, device: &Device) -> Result<Self, ModelError> {
        spec.validate()?;
        Self::from_flat(spec, &initial_parameters(spec, seed), device)
    }

    /// A decoder with the given parameters, in table order.
    ///
    /// # Errors
    /// When the dimensions contradict each other or the number of parameters is wrong.
    pub fn from_flat(spec: &ModelSpec, params: &[f32], device: &Device) -> Result<Self, ModelError> {
        spec.validate()?;
        if params.len() != spec.parameter_count() {
            return Err(ModelError::ParameterCount { expected: spec.parameter_count(), found: params.len() });
        }
        Self::from_local(spec, &whole_table(spec), params, device)
    }

    /// One rank's part of a decoder: `values` is its local vector, laid out by `table`. It runs with an [`Execution`] of the
    /// same layout.
    ///
    /// # Errors
    /// When the dimensions contradict each other.
    ///
    /// # Panics
    /// If `table` is not one of this model.
    pub fn from_local(
        spec: &ModelSpec,
        table: &LocalTable,
        values: &[f32],
        device: &Device,
    ) -> Result<Self, ModelError> {
        spec.validate()?;
        let source = &mut LocalReader::new(table, values, device);
        let decoder = Self {
            tok_embeddings: Matrix::take(source),
            layers: (0..spec.layers).map(|_| Block::take(spec, source)).collect(),
            norm: Norm::take(spec.eps, source),
            output: Matrix::take(source),
            spec: spec.clone(),
            rotary: RotaryTable::new(spec.head_dim, spec.rope_base, spec.max_positions),
        };
        assert!(source.is_empty(), "module and table agree on the number of parameters");
        Ok(decoder)
    }

    /// Replaces this rank's parameters by those in its local vector, and its shares of sharded weights in `gatherer`.
    ///
    /// # Panics
    /// If `table` is not the one it was made from.
    pub fn load_local(&mut self, table: &LocalTable, values: &[f32], gatherer: Option<&WeightGatherer>) {
        let device = self.output.weight().device();
        let source = &mut LocalReader::new(table, values, &device);
        self.tok_embeddings.refill(source);
        self.layers.iter_mut().for_each(|block| block.refill(source));
        self.norm.refill(source);
        self.output.refill(source);
        if let Some(gatherer) = gatherer {
            self.share_with(gatherer);
        }
    }

    /// Tells `gatherer` this rank's shares of sharded weights.
    pub fn share_with(&self, gatherer: &WeightGatherer) {
        let blocks = self.layers.iter().flat_map(Block::matrices);
        let matrices = [&self.tok_embeddings].into_iter().chain(blocks).chain([&self.output]);
        for matrix in matrices.filter(|m| gatherer.shards(m.param())) {
            let share = matrix.weight().without_autodiff();
            gatherer.set(matrix.param(), HostTensor::new(share.into_dispatch()));
        }
    }

    /// Its dimensions.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The loss over the labelled tokens of `batch`, summed and multiplied by `scale` (1 / labelled tokens of the whole
    /// step, so that micro-batches and ranks only have to be added). On a rank that holds everything; gradients stay on the
    /// leaves.
    ///
    /// # Panics
    /// If a token or label is outside the vocabulary, or a segment is longer than `max_positions`; loaders check both
    /// once ([`ModelSpec::check_tokens`]).
    pub fn loss(&self, batch: &PackedBatch, label_smoothing: f64, scale: f64) -> CrossEntropy {
        self.loss_on(&Execution::alone(self.spec.kernels), batch, label_smoothing, scale)
    }

    /// [`Decoder::loss`] on one rank of a layout. Collective over the groups of the execution; the loss is this rank's part of
    /// it if the strategy splits losses, otherwise all of it.
    ///
    /// Unwinds with a [`CommError`](internevo_parallel::comm::CommError) when ranks cannot communicate
    /// ([`internevo_parallel::strategy::catching`]).
    ///
    /// # Panics
    /// As [`Decoder::loss`].
    pub fn loss_on(&self, on: &Execution, batch: &PackedBatch, label_smoothing: f64, scale: f64) -> CrossEntropy {
        let step = Step::forward(on);
        let hidden = self.hidden(&step, batch);
        let (weight, _) = step.matrix(self.output.param(), self.output.weight(), Some(&hidden));
        let options = LossOptions { labels: &batch.labels, label_smoothing, scale };
        on.strategy.loss(on.kernels, hidden, weight, options)
    }

    /// The logits `[T, vocab]` of every position, on a rank that holds everything.
    ///
    /// # Panics
    /// As [`Decoder::loss`].
    pub fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        let step = Step::forward(&Execution::alone(self.spec.kernels));
        self.output.apply(self.spec.kernels, self.hidden(&step, batch))
    }

    /// This rank's residual stream after the last block and the final norm.
    fn hidden(&self, step: &Step, batch: &PackedBatch) -> Tensor<2> {
        let on = &step.on;
        let region = on.strategy.region(batch.tokens.len());
        let packing = Arc::new(Packing::new(batch, &region, &self.rotary));
        let (weight, _) = step.matrix(self.tok_embeddings.param(), self.tok_embeddings.weight(), None);
        let x = on.strategy.embed(on.kernels, weight, &batch.tokens);
        let recomputed = on.recompute.whole_blocks(self.layers.len());
        let blocks = self.layers.iter().enumerate();
        let x = blocks.fold(x, |x, (i, block)| block.forward(step, x, &packing, i < recomputed));
        self.norm.run(step, x)
    }

    /// The logits `[T, vocab]` of `tokens`, which follow those in `cache`; the cache then holds them too. Inference
    /// only: use a decoder without autodiff ([`burn::module::Module::valid`]).
    ///
    /// # Panics
    /// If a token is outside the vocabulary or the cache was made for another model.
    pub fn logits_cached(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let hidden = self.hidden_cached(tokens, cache);
        self.output.apply(self.spec.kernels, hidden)
    }

    /// Like [`Decoder::logits_cached`], for the last of `tokens` only: `[1, vocab]`.
    ///
    /// # Panics
    /// If `tokens` is empty; as [`Decoder::logits_cached`].
    pub fn next_logits(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let hidden = self.hidden_cached(tokens, cache);
        let last = hidden.narrow(0, tokens.len() - 1, 1);
        self.output.apply(self.spec.kernels, last)
    }

    fn hidden_cached(&self, tokens: &[u32], cache: &mut KvCache) -> Tensor<2> {
        let set = self.spec.kernels;
        let x = embedding(set, self.tok_embeddings.weight(), tokens);
        let (positions, table, layers) = cache.extend(tokens.len());
        assert_eq!(layers.len(), self.layers.len(), "a cache belongs to one model");
        let pairs = self.layers.iter().zip(layers);
        let x = pairs.fold(x, |x, (block, cache)| block.forward_cached(set, x, &positions, table, cache));
        self.norm.apply(set, x)
    }
}
