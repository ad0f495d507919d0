//! What a rank can check about its own call before anything moves; for backends. Not here: comparing the ranks' calls.

use super::{Buffer, CommError, Counts, ElementKind, FailureCause, ReduceOp};

/// Who calls: a rank of a group, and how the group is made up.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    /// Number within the group.
    pub(super) slot: usize,
    /// The group, as ranks of the world.
    pub(super) members: &'a [usize],
}

impl Caller<'_> {
    /// The error of a call that makes no sense.
    pub(super) fn invalid(self, call: impl Into<String>, reason: impl Into<String>) -> CommError {
        let rank = self.members[self.slot];
        CommError::new(FailureCause::Invalid { rank, call: call.into(), reason: reason.into() }, Vec::new())
    }

    /// Bytes have no sum.
    pub(super) fn reducible(self, verb: &str, buffer: &Buffer, op: ReduceOp) -> Result<(), CommError> {
        match (buffer.kind(), op) {
            (ElementKind::U8, ReduceOp::Sum) => {
                Err(self.invalid(format!("{verb}({op}, {})", content(buffer)), "bytes have no sum"))
            }
            _ => Ok(()),
        }
    }

    /// A buffer of one part per rank.
    pub(super) fn divisible(self, verb: &str, buffer: &Buffer) -> Result<(), CommError> {
        let (len, ranks) = (buffer.len(), self.members.len());
        if len.is_multiple_of(ranks) {
            return Ok(());
        }
        let reason = format!("{len} elements cannot be divided evenly among {ranks} ranks");
        Err(self.invalid(format!("{verb}({})", content(buffer)), reason))
    }

    /// Counts that fit the group and the buffer; what stays on this rank is as long on both sides.
    pub(super) fn counted(self, buffer: &Buffer, counts: &Counts) -> Result<(), CommError> {
        let Counts { send, receive } = counts;
        let ranks = self.members.len();
        let fit = send.len() == ranks && receive.len() == ranks && send.iter().sum::<usize>() == buffer.len();
        if fit && send[self.slot] == receive[self.slot] {
            return Ok(());
        }
        let reason = format!("counts {send:?} and {receive:?} do not fit {ranks} ranks and the buffer");
        Err(self.invalid(format!("all_to_all_v({})", content(buffer)), reason))
    }

    /// A number inside the group.
    pub(super) fn peer(self, verb: &str, peer: usize) -> Result<usize, CommError> {
        let ranks = self.members.len();
        let outside = || self.invalid(format!("{verb} rank {peer}"), format!("the group has {ranks} ranks"));
        (peer < ranks).then_some(peer).ok_or_else(outside)
    }

    /// This rank's number in a subgroup: `members` are numbers of this group, ascending, this rank among them.
    pub(super) fn place(self, members: &[usize]) -> Result<usize, CommError> {
        let (slot, ranks) = (self.slot, self.members.len());
        let sound = members.is_sorted_by(|a, b| a < b) && members.last().is_some_and(|last| *last < ranks);
        members.binary_search(&slot).ok().filter(|_| sound).ok_or_else(|| {
            let reason = format!("not ascending ranks of a group of {ranks} with {slot} among them");
            self.invalid(format!("subgroup({members:?})"), reason)
        })
    }
}

fn content(buffer: &Buffer) -> String {
    format!("{} x {}", buffer.kind(), buffer.len())
}
