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
    config::Config,
    flops::ModelShape,
    layout::{GroupKind, ParallelLayout},
};

/// Bytes of an f32, the type of weights, gradients, optimizer state and activations.
const F32: u64 = 4;

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
    /// Those of attention, from its norm's output to the output of `wo`, in every block.
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
    /// 1, 2 or 3: whether ZeRO shards the optimizer state, gradients too, weights too.
    pub zero_stage: u8,
    /// Ranks of a tensor group that pass keys and values around a ring; the others exchange heads (`isp`).
    pub context: u64,
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
    /// The step of a configured job; `vocab` are the rows of its embedding. What the configuration has no key for is off.
    ///
    /// # Panics
    /// If the tensor mode is unknown, with which there is no layout.
    pub fn from_config(config: &Config, layout: ParallelLayout, vocab: usize) -> Self {
        Self {
            shape: ModelShape::new(&config.model, vocab),
            layout,
            mode: TensorMode::named(&config.parallel.tensor.mode).expect("a layout has a known tensor mode"),
            zero_stage: 1,
            context: 1,
            chunks: 1,
            tokens: (config.data.seq_len * config.data.micro_bsz) as u64,
            micro_batches: config.data.micro_num as u64,
            recomputed: Recomputed::Nothing,
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
    /// How often it is used in a micro-batch, so that it has to be gathered: forward, replay, backward.
    uses: u64,
}

/// One rank's part of a step: its stage, and what it holds of the model there.
struct Place<'a> {
    step: &'a Step,
    stage: u64,
    stages: u64,
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
        let (stage, stages) = (step.layout.coordinates(rank).pipeline as u64, step.size(GroupKind::Pipeline));
        let cut = |stage: u64| step.shape.layers * stage / stages;
        let blocks = cut(stage + 1) - cut(stage);
        let replayed = match step.recomputed {
            Recomputed::Blocks(first) => first.clamp(cut(stage), cut(stage + 1)) - cut(stage),
            _ => 0,
        };
        let mut place = Self { step, stage, stages, blocks, replayed, matrices: Vec::new(), norms: 0 };
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
        match (self.is_isp(), self.step.zero_stage) {
            (true, _) => ("weight", self.step.size(GroupKind::Weight)),
            (false, 3) => ("zero1", self.step.size(GroupKind::Zero1)),
            _ => ("weight", 1),
        }
    }

    /// Ranks that divide the local vector of parameters, bucket by bucket; ZeRO-3 divides single matrices instead.
    fn zero_parts(&self) -> u64 {
        if !self.is_isp() && self.step.zero_stage == 3 { 1 } else { self.step.size(GroupKind::Zero1) }
    }

    /// Of a block: `wqkv` and `wo`, then `w1`, `w3` and `w2`; the embedding on the first stage, the head on the last.
    fn matrices(&self) -> Vec<Matrix> {
        let s = &self.step.shape;
        let (qkv, out) = ((s.heads + 2 * s.kv_heads) * s.head_dim, s.heads * s.head_dim);
        let part = |elements: u64| elements / self.matrix_parts();
        let attention_again = u64::from(self.step.recomputed == Recomputed::Attention);
        let mut all = Vec::new();
        for block in 0..self.blocks {
            let again = u64::from(block < self.replayed);
            let attention = [qkv * s.hidden, out * s.hidden].map(|n| (n, 2 + again + attention_again));
            let feed_forward = [s.ffn * s.hidden; 3].map(|n| (n, 2 + again));
            all.extend(attention.into_iter().chain(feed_forward));
        }
        // A lookup has no backward towards its input. The fused head computes both gradients in the forward.
        let ends = [(self.is_first(), s.vocab * s.hidden), (self.is_last(), s.vocab * s.hidden)];
        all.extend(ends.into_iter().filter(|(here, _)| *here).map(|(_, n)| (n, 1)));
        all.into_iter().map(|(elements, uses)| Matrix { elements: part(elements), uses }).collect()
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
