//! Closed formulas: what one rank sends in a step ([`volumes`]) and what it keeps in memory ([`memory`]), from the model's
//! shape, the layout and the batch alone.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Step`]: what the formulas are about, and what a rank holds of the model |
//! | `volume.rs` | communication, term by term |
//! | `memory.rs` | bytes of weights, gradients, optimizer state, activations |
//!
//! The formulas describe this engine: the InternLM2 block, f32, fused kernels, a vocabulary-parallel embedding and head. Not
//! here: time (no bandwidth appears), measured counts (`internevo_parallel::comm::record`).

mod memory;
#[cfg(test)]
mod tests;
mod volume;

pub use memory::{MemoryEstimate, memory};
pub use volume::{Term, volumes};

use crate::{
    config::{Config, Recompute},
    flops::ModelShape,
    layout::{GroupKind, ParallelLayout, ZeroStage},
};

/// Bytes of an f32, the type of weights, gradients, optimizer state and activations.
const F32: u64 = 4;

/// Weight matrices of a block.
const BLOCK_MATRICES: usize = 5;

/// How a tensor group divides a layer; `parallel.tensor.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorMode {
    /// Megatron's tensor parallelism: matrices divided, activations between them whole (Shoeybi et al. 2019).
    Mtp,
    /// And activations between the matrices divided by tokens (Korthikanti et al. 2022).
    Msp,
    /// And the gathered inputs of column-parallel matrices not kept, but gathered again in the backward.
    Fsp,
    /// Sequences divided, weights gathered before use (InternEvo).
    Isp,
}

impl TensorMode {
    /// The mode that the configuration calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "mtp" => Self::Mtp,
            "msp" => Self::Msp,
            "fsp" => Self::Fsp,
            "isp" => Self::Isp,
            _ => return None,
        })
    }

    /// Whether activations between matrices are divided by tokens.
    fn divides_tokens(self) -> bool {
        self != Self::Mtp
    }
}

/// Which activations the backward computes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recomputed {
    /// None.
    #[default]
    Nothing,
    /// Those of attention, from its norm to what `wo` projects, in every block.
    Attention,
    /// Those of the first so many blocks of the model, as a whole.
    Blocks(u64),
}

/// One optimizer step of a job, as far as the formulas need to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The decoder.
    pub shape: ModelShape,
    /// The groups.
    pub layout: ParallelLayout,
    /// What the tensor groups do.
    pub mode: TensorMode,
    /// The embedding is divided by columns instead of rows (`mtp`, `msp`, `fsp`).
    pub embedding_by_columns: bool,
    /// The loss works on gathered logits instead of divided ones (`mtp`, `msp`, `fsp`).
    pub gathers_logits: bool,
    /// Model chunks per pipeline stage (interleaved schedules).
    pub chunks: u64,
    /// Tokens of a micro-batch, before a tensor group divides them.
    pub tokens: u64,
    /// Micro-batches per step and rank.
    pub micro_batches: u64,
    /// What the backward computes again.
    pub recomputed: Recomputed,
    /// Elements of a gradient bucket at most.
    pub bucket: u64,
    /// Gradients are added in a tree over the micro-batches, instead of one after the other.
    pub tree: bool,
}

impl Step {
    /// The step of a configured job; `vocab` are the rows of its embedding. A stage has one chunk: nothing configures more.
    ///
    /// # Panics
    /// If the tensor mode is unknown, with which there is no layout.
    pub fn from_config(config: &Config, layout: ParallelLayout, vocab: usize) -> Self {
        let layers = config.model.num_layers;
        Self {
            shape: ModelShape::new(&config.model, vocab),
            layout,
            mode: TensorMode::named(&config.parallel.tensor.mode).expect("a layout has a known tensor mode"),
            embedding_by_columns: config.model.embed_split_hidden,
            gathers_logits: !config.model.parallel_output,
            chunks: 1,
            tokens: (config.data.seq_len * config.data.micro_bsz) as u64,
            micro_batches: config.data.micro_num as u64,
            recomputed: match config.model.checkpoint {
                Recompute::Off => Recomputed::Nothing,
                Recompute::Selective => Recomputed::Attention,
                blocks => Recomputed::Blocks(blocks.whole_blocks(layers) as u64),
            },
            bucket: config.hybrid_zero_optimizer.reduce_bucket_size as u64 / F32,
            tree: config.hybrid_zero_optimizer.reduction == "tree",
        }
    }

    fn size(&self, kind: GroupKind) -> u64 {
        self.layout.size(kind) as u64
    }
}

/// A weight matrix of a rank, before it is sharded for gathering.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    elements: u64,
    /// How often it is gathered in a micro-batch, if it is sharded.
    gathers: u64,
}

/// One rank's part of a step: its stage, and what it holds of the model there.
struct Place<'a> {
    step: &'a Step,
    stage: u64,
    stages: u64,
    /// Place in the tensor group.
    tensor_rank: u64,
    /// Blocks of the stage.
    blocks: u64,
    /// Blocks of the stage whose forward runs again in the backward.
    replayed: u64,
    matrices: Vec<Matrix>,
    /// Elements of the stage's norm weights, which nothing divides.
    norms: u64,
}

impl<'a> Place<'a> {
    fn new(step: &'a Step, rank: usize) -> Self {
        let coordinates = step.layout.coordinates(rank);
        let (stage, stages) = (coordinates.pipeline as u64, step.size(GroupKind::Pipeline));
        let cut = |stage: u64| step.shape.layers * stage / stages;
        let blocks = cut(stage + 1) - cut(stage);
        let replayed = match step.recomputed {
            Recomputed::Blocks(first) => first.clamp(cut(stage), cut(stage + 1)) - cut(stage),
            _ => 0,
        };
        let tensor_rank = coordinates.tensor as u64;
        let mut place = Self { step, stage, stages, tensor_rank, blocks, replayed, matrices: Vec::new(), norms: 0 };
        place.norms = (2 * blocks + u64::from(place.is_last())) * step.shape.hidden;
        place.matrices = place.matrices();
        place
    }

    fn is_first(&self) -> bool {
        self.stage == 0
    }

    fn is_last(&self) -> bool {
        self.stage + 1 == self.stages
    }

    fn is_isp(&self) -> bool {
        self.step.mode == TensorMode::Isp
    }

    fn tensor(&self) -> u64 {
        self.step.size(GroupKind::Tensor)
    }

    /// Ranks that divide every matrix by rows or columns.
    fn matrix_parts(&self) -> u64 {
        if self.is_isp() { 1 } else { self.tensor() }
    }

    /// Ranks that divide the tokens of everything between the matrices.
    fn token_parts(&self) -> u64 {
        if self.step.mode.divides_tokens() { self.tensor() } else { 1 }
    }

    /// The ranks that shard the weights and gather them before use, by name and number.
    fn weight_group(&self) -> (&'static str, u64) {
        match self.step.layout.weight_sharding() {
            Some(GroupKind::Zero1) => ("zero1", self.step.size(GroupKind::Zero1)),
            Some(kind) => ("weight", self.step.size(kind)),
            None => ("weight", 1),
        }
    }

    /// Ranks that divide the local vector of parameters, bucket by bucket; ZeRO-3 divides single matrices instead.
    fn zero_parts(&self) -> u64 {
        match self.step.layout.weight_sharding() {
            Some(GroupKind::Zero1) => 1,
            _ => self.step.size(GroupKind::Zero1),
        }
    }

    /// Whether gradients are reduced after every micro-batch, so that only the own share of each bucket is added up.
    fn adds_up_shares(&self) -> bool {
        self.step.layout.zero_stage() == ZeroStage::Gradients && self.zero_parts() > 1
    }

    /// This rank's part of `total` rows or columns that the tensor group divides; the parts differ by at most one.
    fn share(&self, total: u64) -> u64 {
        let (parts, index) = (self.matrix_parts(), if self.is_isp() { 0 } else { self.tensor_rank });
        total * (index + 1) / parts - total * index / parts
    }

    /// Of a block: `wqkv` and `wo`, then `w1`, `w3` and `w2`; the embedding on the first stage, the head on the last.
    fn matrices(&self) -> Vec<Matrix> {
        let s = &self.step.shape;
        let (qkv, out) = ((s.heads + 2 * s.kv_heads) * s.head_dim, s.heads * s.head_dim);
        // For the forward, and again for the input's gradient: then for the replay, if there is one, whose tape keeps it.
        let block: [Matrix; BLOCK_MATRICES] =
            [qkv, out, s.ffn, s.ffn, s.ffn].map(|n| Matrix { elements: self.share(n) * s.hidden, gathers: 2 });
        // A lookup has no backward towards its input. The fused head computes both gradients in the forward.
        let once = |elements| Matrix { elements, gathers: 1 };
        let rows = self.share(s.vocab) * s.hidden;
        let embedding = if self.step.embedding_by_columns { s.vocab * self.share(s.hidden) } else { rows };
        let ends = [(self.is_first(), embedding), (self.is_last(), rows)];
        let blocks = (0..self.blocks).flat_map(|_| block);
        blocks.chain(ends.into_iter().filter(|(here, _)| *here).map(|(_, elements)| once(elements))).collect()
    }

    /// Elements of the local vector whose gradient is complete after the backward, and of the rest: norm weights whose copies saw
    /// other tokens, or that lie beside sharded matrices.
    fn local_elements(&self) -> (u64, u64) {
        let (_, parts) = self.weight_group();
        let sharded = self.matrices.iter().map(|matrix| matrix.elements.div_ceil(parts)).sum();
        let partial = parts > 1 || (!self.is_isp() && self.token_parts() > 1);
        if partial { (sharded, self.norms) } else { (sharded + self.norms, 0) }
    }

    /// Tokens of a micro-batch on this rank, between the matrices.
    fn own_tokens(&self) -> u64 {
        self.step.tokens / self.token_parts()
    }
}

/// Tokens that the fused head works on at a time, where the longest share of the vocabulary has `words` words
/// (`internevo_kernels::linear_cross_entropy::cpu::chunk_rows`).
fn loss_chunk(words: u64) -> u64 {
    ((4 << 20) / words / 64 * 64).clamp(64, 1024)
}
