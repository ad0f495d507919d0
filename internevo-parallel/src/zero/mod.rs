//! ZeRO-1 (Rajbhandari et al., SC'20) on a flat parameter vector: [`ShardedOptimizer`].
//!
//! Every rank holds all parameters and computes gradients of its own micro-batches. The optimizer state is divided among the
//! ranks of a ZeRO group and replicated over the groups (InternEvo's "hybrid ZeRO"). A step sums the gradients onto the
//! owners of the shards, takes the global norm, clips, updates the own shard and gathers the parameters.
//!
//! **Same bits in every layout.** With `reduction = "tree"`, `k` ranks with `m` micro-batches each and any ZeRO size give
//! exactly the parameters of one rank with `k·m` micro-batches, when `k`, `m` and the ZeRO size are powers of two and rank
//! `r` takes micro-batches `r·m..(r+1)·m`. `sequential` needs one gradient buffer less per doubling of `m`, and is
//! repeatable, but depends on the layout in the last bits.
//!
//! Not here: the update rule (`optimizer/`), the schedule (`lr/`), the model.

mod accumulate;
mod buckets;
mod norm;

use std::ops::Range;

use accumulate::GradientAccumulator;
use buckets::Buckets;
use internevo_core::config::Config;
use rayon::prelude::*;

use crate::{
    ParallelError,
    comm::Buffer,
    groups::ProcessGroups,
    optimizer::{Optimizer, OptimizerChoice, Segment, StepContext},
    state::{ParamSpec, Sharding, StateTable},
};

/// Order in which gradients are added over micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReductionOrder {
    /// A balanced binary tree: bit-identical for every power-of-two split into ranks.
    Tree,
    /// One after the other: least memory.
    Sequential,
}

/// Settings of the sharded step; section `hybrid_zero_optimizer`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZeroConfig {
    /// Bytes per bucket of reduction and gathering.
    pub reduce_bucket_size: usize,
    /// Clip the global gradient norm to this; 0 = off.
    pub clip_grad_norm: f64,
    /// Order of additions.
    pub reduction: ReductionOrder,
}

impl ZeroConfig {
    /// The settings of a job.
    ///
    /// # Errors
    /// [`ParallelError::UnknownReduction`].
    pub fn from_config(config: &Config) -> Result<Self, ParallelError> {
        let section = &config.hybrid_zero_optimizer;
        let reduction = match section.reduction.as_str() {
            "tree" => ReductionOrder::Tree,
            "sequential" => ReductionOrder::Sequential,
            other => return Err(ParallelError::UnknownReduction { found: other.to_owned() }),
        };
        Ok(Self { reduce_bucket_size: section.reduce_bucket_size, clip_grad_norm: section.clip_grad_norm, reduction })
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Global gradient norm before clipping; NaN or infinite when the step was skipped.
    pub grad_norm: f64,
    /// Whether the gradient was scaled down.
    pub clipped: bool,
    /// Whether the step changed nothing because a gradient was not finite.
    pub skipped: bool,
}

/// Index within the step, over all data-parallel ranks, of a rank's `local`-th micro-batch of `micro_num`.
pub fn global_micro_batch(data_rank: usize, micro_num: usize, local: usize) -> usize {
    data_rank * micro_num + local
}

/// Flat parameters with a sharded optimizer. One per rank; [`ShardedOptimizer::step`] is collective.
pub struct ShardedOptimizer {
    pub(crate) table: StateTable,
    pub(crate) sharding: Sharding,
    pub(crate) groups: ProcessGroups,
    /// All parameters, padded to whole shards.
    pub(crate) params: Vec<f32>,
    pub(crate) optimizer: Box<dyn Optimizer>,
    pub(crate) kind: &'static str,
    /// Updates applied so far.
    pub(crate) updates: u64,
    /// Steps skipped so far.
    pub(crate) skipped: u64,
    config: ZeroConfig,
    segments: Vec<Segment>,
    accumulator: GradientAccumulator,
    /// This rank's part of the summed gradient; its memory is kept between steps.
    shard_gradient: Vec<f32>,
    buckets: Buckets,
}

impl ShardedOptimizer {
    /// Takes over the parameters `initial`, in the order of `specs`. Collective over `groups.data`, whose ranks must bring
    /// the same values.
    ///
    /// # Errors
    /// A duplicate name, a wrong number of values, optimizer settings that make no sense, ranks that start differently, or
    /// a failed world.
    pub fn new(
        specs: Vec<ParamSpec>,
        initial: Vec<f32>,
        groups: ProcessGroups,
        optimizer: &OptimizerChoice,
        config: ZeroConfig,
    ) -> Result<Self, ParallelError> {
        let table = StateTable::new(specs)?;
        let rank = groups.world.rank();
        if initial.len() != table.total() {
            return Err(ParallelError::ParameterCount { rank, expected: table.total(), found: initial.len() });
        }
        check_equal_start(&initial, &groups)?;
        let sharding = Sharding::new(table.total(), groups.zero1.size());
        let own = sharding.range(groups.zero1.rank());
        let segment = |piece: crate::state::Piece| {
            let spec = &table.entries()[piece.entry].spec;
            Segment { name: spec.name.clone(), range: piece.range, decay: spec.decay }
        };
        let segments = table.pieces(&own).into_iter().map(segment).collect();
        let mut params = initial;
        params.resize(sharding.padded_len(), 0.0);
        Ok(Self {
            optimizer: optimizer.build(sharding.shard_len)?,
            kind: optimizer.name(),
            accumulator: GradientAccumulator::new(config.reduction, sharding.padded_len()),
            updates: 0,
            skipped: 0,
            shard_gradient: Vec::new(),
            buckets: Buckets::new(config.reduce_bucket_size),
            table,
            sharding,
            groups,
            params,
            config,
            segments,
        })
    }

    /// All parameters, in the order of the specs; current after every [`ShardedOptimizer::step`].
    pub fn params(&self) -> &[f32] {
        &self.params[..self.table.total()]
    }

    /// Names, shapes and places of the parameters.
    pub fn table(&self) -> &StateTable {
        &self.table
    }

    /// The part of the flat vector whose optimizer state this rank owns, padding included.
    pub fn own_shard(&self) -> Range<usize> {
        self.sharding.range(self.groups.zero1.rank())
    }

    /// Updates applied so far: steps that were not skipped.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Steps skipped so far because a gradient was not finite (`inf_nan_skip_batches`).
    pub fn skipped_steps(&self) -> u64 {
        self.skipped
    }

    /// Adds the gradient of the next micro-batch. `fill` writes it to a zeroed flat buffer, already scaled by one over the
    /// step's global label count, so that the sum over micro-batches and ranks is the gradient of the mean loss.
    pub fn accumulate<R>(&mut self, fill: impl FnOnce(&mut [f32]) -> R) -> R {
        let mut buffer = self.accumulator.buffer();
        let result = fill(&mut buffer[..self.table.total()]);
        self.accumulator.push(buffer);
        result
    }

    /// Sums the accumulated gradients over the ranks and updates the parameters everywhere. Collective over the data group.
    ///
    /// # Errors
    /// [`ParallelError::NoGradients`], or a failed world.
    pub fn step(&mut self, lr: f64, beta2: f64) -> Result<StepOutcome, ParallelError> {
        let gradient = self.sum_gradient()?;
        let grad_norm = norm::global_norm(&gradient, &*self.groups.zero1)?;
        let outcome = self.apply(gradient, grad_norm, lr, beta2);
        if !outcome.skipped {
            self.gather_params()?;
        }
        Ok(outcome)
    }

    /// This rank's shard of the gradient, summed over micro-batches and ranks.
    fn sum_gradient(&mut self) -> Result<Vec<f32>, ParallelError> {
        let rank = self.groups.world.rank();
        let local = self.accumulator.finish().ok_or(ParallelError::NoGradients { rank })?;
        if self.groups.data.size() == 1 {
            return Ok(local);
        }
        if self.buckets.one_holds_all(self.sharding) {
            return Ok(buckets::reduce_whole(local, &self.groups)?);
        }
        let mut shard = std::mem::take(&mut self.shard_gradient);
        shard.resize(self.sharding.shard_len, 0.0);
        self.buckets.reduce_to_shard(&local, &mut shard, &self.groups, self.sharding)?;
        self.accumulator.recycle(local);
        Ok(shard)
    }

    /// Clips, updates the own shard and keeps the gradient's memory.
    fn apply(&mut self, mut gradient: Vec<f32>, grad_norm: f64, lr: f64, beta2: f64) -> StepOutcome {
        let skipped = !grad_norm.is_finite();
        let factor = self.clip_factor(grad_norm);
        if skipped {
            self.skipped += 1;
            tracing::warn!(rank = self.groups.world.rank(), grad_norm, "a gradient is not finite: step skipped");
        } else {
            if let Some(factor) = factor {
                gradient.par_chunks_mut(1 << 16).for_each(|chunk| chunk.iter_mut().for_each(|g| *g *= factor));
            }
            self.updates += 1;
            let cx = StepContext { lr, beta2, update: self.updates, segments: &self.segments };
            let own = self.sharding.range(self.groups.zero1.rank());
            self.optimizer.step(&mut self.params[own], &gradient, &cx);
        }
        if gradient.capacity() >= self.sharding.padded_len() {
            self.accumulator.recycle(gradient);
        } else {
            self.shard_gradient = gradient;
        }
        StepOutcome { grad_norm, clipped: factor.is_some(), skipped }
    }

    /// What to scale the gradient by; `None` leaves it alone. InternEvo's rule: `max / (norm + 1e-6)` when below 1.
    fn clip_factor(&self, grad_norm: f64) -> Option<f32> {
        let max = self.config.clip_grad_norm;
        let factor = max / (grad_norm + 1e-6);
        (max > 0.0 && factor < 1.0 && grad_norm.is_finite()).then_some(factor as f32)
    }

    /// Gives every rank of the ZeRO group all shards of the parameters.
    pub(crate) fn gather_params(&mut self) -> Result<(), ParallelError> {
        Ok(self.buckets.gather_shards(&mut self.params, &*self.groups.zero1, self.sharding)?)
    }
}

/// Replicas that start apart stay apart and nothing would tell: compare a hash once.
fn check_equal_start(initial: &[f32], groups: &ProcessGroups) -> Result<(), ParallelError> {
    if groups.data.size() == 1 {
        return Ok(());
    }
    let hash = blake3::hash(bytemuck::cast_slice(initial));
    let all = groups.data.all_gather(Buffer::U8(hash.as_bytes().to_vec()))?.wait()?.into_u8();
    let hashes: Vec<&[u8]> = all.chunks_exact(blake3::OUT_LEN).collect();
    let ranks: Vec<usize> = (1..hashes.len()).filter(|r| hashes[*r] != hashes[0]).collect();
    if ranks.is_empty() { Ok(()) } else { Err(ParallelError::DifferentStart { ranks }) }
}
