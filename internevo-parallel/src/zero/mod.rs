//! ZeRO (Rajbhandari et al., SC'20) on a rank's local vector of parameters: [`ShardedOptimizer`].
//!
//! | stage | every rank holds | and shares with its ZeRO group |
//! |---|---|---|
//! | 1 | weights, gradients | optimizer state |
//! | 2 | weights, one bucket of gradients | optimizer state, gradients: reduced after every micro-batch |
//! | 3 | what it computes with | optimizer state, gradients, weights (`weight/` gathers them) |
//!
//! The state is replicated over the ZeRO groups (InternEvo's "hybrid ZeRO"). A step sums the gradients onto the owners of the
//! shards, takes the global norm, clips, updates the own shard and gathers the parameters.
//!
//! **Same bits in every data-parallel layout.** With `reduction = "tree"`, `k` ranks with `m` micro-batches each, any ZeRO stage
//! and size give exactly the parameters of one rank with `k·m` micro-batches, when `k`, `m` and the ZeRO size are powers of
//! two and ranks take micro-batches as [`MicroBatches`] says. `sequential` needs one gradient buffer less per doubling of `m`,
//! and is repeatable, but depends on the layout in the last bits.
//!
//! Not here: the update rule (`optimizer/`), the schedule (`lr/`), who holds what (`state/`), the model.

mod accumulate;
mod norm;
mod order;
mod sink;

use std::{collections::VecDeque, ops::Range, sync::Arc};

use internevo_core::config::Config;
use norm::SquareSum;
pub use order::MicroBatches;
use rayon::prelude::*;
pub use sink::GradientSink;

use crate::{
    ParallelError,
    comm::{Buffer, Pending},
    groups::ProcessGroups,
    optimizer::{Optimizer, OptimizerChoice, Segment, ShardLayout, StepContext},
    state::{Assignment, Exchange, LocalTable, Piece, Sharding, StatePlan},
};

/// Buckets of parameters on their way at a time: one travels while the next is packed.
const IN_FLIGHT: usize = 2;

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
    /// Clip the global gradient norm to this; 0 = off.
    pub clip_grad_norm: f64,
    /// Order of additions.
    pub reduction: ReductionOrder,
    /// Send a bucket of gradients as soon as it is full, while the backward pass goes on.
    pub overlap_sync_grad: bool,
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
        let (clip_grad_norm, overlap_sync_grad) = (section.clip_grad_norm, section.overlap_sync_grad);
        Ok(Self { clip_grad_norm, reduction, overlap_sync_grad })
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Global gradient norm before clipping; NaN when the step was skipped.
    pub grad_norm: f64,
    /// Whether the gradient was scaled down.
    pub clipped: bool,
    /// Whether the step changed nothing because a gradient was not finite.
    pub skipped: bool,
}

/// A step's gradient on the owner of a shard, summed over micro-batches and ranks, before clipping.
#[derive(Debug)]
pub struct ShardGradient(Vec<f32>);

/// A rank's parameters with their optimizer. One per rank; [`ShardedOptimizer::step`] is collective.
pub struct ShardedOptimizer {
    pub(crate) plan: StatePlan,
    pub(crate) table: Arc<LocalTable>,
    pub(crate) sharding: Arc<Sharding>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) groups: ProcessGroups,
    pub(crate) exchange: Exchange,
    /// The local vector.
    pub(crate) params: Vec<f32>,
    pub(crate) optimizer: Box<dyn Optimizer>,
    pub(crate) kind: &'static str,
    /// Updates applied so far.
    pub(crate) updates: u64,
    /// Steps skipped so far.
    pub(crate) skipped: u64,
    config: ZeroConfig,
    layout: ShardLayout,
    part: usize,
    sink: Arc<GradientSink>,
}

impl ShardedOptimizer {
    /// Takes over this rank's parameters `initial`, laid out as `plan` says for it ([`StatePlan::table`]); with pure data
    /// parallelism that is every parameter in the order of the model. Collective over the world, whose ranks must bring the
    /// same values where they hold the same elements.
    ///
    /// # Errors
    /// A duplicate name, a wrong number of values, optimizer settings that make no sense, ranks that start differently, or
    /// a failed world.
    pub fn new(
        plan: StatePlan,
        initial: Vec<f32>,
        groups: ProcessGroups,
        optimizer: &OptimizerChoice,
        config: ZeroConfig,
    ) -> Result<Self, ParallelError> {
        let rank = groups.world.rank();
        let (table, pieces) = plan.pieces(rank)?;
        if initial.len() != table.total() {
            return Err(ParallelError::ParameterCount { rank, expected: table.total(), found: initial.len() });
        }
        check_equal_start(&plan, &initial, &groups)?;
        let (table, sharding) = (Arc::new(table.clone()), Arc::new(plan.sharding(&table)));
        let segments = pieces.iter().map(|piece| Segment::of(piece, &table.params()[piece.param])).collect();
        let layout = ShardLayout { len: sharding.shard_len(), segments, params: table.specs() };
        let sink = GradientSink::new(&plan, table.clone(), sharding.clone(), groups.clone(), &config);
        Ok(Self {
            optimizer: optimizer.build(&layout)?,
            kind: optimizer.name(),
            updates: 0,
            skipped: 0,
            exchange: Exchange::new(&plan, groups.state.clone())?,
            part: plan.shard_of(rank),
            sink: Arc::new(sink),
            params: initial,
            plan,
            table,
            sharding,
            pieces,
            groups,
            config,
            layout,
        })
    }

    /// This rank's parameters: its local vector; current after every [`ShardedOptimizer::step`].
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// Names, shapes and places of the parameters in the local vector.
    pub fn table(&self) -> &LocalTable {
        &self.table
    }

    /// Who holds what.
    pub fn plan(&self) -> &StatePlan {
        &self.plan
    }

    /// Updates applied so far: steps that were not skipped.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Steps skipped so far because a gradient was not finite.
    pub fn skipped_steps(&self) -> u64 {
        self.skipped
    }

    /// Where a backward pass leaves its gradients, already scaled by one over the step's global label count, so that the sum
    /// over micro-batches and ranks is the gradient of the mean loss.
    pub fn sink(&self) -> &Arc<GradientSink> {
        &self.sink
    }

    /// Adds the gradient of the next micro-batch, for models that have all of it at once: `fill` writes it to a zeroed buffer
    /// laid out as the local vector. Collective where ranks share weights or sequences.
    ///
    /// # Errors
    /// A failed world.
    pub fn accumulate<R>(&mut self, fill: impl FnOnce(&mut [f32]) -> R) -> Result<R, ParallelError> {
        let mut flat = vec![0.0; self.table.total()];
        let result = fill(&mut flat);
        self.sink.deposit_flat(&flat)?;
        Ok(result)
    }

    /// Sums the accumulated gradients over the ranks and updates the parameters everywhere. Collective.
    ///
    /// # Errors
    /// [`ParallelError::NoGradients`], or a failed world.
    pub fn step(&mut self, lr: f64, beta2: f64) -> Result<StepOutcome, ParallelError> {
        let gradient = self.reduce()?;
        self.update(gradient, lr, beta2)
    }

    /// The first half of a step: this rank's shard of the summed gradient.
    ///
    /// # Errors
    /// As [`ShardedOptimizer::step`].
    pub fn reduce(&mut self) -> Result<ShardGradient, ParallelError> {
        let rank = self.groups.world.rank();
        Ok(ShardGradient(self.sink.collect()?.ok_or(ParallelError::NoGradients { rank })?))
    }

    /// The second half: norm, clipping, update, and the new parameters on every rank. Collective.
    ///
    /// # Errors
    /// As [`ShardedOptimizer::step`].
    pub fn update(&mut self, gradient: ShardGradient, lr: f64, beta2: f64) -> Result<StepOutcome, ParallelError> {
        let ShardGradient(mut gradient) = gradient;
        let grad_norm = self.norm(&gradient)?;
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
            self.apply(&gradient, lr, beta2)?;
            self.gather_params()?;
        }
        self.sink.recycle(gradient);
        Ok(StepOutcome { grad_norm, clipped: factor.is_some(), skipped })
    }

    /// A step's whole gradient, parameter by parameter, on rank 0 of the state's copy; empty on the others. For checks: it
    /// needs the memory of the whole model there. Collective.
    ///
    /// # Errors
    /// A failed world.
    pub fn whole_gradient(&self, gradient: &ShardGradient) -> Result<Vec<Vec<f32>>, ParallelError> {
        self.whole(&gradient.0)
    }

    /// All parameters, whole and in the order of the model, on rank 0 of the state's copy; empty on the others. Collective.
    ///
    /// # Errors
    /// A failed world.
    pub fn whole_params(&self) -> Result<Vec<Vec<f32>>, ParallelError> {
        self.whole(&self.shard())
    }

    fn whole(&self, shard: &[f32]) -> Result<Vec<Vec<f32>>, ParallelError> {
        let all: Vec<_> = (0..self.table.params().len()).map(|param| Assignment { param, owner: 0 }).collect();
        Ok(self.exchange.gather(&all, shard)?.into_iter().map(|(_, values)| values).collect())
    }

    fn norm(&self, gradient: &[f32]) -> Result<f64, ParallelError> {
        let mut sum = SquareSum::new();
        for piece in self.pieces.iter().filter(|piece| self.table.params()[piece.param].primary) {
            sum.add(&gradient[piece.at.clone()]);
        }
        Ok(sum.root(&*self.groups.state)?)
    }

    /// What to scale the gradient by; `None` leaves it alone. InternEvo's rule: `max / (norm + 1e-6)` when below 1.
    fn clip_factor(&self, grad_norm: f64) -> Option<f32> {
        let max = self.config.clip_grad_norm;
        let factor = max / (grad_norm + 1e-6);
        (max > 0.0 && factor < 1.0 && grad_norm.is_finite()).then_some(factor as f32)
    }

    fn apply(&mut self, gradient: &[f32], lr: f64, beta2: f64) -> Result<(), ParallelError> {
        let cx = StepContext { lr, beta2, update: self.updates, shard: &self.layout, exchange: &self.exchange };
        if self.sharding.parts() == 1 {
            return self.optimizer.step(&mut self.params, gradient, &cx);
        }
        let mut shard = self.shard();
        let cx = StepContext { lr, beta2, update: self.updates, shard: &self.layout, exchange: &self.exchange };
        self.optimizer.step(&mut shard, gradient, &cx)?;
        self.write_shard(&shard);
        Ok(())
    }

    /// This rank's shard of the parameters; padding is zero.
    pub(crate) fn shard(&self) -> Vec<f32> {
        let mut shard = vec![0.0; self.sharding.shard_len()];
        for (bucket, place) in self.own_buckets() {
            shard[place].copy_from_slice(&self.params[bucket]);
        }
        shard
    }

    pub(crate) fn write_shard(&mut self, shard: &[f32]) {
        for (bucket, place) in self.own_buckets().collect::<Vec<_>>() {
            self.params[bucket].copy_from_slice(&shard[place]);
        }
    }

    /// Of each bucket, the elements that this rank owns, and their place in its shard.
    fn own_buckets(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
        self.sharding.buckets().iter().zip(self.sharding.starts()).map(|(bucket, start)| {
            let own = bucket.own(self.part);
            let len = own.len();
            (own, start..start + len)
        })
    }

    /// Gives every rank of the ZeRO group all shards of the parameters, bucket by bucket.
    pub(crate) fn gather_params(&mut self) -> Result<(), ParallelError> {
        if self.sharding.parts() == 1 {
            return Ok(());
        }
        let sharding = self.sharding.clone();
        let mut travelling: VecDeque<(Range<usize>, Pending)> = VecDeque::with_capacity(IN_FLIGHT);
        let land = |params: &mut [f32], (range, pending): (Range<usize>, Pending)| -> Result<(), ParallelError> {
            let bucket = pending.wait()?.into_f32();
            params[range.clone()].copy_from_slice(&bucket[..range.len()]);
            Ok(())
        };
        for bucket in sharding.buckets() {
            let mut whole = vec![0.0; bucket.padded()];
            let own = bucket.own(self.part);
            let at = own.start - bucket.range.start;
            whole[at..at + own.len()].copy_from_slice(&self.params[own]);
            let pending = self.groups.zero1.all_gather_in_place(Buffer::F32(whole))?;
            travelling.push_back((bucket.range.clone(), pending));
            if travelling.len() == IN_FLIGHT {
                land(&mut self.params, travelling.pop_front().expect("just pushed"))?;
            }
        }
        travelling.into_iter().try_for_each(|bucket| land(&mut self.params, bucket))
    }
}

/// Replicas that start apart stay apart and nothing would tell: compare a hash once.
fn check_equal_start(plan: &StatePlan, initial: &[f32], groups: &ProcessGroups) -> Result<(), ParallelError> {
    let world = &groups.world;
    if world.size() == 1 {
        return Ok(());
    }
    let hash = blake3::hash(bytemuck::cast_slice(initial));
    let all = world.all_gather(Buffer::U8(hash.as_bytes().to_vec()))?.wait()?.into_u8();
    let hashes: Vec<&[u8]> = all.chunks_exact(blake3::OUT_LEN).collect();
    let differs = |rank: &usize| hashes[*rank] != hashes[plan.first_equal(*rank)];
    let ranks: Vec<usize> = (0..hashes.len()).filter(differs).collect();
    if ranks.is_empty() { Ok(()) } else { Err(ParallelError::DifferentStart { ranks }) }
}
