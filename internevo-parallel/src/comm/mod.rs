//! Communicators: how ranks talk to each other. The [`Communicator`] trait, the owned [`Buffer`]s it moves and the
//! [`Pending`] handles it returns.
//!
//! Here too: the in-process backend ([`local_world`], [`run_ranks`]), a process per rank through Open MPI (`mpi_world`, feature
//! `mpi`), a process per GPU (`nccl`, feature `nccl`), the one without peers ([`dry_world`]), counting what is sent ([`record`]),
//! small helpers on top of any backend ([`gather_bytes`], [`agree`]), the flight recorder ([`RankTrace`], [`write_flight`]) and
//! the suite every backend must pass ([`conformance`]). Not here: who belongs to which group (`groups.rs`), how a process
//! learns its rank (`launch/`), and what is reduced in training (`zero/`).

mod buffer;
mod call;
pub mod conformance;
mod dry;
mod error;
mod flight;
mod helpers;
mod local;
mod member;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
pub mod nccl;
mod ranks;
mod self_mail;
mod tree;

use std::sync::Arc;

pub use buffer::{Buffer, ElementKind, ReduceOp};
pub use dry::{DryOptions, VolumeRecorder, dry_world, record};
pub use error::{CommError, Death, FailureCause};
pub use flight::{RankTrace, write_flight};
pub use helpers::{agree, gather_bytes};
pub use local::{LocalOptions, local_world, local_world_with};
#[cfg(feature = "mpi")]
pub use mpi::{FailureHook, MpiError, MpiFault, MpiOptions, MpiWorld, mpi_world};
pub use ranks::{RunError, run_ranks, run_ranks_with};

/// A group of ranks that move data between them. A value, not a global: whoever may communicate is handed one.
///
/// **Order.** All ranks of a group must make the same collective calls in the same order; a call whose operation, element
/// kind or length differs between ranks is an error on every rank. Calls on *different* groups may interleave freely as long
/// as each group sees one order.
///
/// **Determinism.** Reductions combine the ranks' values in one fixed binary tree, whatever the timing:
/// `tree(a..b) = tree(a..a+h) + tree(a+h..b)` where `h` is the largest power of two below `b - a`. Four ranks give
/// `(r0+r1)+(r2+r3)`, five give `((r0+r1)+(r2+r3))+r4`. A reduction over `k` ranks followed by one over `n/k` groups is
/// therefore bit-identical to one over `n` ranks when `k` is a power of two and the groups are consecutive ranks.
///
/// **Progress.** Operations make progress while the ranks wait in them, on some backends also while they compute; posting
/// never blocks.
///
/// **Failure.** When a rank aborts, panics, leaves or is silent beyond the time limit, every waiting call on every rank of
/// the world ends with a [`CommError`] that names it; later calls fail at once.
pub trait Communicator: Send + Sync {
    /// This rank's number within the group, `0..size`.
    fn rank(&self) -> usize;

    /// Ranks in the group.
    fn size(&self) -> usize;

    /// Members of the group as ranks of the world, in group order.
    fn world_ranks(&self) -> &[usize];

    /// Divides the group: ranks that name the same `color` form a new group, ordered by `key`, then by their present rank.
    /// `None` joins no group. Collective.
    ///
    /// # Errors
    /// As every collective.
    fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Arc<dyn Communicator>>, CommError>;

    /// The group of `members`, which are ranks of this group, ascending, this rank among them. Collective over all ranks of
    /// this group, where everyone names its own set and two sets are equal or disjoint.
    ///
    /// # Errors
    /// A failed world, or `members` that are no such set.
    fn subgroup(&self, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError>;

    /// Combines all ranks' buffers element by element; every rank receives the result, in its own buffer.
    ///
    /// # Errors
    /// A failed world, or `op` on an element kind it is not defined for (`Sum` of bytes).
    fn all_reduce(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError>;

    /// Combines all ranks' buffers and leaves rank `r` with elements `r*m..(r+1)*m`, where `m = len / size`.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`], and when the length is no multiple of the group's size.
    fn reduce_scatter(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError>;

    /// Concatenates all ranks' buffers, which are equally long, in rank order.
    ///
    /// # Errors
    /// A failed world.
    fn all_gather(&self, buffer: Buffer) -> Result<Pending, CommError>;

    /// Completes buffers of `size` equal parts: part `r` of the result is part `r` of rank `r`'s buffer. The result is in the
    /// buffer that was given, so that nothing is allocated.
    ///
    /// # Errors
    /// A failed world, or a length that is no multiple of the group's size.
    fn all_gather_in_place(&self, buffer: Buffer) -> Result<Pending, CommError>;

    /// Sends `counts.send[q]` consecutive elements to each rank `q` and receives `counts.receive[q]` from it; the result is
    /// in rank order.
    ///
    /// # Errors
    /// A failed world, or counts that do not fit the group or the buffer. Counts on which two ranks disagree are an error
    /// on every rank.
    fn all_to_all_v(&self, buffer: Buffer, counts: &Counts) -> Result<Pending, CommError>;

    /// Everyone receives `root`'s buffer; the others' buffers only say kind and length, which must agree.
    ///
    /// # Errors
    /// A failed world, or a `root` outside the group.
    fn broadcast(&self, buffer: Buffer, root: usize) -> Result<Pending, CommError>;

    /// Sends to rank `to`. Messages of one sender, receiver and tag arrive in order. The handle is ready when `buffer` may be
    /// forgotten; its result is empty.
    ///
    /// # Errors
    /// A failed world, or `to` outside the group.
    fn send(&self, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError>;

    /// Receives `len` elements of `kind` from rank `from`.
    ///
    /// # Errors
    /// A failed world, or `from` outside the group. A message of another kind or length is an error on every rank.
    fn recv(&self, kind: ElementKind, len: usize, from: usize, tag: u32) -> Result<Pending, CommError>;

    /// Returns when every rank of the group has called it.
    ///
    /// # Errors
    /// A failed world.
    fn barrier(&self) -> Result<(), CommError>;

    /// Ends the job: every rank's present and later calls fail with `why` and this rank's number.
    fn abort(&self, why: &str);

    /// What the flight recorder holds now, in rank order: this rank's last calls, and as much of the others' as it knows. May
    /// be read at any time.
    fn flight(&self) -> Vec<RankTrace> {
        Vec::new()
    }

    /// [`Communicator::subgroup`] with a name for reports, such as `zero1`.
    ///
    /// # Errors
    /// As [`Communicator::subgroup`].
    fn subgroup_named(&self, name: &str, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError> {
        let _ = name;
        self.subgroup(members)
    }
}

/// How many elements [`Communicator::all_to_all_v`] moves to and from each rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Elements for each rank, `[size]`; their sum is the buffer's length.
    pub send: Vec<usize>,
    /// Elements from each rank, `[size]`; their sum is the result's length.
    pub receive: Vec<usize>,
}

/// An operation under way. Dropping it gives up the result; the other ranks still get theirs.
#[must_use = "an operation is finished by `wait`"]
pub struct Pending {
    finish: Box<dyn FnOnce() -> Result<Buffer, CommError> + Send>,
}

impl Pending {
    /// A handle whose result is computed by `finish` when it is waited for; for backends.
    pub fn new(finish: impl FnOnce() -> Result<Buffer, CommError> + Send + 'static) -> Self {
        Self { finish: Box::new(finish) }
    }

    /// A handle that is ready.
    pub fn ready(buffer: Buffer) -> Self {
        Self::new(move || Ok(buffer))
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// When the world failed before the operation was complete.
    pub fn wait(self) -> Result<Buffer, CommError> {
        (self.finish)()
    }
}
