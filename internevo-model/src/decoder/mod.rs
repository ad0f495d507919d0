//! The decoder: InternLM2's structure (LLaMA with one fused, interleaved `wqkv`) on flat packed batches.
//!
//! Activations are `[T, width]` with `T` the tokens of a packed micro-batch; there is no padding anywhere. Module paths
//! are the global parameter names, and their order is the order of [`crate::param_table`].
//!
//! Not here: the kernels (internevo-kernels), generation ([`mod@crate::generate`]), how parameters become a flat vector and
//! back (`parameters.rs`).

mod attention;
mod block;
mod feed_forward;
mod parameters;
mod weights;

pub use attention::{Attention, Packing};
pub use block::Block;
pub use feed_forward::FeedForward;
pub use weights::{Matrix, Norm};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use internevo_core::batch::PackedBatch;
use internevo_kernels::{CrossEntropy, RotaryTable, embedding, linear_cross_entropy};
use weights::FlatReader;

use crate::{error::ModelError, generate::KvCache, init::initial_parameters, spec::ModelSpec};

/// A decoder with its parameters on one device.
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
        let source = &mut FlatReader::new(params, device);
        let decoder = Self {
            tok_embeddings: Matrix::take([spec.vocab, spec.hidden], source),
            layers: (0..spec.layers).map(|_| Block::take(spec, source)).collect(),
            norm: Norm::take(spec.hidden, spec.eps, source),
            output: Matrix::take([spec.vocab, spec.hidden], source),
            spec: spec.clone(),
            rotary: RotaryTable::new(spec.head_dim, spec.rope_base, spec.max_positions),
        };
        assert!(source.is_empty(), "module and table agree on the number of parameters");
        Ok(decoder)
    }

    /// Its dimensions.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The loss over the labelled tokens of `batch`, summed and multiplied by `scale` (1 / labelled tokens of the whole
    /// step, so that micro-batches and ranks only have to be added).
    ///
    /// # Panics
    /// If a token or label is outside the vocabulary, or a segment is longer than `max_positions`; loaders check both
    /// once ([`ModelSpec::check_tokens`]).
    pub fn loss(&self, batch: &PackedBatch, label_smoothing: f64, scale: f64) -> CrossEntropy {
        let hidden = self.hidden(batch);
        linear_cross_entropy(self.spec.kernels, hidden, self.output.weight(), &batch.labels, label_smoothing, scale)
    }

    /// The logits `[T, vocab]` of every position.
    ///
    /// # Panics
    /// As [`Decoder::loss`].
    pub fn logits(&self, batch: &PackedBatch) -> Tensor<2> {
        self.output.apply(self.spec.kernels, self.hidden(batch))
    }

    /// Output of the last block after the final norm, `[T, hidden]`.
    fn hidden(&self, batch: &PackedBatch) -> Tensor<2> {
        let set = self.spec.kernels;
        let packing = Packing { cu_seqlens: &batch.cu_seqlens, positions: &batch.position_ids, rotary: &self.rotary };
        let x = embedding(set, self.tok_embeddings.weight(), &batch.tokens);
        let x = self.layers.iter().fold(x, |x, block| block.forward(set, x, &packing));
        self.norm.apply(set, x)
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
