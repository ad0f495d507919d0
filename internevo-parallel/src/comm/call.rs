//! What a call is, as far as all ranks of a group must agree on it, and who makes it. Shared by the backends; not here: how a
//! call is carried out.

use std::{fmt, sync::Arc};

use super::{CommError, ElementKind, FailureCause, RankTrace, ReduceOp};

/// What a collective does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    AllReduce(ReduceOp),
    ReduceScatter(ReduceOp),
    AllGather,
    AllGatherInPlace,
    AllToAll,
    Broadcast { root: usize },
    Barrier,
    Split,
}

/// One rank's call of a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) kind: ElementKind,
    pub(crate) len: usize,
}

impl Call {
    /// Whether two ranks may meet in these calls.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let same_len = self.len == other.len || self.verb == Verb::AllToAll;
        self.verb == other.verb && self.kind == other.kind && same_len
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, len, .. } = self;
        match self.verb {
            Verb::AllReduce(op) => write!(f, "all_reduce({op}, {kind} x {len})"),
            Verb::ReduceScatter(op) => write!(f, "reduce_scatter({op}, {kind} x {len})"),
            Verb::AllGather => write!(f, "all_gather({kind} x {len})"),
            Verb::AllGatherInPlace => write!(f, "all_gather_in_place({kind} x {len})"),
            Verb::AllToAll => write!(f, "all_to_all_v({kind} x {len})"),
            Verb::Broadcast { root } => write!(f, "broadcast({kind} x {len}, root {root})"),
            Verb::Barrier => f.write_str("barrier"),
            Verb::Split => f.write_str("split"),
        }
    }
}

/// Number of a group within its world, the same on all its members.
pub(crate) type GroupId = u64;

/// One rank's place in a group.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) group: GroupId,
    /// World ranks in group order.
    pub(crate) members: Arc<[usize]>,
    /// Which of them this rank is.
    pub(crate) slot: usize,
}

impl Place {
    /// The place of `rank` in the group of all `ranks`.
    pub(crate) fn in_world(rank: usize, ranks: usize) -> Self {
        Self { group: 0, members: (0..ranks).collect(), slot: rank }
    }

    /// This rank's number in the world.
    pub(crate) fn rank(&self) -> usize {
        self.members[self.slot]
    }

    /// The error of a call of this rank that makes no sense; `flight` is what the recorder knows.
    pub(crate) fn invalid(&self, call: impl ToString, reason: impl Into<String>, flight: Vec<RankTrace>) -> CommError {
        let (rank, call, reason) = (self.rank(), call.to_string(), reason.into());
        CommError::new(FailureCause::Invalid { rank, call, reason }, flight)
    }
}

/// One line of the flight recorder.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// Call number `sequence` of a group.
    Collective { call: Call, sequence: u64, members: Arc<[usize]> },
    /// A message to world rank `to`.
    Send { kind: ElementKind, len: usize, to: usize, tag: u32 },
    /// A message from world rank `from`.
    Receive { kind: ElementKind, len: usize, from: usize, tag: u32 },
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collective { call, sequence, members } => write!(f, "{call} #{sequence} of ranks {members:?}"),
            Self::Send { kind, len, to, tag } => write!(f, "send({kind} x {len}) to rank {to} tag {tag}"),
            Self::Receive { kind, len, from, tag } => write!(f, "recv({kind} x {len}) from rank {from} tag {tag}"),
        }
    }
}
