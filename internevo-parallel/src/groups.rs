//! The communicators of one rank: one per kind of group that data-parallel training uses.
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
    /// Ranks that hold the same part of the model and see different data.
    pub data: Arc<dyn Communicator>,
    /// Ranks of `data` that share one copy of the optimizer state.
    pub zero1: Arc<dyn Communicator>,
    /// Ranks of `data` that hold the same shard of the optimizer state, one from each `zero1` group.
    pub zero1_replica: Arc<dyn Communicator>,
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
        let group = |kind| -> Result<Arc<dyn Communicator>, ParallelError> {
            let members = layout.group_of(kind, world.rank());
            let color = members.iter().copied().min().expect("a rank's group holds at least the rank");
            let key = members.iter().position(|r| *r == world.rank()).expect("a rank is in its own group");
            let group = world.split(Some(color as u32), key as i32)?;
            Ok(group.expect("every rank named a color"))
        };
        let (data, zero1) = (group(GroupKind::Data)?, group(GroupKind::Zero1)?);
        let zero1_replica = group(GroupKind::Zero1Replica)?;
        Ok(Self { world, data, zero1, zero1_replica })
    }
}
