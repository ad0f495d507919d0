//! The `dry` backend: one rank of a world of any size that has no peers. Every call returns at once with a buffer of the right
//! length, so that a configuration for thousands of ranks runs on a laptop, one rank at a time, and its communication is counted.
//!
//! Values are this rank's own: a sum is its own summand, gathered parts are its own part repeated. Losses and weights therefore
//! mean nothing; lengths, groups, order of calls and volume do.
//!
//! Here too: [`record`], which counts the calls of any backend. Not here: predicting the counts (`internevo_core::volume`).

mod record;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

pub use record::{VolumeRecorder, record};

use super::{
    Buffer, CommError, Communicator, Counts, ElementKind, FailureCause, Pending, ReduceOp, buffer::on_vector,
    checks::Caller, self_mail::SelfMail,
};

/// Settings of a dry world.
#[derive(Clone, Debug)]
pub struct DryOptions {
    /// A call that would grow its buffer beyond this many bytes fails, instead of filling the memory of a small machine.
    pub max_result_bytes: usize,
}

impl Default for DryOptions {
    /// 4 GiB.
    fn default() -> Self {
        Self { max_result_bytes: 4 << 30 }
    }
}

/// Rank `rank` of a world of `world` ranks that sends nothing, and the record of what it would have sent. Groups are made with
/// [`Communicator::subgroup`]: there is nobody whom [`Communicator::split`] could ask.
///
/// ```
/// use internevo_parallel::comm::{Buffer, DryOptions, ReduceOp, dry_world};
///
/// let (comm, recorder) = dry_world(5, 4096, DryOptions::default());
/// let node = comm.subgroup_named("node", &[0, 1, 2, 3, 4, 5, 6, 7])?;
/// node.all_reduce(Buffer::F32(vec![0.0; 1000]), ReduceOp::Sum)?.wait()?;
/// let rows = recorder.report();
/// assert_eq!((rows[0].group.as_str(), rows[0].bytes, rows[0].sent), ("node", 4000, 7000));
/// # Ok::<(), internevo_parallel::comm::CommError>(())
/// ```
///
/// # Panics
/// If `rank` is not below `world`.
pub fn dry_world(rank: usize, world: usize, options: DryOptions) -> (Arc<dyn Communicator>, VolumeRecorder) {
    assert!(rank < world, "rank {rank} of a world of {world}");
    let shared = Arc::new(Shared { options, aborted: OnceLock::new() });
    let comm = Arc::new(Dry { shared, slot: rank, members: (0..world).collect(), to_self: SelfMail::default() });
    let recorder = VolumeRecorder::new();
    (record(comm, &recorder), recorder)
}

/// What all groups of the rank have in common.
struct Shared {
    options: DryOptions,
    aborted: OnceLock<String>,
}

/// The rank in one group.
struct Dry {
    shared: Arc<Shared>,
    slot: usize,
    members: Vec<usize>,
    /// The only messages that arrive.
    to_self: SelfMail,
}

impl Dry {
    fn caller(&self) -> Caller<'_> {
        Caller { slot: self.slot, members: &self.members }
    }

    fn alive(&self) -> Result<(), CommError> {
        let rank = self.members[self.slot];
        let aborted = |why: &String| FailureCause::Aborted { rank, why: why.clone() };
        self.shared.aborted.get().map_or(Ok(()), |why| Err(CommError::new(aborted(why), Vec::new())))
    }

    fn ready(&self, buffer: Buffer) -> Result<Pending, CommError> {
        self.alive().map(|()| Pending::ready(buffer))
    }

    /// Refuses a result that is too large to be made up.
    fn affordable(&self, call: &str, kind: ElementKind, len: usize) -> Result<(), CommError> {
        let (bytes, most) = (len.saturating_mul(kind.size()), self.shared.options.max_result_bytes);
        if bytes <= most {
            return Ok(());
        }
        let reason = format!("the result of {bytes} bytes is beyond max_result_bytes = {most} of the dry world");
        Err(self.caller().invalid(call, reason))
    }
}

impl Communicator for Dry {
    fn rank(&self) -> usize {
        self.slot
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn world_ranks(&self) -> &[usize] {
        &self.members
    }

    fn split(&self, color: Option<u32>, _key: i32) -> Result<Option<Arc<dyn Communicator>>, CommError> {
        match (color, self.size()) {
            (None, _) => Ok(None),
            (Some(_), 1) => self.subgroup(&[0]).map(Some),
            _ => {
                Err(self.caller().invalid("split", "a dry rank cannot ask the others for their colors; use `subgroup`"))
            }
        }
    }

    fn subgroup(&self, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError> {
        let slot = self.caller().place(members)?;
        let members = members.iter().map(|member| self.members[*member]).collect();
        Ok(Arc::new(Self { shared: self.shared.clone(), slot, members, to_self: SelfMail::default() }))
    }

    fn all_reduce(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        self.caller().reducible("all_reduce", &buffer, op)?;
        self.ready(buffer)
    }

    fn reduce_scatter(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        self.caller().reducible("reduce_scatter", &buffer, op)?;
        self.caller().divisible("reduce_scatter", &buffer)?;
        let part = buffer.len() / self.size();
        self.ready(on_vector!(buffer, v => v[self.slot * part..][..part].to_vec().into()))
    }

    fn all_gather(&self, buffer: Buffer) -> Result<Pending, CommError> {
        self.affordable("all_gather", buffer.kind(), buffer.len().saturating_mul(self.size()))?;
        self.ready(on_vector!(buffer, v => v.repeat(self.size()).into()))
    }

    fn all_gather_in_place(&self, mut buffer: Buffer) -> Result<Pending, CommError> {
        self.caller().divisible("all_gather_in_place", &buffer)?;
        let part = buffer.len() / self.size();
        let own = self.slot * part..(self.slot + 1) * part;
        for slot in (0..self.size()).filter(|slot| *slot != self.slot) {
            on_vector!(&mut buffer, v => v.copy_within(own.clone(), slot * part));
        }
        self.ready(buffer)
    }

    fn all_to_all_v(&self, buffer: Buffer, counts: &Counts) -> Result<Pending, CommError> {
        self.caller().counted(&buffer, counts)?;
        self.affordable("all_to_all_v", buffer.kind(), counts.receive.iter().sum())?;
        self.ready(on_vector!(buffer, v => mirrored(&v, counts).into()))
    }

    fn broadcast(&self, buffer: Buffer, root: usize) -> Result<Pending, CommError> {
        self.caller().peer("broadcast from", root)?;
        self.ready(buffer)
    }

    fn send(&self, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        if self.caller().peer("send to", to)? == self.slot {
            self.to_self.post(tag, buffer);
        }
        self.ready(Buffer::U8(Vec::new()))
    }

    fn recv(&self, kind: ElementKind, len: usize, from: usize, tag: u32) -> Result<Pending, CommError> {
        self.affordable("recv", kind, len)?;
        if self.caller().peer("receive from", from)? != self.slot {
            return self.ready(Buffer::zeros(kind, len));
        }
        self.ready(self.to_self.take(self.caller(), kind, len, tag)?)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.alive()
    }

    fn abort(&self, why: &str) {
        self.shared.aborted.get_or_init(|| why.to_owned());
    }
}

/// What a rank would get from peers that send as it sends: its own part for each, cut or repeated to what is received.
fn mirrored<T: Copy + Default>(sent: &[T], counts: &Counts) -> Vec<T> {
    let mut rest = sent;
    let mut received = Vec::with_capacity(counts.receive.iter().sum());
    for (send, receive) in counts.send.iter().zip(&counts.receive) {
        let (part, others) = rest.split_at(*send);
        rest = others;
        let filler = if part.is_empty() { &[T::default()] } else { part };
        received.extend(filler.iter().cycle().take(*receive));
    }
    received
}
