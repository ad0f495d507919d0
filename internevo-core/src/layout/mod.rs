//! The parallel layout as arithmetic: rank ↔ coordinates, and the ranks of every group.
//!
//! InternEvo's order and algebra (`core/context/process_group_initializer.py`): the tensor axis is fastest, then data, then
//! pipeline, and `world = dp·pp·tp = wdp·pp·wp`. Weight groups are contiguous ranks of one pipeline stage, independent of the
//! tensor groups (mode `isp`). ZeRO groups are runs of consecutive members of the group that holds equal weights: the data
//! group, or with `isp` the weight-data group. With `isp` a tensor group is a grid of head groups (all-to-all around attention)
//! and context groups (ring attention): `tensor = head · context`.
//!
//! Which modes exist is for the registry of strategies to say; the algebra only tells `isp`, which splits sequences and gathers
//! weights, from the others, which split layers. Nothing here communicates: the trainer, the checkpoint and the planner all read the same numbers.

mod error;
#[cfg(test)]
mod tests;

pub use error::{LayoutErrors, LayoutViolation};

use crate::config::ParallelConfig;

/// A family of disjoint groups that together hold every rank once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GroupKind {
    /// Ranks that process different samples with the same share of the model.
    Data,
    /// Ranks that share each layer (`mtp`, `msp`, `fsp`) or each sequence (`isp`).
    Tensor,
    /// Ranks that share a sequence: in every mode the tensor group.
    Sequence,
    /// Ranks that share one copy of a stage's weights (`isp`).
    Weight,
    /// Ranks that hold the same share of the weights as each other, across weight groups.
    WeightData,
    /// One rank of every stage.
    Pipeline,
    /// Ranks that share one copy of the optimizer state.
    Zero1,
    /// Ranks that hold the same share of the optimizer state, across ZeRO groups.
    Zero1Replica,
    /// Ranks that together hold one copy of a stage's training state: a ZeRO group of tensor (or weight) groups.
    State,
    /// Ranks of a tensor group that exchange attention heads for tokens (`isp`).
    SequenceHead,
    /// Ranks of a tensor group that pass keys and values around a ring (`isp` with `sequence_2D`).
    SequenceContext,
}

impl GroupKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Data,
        Self::Tensor,
        Self::Sequence,
        Self::Weight,
        Self::WeightData,
        Self::Pipeline,
        Self::Zero1,
        Self::Zero1Replica,
        Self::State,
        Self::SequenceHead,
        Self::SequenceContext,
    ];
}

/// Where a rank is on every axis. `pipeline`, `data` and `tensor` determine the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// Stage, `0..pp`.
    pub pipeline: usize,
    /// Place in the data group, `0..dp`.
    pub data: usize,
    /// Place in the tensor (and sequence) group, `0..tp`.
    pub tensor: usize,
    /// Place in the weight group, `0..wp`.
    pub weight: usize,
    /// Place in the weight-data group, `0..wdp`.
    pub weight_data: usize,
    /// Place in the ZeRO group: which share of the optimizer state is held.
    pub zero1: usize,
    /// Which of the copies of the optimizer state this rank's ZeRO group holds.
    pub zero1_replica: usize,
    /// Place in the head group, `0..head_size`.
    pub head: usize,
    /// Place in the context group, `0..context_size`.
    pub context: usize,
}

/// What ZeRO shards (Rajbhandari et al., SC'20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZeroStage {
    /// The optimizer state.
    Optimizer,
    /// And the gradients.
    Gradients,
    /// And the weights.
    Weights,
}

/// Sizes of all groups of a world, checked against the algebra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParallelLayout {
    world: usize,
    pipeline: usize,
    tensor: usize,
    weight: usize,
    zero1: usize,
    zero_stage: ZeroStage,
    isp: bool,
    head: usize,
    head_first: bool,
}

impl ParallelLayout {
    /// The layout of `world` ranks.
    ///
    /// # Errors
    /// Every violated rule, each with the key that breaks it.
    pub fn new(config: &ParallelConfig, world: usize) -> Result<Self, LayoutErrors> {
        let violations = error::violations(config, world);
        if !violations.is_empty() {
            return Err(LayoutErrors(violations));
        }
        let isp = config.tensor.mode == "isp";
        let (pipeline, tensor, weight) = (config.pipeline.size, config.tensor.size, config.weight.size);
        let equal_weights = world / pipeline / if isp { weight } else { tensor };
        let zero1 = usize::try_from(config.zero1.size).ok().filter(|size| *size > 0).unwrap_or(equal_weights);
        let zero_stage = match config.zero1.stage {
            _ if config.zero1.fsdp => ZeroStage::Weights,
            3 => ZeroStage::Weights,
            2 => ZeroStage::Gradients,
            _ => ZeroStage::Optimizer,
        };
        let grid = &config.sequence_2d;
        let head = match (isp, grid.enable) {
            (false, _) => 1,
            (true, false) => tensor,
            (true, true) => grid.head_size,
        };
        let head_first = grid.device_placement_strategy.head_first;
        Ok(Self { world, pipeline, tensor, weight, zero1, zero_stage, isp, head, head_first })
    }

    /// What ZeRO shards over its groups.
    pub fn zero_stage(&self) -> ZeroStage {
        self.zero_stage
    }

    /// Whether tensor groups split sequences and weights are gathered (`isp`), rather than splitting each layer.
    pub fn is_isp(&self) -> bool {
        self.isp
    }

    /// The groups over which weights are sharded and gathered before use, if any.
    pub fn weight_sharding(&self) -> Option<GroupKind> {
        let kind = if self.isp { GroupKind::Weight } else { GroupKind::Zero1 };
        let on = self.size(kind) > 1 && (self.isp || self.zero_stage == ZeroStage::Weights);
        on.then_some(kind)
    }

    /// Ranks in the job.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Ranks in each group of `kind`.
    pub fn size(&self, kind: GroupKind) -> usize {
        match kind {
            GroupKind::Data => self.stage() / self.tensor,
            GroupKind::Tensor | GroupKind::Sequence => self.tensor,
            GroupKind::Weight => self.weight,
            GroupKind::WeightData => self.stage() / self.weight,
            GroupKind::Pipeline => self.pipeline,
            GroupKind::Zero1 => self.zero1,
            GroupKind::Zero1Replica => self.stage() / self.zero_stride() / self.zero1,
            GroupKind::State => self.zero_stride() * self.zero1,
            GroupKind::SequenceHead => self.head,
            GroupKind::SequenceContext => {
                if self.isp {
                    self.tensor / self.head
                } else {
                    1
                }
            }
        }
    }

    /// Where `rank` is.
    ///
    /// # Panics
    /// If `rank` is not below [`world`](Self::world).
    pub fn coordinates(&self, rank: usize) -> Coordinates {
        assert!(rank < self.world, "rank {rank} of a world of {}", self.world);
        let in_stage = rank % self.stage();
        let zero_axis = in_stage / self.zero_stride();
        let place = |kind| in_stage / self.stride(kind) % self.size(kind);
        Coordinates {
            pipeline: rank / self.stage(),
            data: in_stage / self.tensor,
            tensor: in_stage % self.tensor,
            weight: in_stage % self.weight,
            weight_data: in_stage / self.weight,
            zero1: zero_axis % self.zero1,
            zero1_replica: zero_axis / self.zero1,
            head: place(GroupKind::SequenceHead),
            context: place(GroupKind::SequenceContext),
        }
    }

    /// The rank at `pipeline`, `data` and `tensor` of `coordinates`; the other fields follow from these three.
    ///
    /// # Panics
    /// If a coordinate is outside its axis.
    pub fn rank(&self, coordinates: Coordinates) -> usize {
        let Coordinates { pipeline, data, tensor, .. } = coordinates;
        let inside = pipeline < self.pipeline && data < self.size(GroupKind::Data) && tensor < self.tensor;
        assert!(inside, "{coordinates:?} is outside {self:?}");
        (pipeline * self.size(GroupKind::Data) + data) * self.tensor + tensor
    }

    /// All groups of `kind`, in the order of their first rank; ranks ascend inside a group.
    pub fn groups(&self, kind: GroupKind) -> Vec<Vec<usize>> {
        (0..self.world)
            .map(|rank| self.group_of(kind, rank))
            .enumerate()
            .filter(|(r, g)| g[0] == *r)
            .map(|g| g.1)
            .collect()
    }

    /// The group of `kind` that holds `rank`, ascending.
    ///
    /// # Panics
    /// If `rank` is not below [`world`](Self::world).
    pub fn group_of(&self, kind: GroupKind, rank: usize) -> Vec<usize> {
        assert!(rank < self.world, "rank {rank} of a world of {}", self.world);
        // Every group is an arithmetic progression; a rank's place in it is one digit of the rank in mixed radix.
        let (stride, size) = (self.stride(kind), self.size(kind));
        let in_stage = rank % self.stage();
        let place = if kind == GroupKind::Pipeline { rank / stride } else { in_stage / stride % size };
        let first = rank - place * stride;
        (0..size).map(|i| first + i * stride).collect()
    }

    /// Distance between neighbours of a group.
    fn stride(&self, kind: GroupKind) -> usize {
        match kind {
            GroupKind::Tensor | GroupKind::Sequence | GroupKind::Weight | GroupKind::State => 1,
            GroupKind::Data => self.tensor,
            GroupKind::WeightData => self.weight,
            GroupKind::Pipeline => self.stage(),
            GroupKind::Zero1 => self.zero_stride(),
            GroupKind::Zero1Replica => self.zero_stride() * self.zero1,
            GroupKind::SequenceHead => {
                if self.head_first {
                    1
                } else {
                    self.size(GroupKind::SequenceContext)
                }
            }
            GroupKind::SequenceContext => {
                if self.head_first {
                    self.head
                } else {
                    1
                }
            }
        }
    }

    fn stage(&self) -> usize {
        self.world / self.pipeline
    }

    /// Distance between neighbours of the group that the optimizer state is sharded over.
    fn zero_stride(&self) -> usize {
        if self.isp { self.weight } else { self.tensor }
    }
}
