//! The parallel layout as arithmetic: rank ↔ coordinates, and the ranks of every group.
//!
//! InternEvo's order and algebra (`core/context/process_group_initializer.py`): the tensor axis is fastest, then data, then
//! pipeline, and `world = dp·pp·tp = wdp·pp·wp`. Weight groups are contiguous ranks of one pipeline stage, independent of the
//! tensor groups (mode `isp`). ZeRO groups are runs of consecutive members of the group that holds equal weights: the data
//! group, or with `isp` the weight-data group.
//!
//! Nothing here communicates: the trainer, the checkpoint and the planner all read the same numbers.

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
}

impl GroupKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Data,
        Self::Tensor,
        Self::Sequence,
        Self::Weight,
        Self::WeightData,
        Self::Pipeline,
        Self::Zero1,
        Self::Zero1Replica,
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
}

/// Sizes of all groups of a world, checked against the algebra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParallelLayout {
    world: usize,
    pipeline: usize,
    tensor: usize,
    weight: usize,
    zero1: usize,
    zero_over_weight_data: bool,
}

/// The tensor-parallel modes of InternEvo.
pub const TENSOR_MODES: [&str; 4] = ["mtp", "msp", "fsp", "isp"];

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
        Ok(Self { world, pipeline, tensor, weight, zero1, zero_over_weight_data: isp })
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
        Coordinates {
            pipeline: rank / self.stage(),
            data: in_stage / self.tensor,
            tensor: in_stage % self.tensor,
            weight: in_stage % self.weight,
            weight_data: in_stage / self.weight,
            zero1: zero_axis % self.zero1,
            zero1_replica: zero_axis / self.zero1,
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
        let stride = match kind {
            GroupKind::Tensor | GroupKind::Sequence | GroupKind::Weight => 1,
            GroupKind::Data => self.tensor,
            GroupKind::WeightData => self.weight,
            GroupKind::Pipeline => self.stage(),
            GroupKind::Zero1 => self.zero_stride(),
            GroupKind::Zero1Replica => self.zero_stride() * self.zero1,
        };
        let size = self.size(kind);
        let in_stage = rank % self.stage();
        let place = if kind == GroupKind::Pipeline { rank / stride } else { in_stage / stride % size };
        let first = rank - place * stride;
        (0..size).map(|i| first + i * stride).collect()
    }

    fn stage(&self) -> usize {
        self.world / self.pipeline
    }

    /// Distance between neighbours of the group that the optimizer state is sharded over.
    fn zero_stride(&self) -> usize {
        if self.zero_over_weight_data { self.weight } else { self.tensor }
    }
}
