//! The communicators of one rank: one per kind of group of the layout.
//!
//! Which ranks belong together is arithmetic (`internevo_core::layout`); this file only turns it into communicators.

use std::sync::Arc;

use internevo_core::layout::{GroupKind, ParallelLayout};

use crate::{ParallelError, comm::Communicator};

/// One rank's groups. Cloning shares the communicators.
#[derive(Clone)]
pub struct ProcessGroups {
    /// All ranks.
    pub world: Arc<dyn Communicator>,
    /// Ranks that see different samples and hold the same share of the model.
    pub data: Arc<dyn Communicator>,
    /// Ranks that share each layer (`mtp`, `msp`, `fsp`) or each sequence (`isp`).
    pub tensor: Arc<dyn Communicator>,
    /// Ranks that share one copy of the weights (`isp`).
    pub weight: Arc<dyn Communicator>,
    /// Ranks that share one copy of the optimizer state.
    pub zero1: Arc<dyn Communicator>,
    /// Ranks that hold the same shard of the optimizer state, one from each `zero1` group.
    pub zero1_replica: Arc<dyn Communicator>,
    /// Ranks that together hold one copy of the training state.
    pub state: Arc<dyn Communicator>,
    /// Ranks that exchange attention heads for tokens (`isp`).
    pub head: Arc<dyn Communicator>,
    /// Ranks that pass keys and values around a ring (`isp`).
    pub context: Arc<dyn Communicator>,
}

impl ProcessGroups {
    /// Makes the groups of `layout`. Collective: every rank of `world` calls it.
    ///
    /// # Errors
    /// [`ParallelError::WorldSize`], or a failed world.
    pub fn new(layout: &ParallelLayout, world: Arc<dyn Communicator>) -> Result<Self, ParallelError> {
        if layout.world() != world.size() {
            return Err(ParallelError::WorldSize { layout: layout.world(), world: world.size() });
        }
        let group = |name, kind| world.subgroup_named(name, &layout.group_of(kind, world.rank()));
        Ok(Self {
            data: group("data", GroupKind::Data)?,
            tensor: group("tensor", GroupKind::Tensor)?,
            weight: group("weight", GroupKind::Weight)?,
            zero1: group("zero1", GroupKind::Zero1)?,
            zero1_replica: group("zero1_replica", GroupKind::Zero1Replica)?,
            state: group("state", GroupKind::State)?,
            head: group("head", GroupKind::SequenceHead)?,
            context: group("context", GroupKind::SequenceContext)?,
            world,
        })
    }
}
