//! Who holds what: the tables and pieces of every rank, from the layout and the declarations alone.

use std::sync::Arc;

use internevo_core::layout::{Coordinates, GroupKind, ParallelLayout, ZeroStage};

use super::{LocalParam, LocalTable, ParamSpec, Part, Piece, Sharding, Slab};
use crate::{ParallelError, ProcessGroups, comm::Communicator};

/// The division of a model's state among the ranks of a layout. Pure arithmetic: the same on every rank.
#[derive(Clone, Debug)]
pub struct StatePlan {
    specs: Vec<ParamSpec>,
    splits: Vec<Option<usize>>,
    partial_norms: bool,
    layout: ParallelLayout,
    bucket_len: usize,
}

impl StatePlan {
    /// A model whose ranks all hold every parameter, up to ZeRO: data parallelism.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn replicated(
        specs: Vec<ParamSpec>,
        layout: ParallelLayout,
        bucket_bytes: usize,
    ) -> Result<Self, ParallelError> {
        let splits = vec![None; specs.len()];
        Self::new(specs, splits, false, layout, bucket_bytes)
    }

    /// A model whose parameter `i` is divided among the ranks of a tensor group along dimension `splits[i]`, if any.
    /// `partial_norms`: the ranks of a tensor group see different tokens where undivided parameters (norms) are used, so that
    /// their gradients have to be added. `bucket_bytes`: most bytes of gradients that travel as one message.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn new(
        specs: Vec<ParamSpec>,
        splits: Vec<Option<usize>>,
        partial_norms: bool,
        layout: ParallelLayout,
        bucket_bytes: usize,
    ) -> Result<Self, ParallelError> {
        assert_eq!(specs.len(), splits.len(), "one split per parameter");
        let plan = Self { specs, splits, partial_norms, layout, bucket_len: bucket_bytes / size_of::<f32>() };
        plan.table(0)?;
        Ok(plan)
    }

    /// The layout.
    pub fn layout(&self) -> &ParallelLayout {
        &self.layout
    }

    /// The declarations.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// What `rank` holds.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn table(&self, rank: usize) -> Result<LocalTable, ParallelError> {
        let place = self.layout.coordinates(rank);
        let params = self.specs.iter().zip(&self.splits);
        LocalTable::new(params.map(|(spec, split)| self.local(spec, *split, place)).collect())
    }

    fn local(&self, spec: &ParamSpec, split: Option<usize>, place: Coordinates) -> LocalParam {
        let tensor = Part { index: place.tensor, parts: self.layout.size(GroupKind::Tensor) };
        let slab = match split {
            Some(dim) => Slab::share(&spec.shape, dim, tensor.index, tensor.parts),
            None => Slab::whole(&spec.shape),
        };
        let weight = self.weight_part(place);
        // Vectors are too small to be worth a message of their own.
        let sharded = weight.parts > 1 && spec.shape.len() > 1;
        let elements = slab.elements();
        let (flat, len) = if sharded {
            let share = elements.div_ceil(weight.parts);
            let cut = |i: usize| (i * share).min(elements);
            (cut(weight.index)..cut(weight.index + 1), share)
        } else {
            (0..elements, elements)
        };
        let tensor_copies = !self.layout.is_isp() && split.is_none() && tensor.parts > 1;
        let weight_copies = weight.parts > 1 && !sharded;
        let partial = weight_copies || (tensor_copies && self.partial_norms);
        let primary = (!tensor_copies || tensor.index == 0) && (!weight_copies || weight.index == 0);
        LocalParam { spec: spec.clone(), slab, flat, offset: 0, len, sharded, partial, primary }
    }

    fn weight_part(&self, place: Coordinates) -> Part {
        match self.layout.weight_sharding() {
            Some(GroupKind::Weight) => Part { index: place.weight, parts: self.layout.size(GroupKind::Weight) },
            Some(_) => Part { index: place.zero1, parts: self.layout.size(GroupKind::Zero1) },
            None => Part::WHOLE,
        }
    }

    /// The first rank whose local vector holds the same elements as that of `rank`.
    pub fn first_equal(&self, rank: usize) -> usize {
        let held = |rank: usize| {
            let place = self.layout.coordinates(rank);
            let tensor = if self.layout.is_isp() { 0 } else { place.tensor };
            (place.pipeline, tensor, self.weight_part(place).index)
        };
        (0..=rank).find(|r| held(*r) == held(rank)).expect("a rank holds what it holds")
    }

    /// Ranks that divide the local vector among themselves: the ZeRO group, unless it shards the weights already.
    pub fn shards(&self) -> usize {
        if self.zero_shards_weights() { 1 } else { self.layout.size(GroupKind::Zero1) }
    }

    /// Which share of the local vector `rank` owns.
    pub fn shard_of(&self, rank: usize) -> usize {
        if self.zero_shards_weights() { 0 } else { self.layout.coordinates(rank).zero1 }
    }

    fn zero_shards_weights(&self) -> bool {
        self.layout.weight_sharding() == Some(GroupKind::Zero1)
    }

    /// The ranks that share each sharded weight, if there are any.
    pub fn weight_group(&self, groups: &ProcessGroups) -> Option<Arc<dyn Communicator>> {
        self.layout.weight_sharding().map(|kind| match kind {
            GroupKind::Weight => groups.weight.clone(),
            _ => groups.zero1.clone(),
        })
    }

    /// The ranks that see different tokens with equal copies of undivided parameters, if there are any.
    pub fn sequence_group(&self, groups: &ProcessGroups) -> Option<Arc<dyn Communicator>> {
        (self.partial_norms && !self.layout.is_isp() && groups.tensor.size() > 1).then(|| groups.tensor.clone())
    }

    /// Whether gradients are reduced after every micro-batch, so that no rank keeps all of them.
    pub fn reduces_every_micro_batch(&self) -> bool {
        self.layout.zero_stage() == ZeroStage::Gradients && self.shards() > 1
    }

    /// How the local vectors are divided among the ranks of a ZeRO group.
    pub fn sharding(&self, table: &LocalTable) -> Sharding {
        Sharding::new(table.total(), table.complete(), self.bucket_len, self.shards())
    }

    /// What `rank` owns of the optimizer state, with its table.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn pieces(&self, rank: usize) -> Result<(LocalTable, Vec<Piece>), ParallelError> {
        let table = self.table(rank)?;
        let pieces = table.pieces(&self.sharding(&table), self.shard_of(rank));
        Ok((table, pieces))
    }
}
