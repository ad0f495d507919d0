//! The `dry` backend: one rank of a world of any size that has no peers. Every call returns at once with a buffer of the right
//! length, so that a configuration for thousands of ranks runs on a laptop, one rank at a time, and its communication is counted.
//!
//! Values are this rank's own: a sum is its own summand, gathered parts are its own part repeated. Losses and weights therefore
//! mean nothing; lengths, groups, order of calls, volume and memory do: as on other hosts, the result of a reduction is in the
//! buffer that was given.
//!
//! Here too: [`record`], which counts the calls of any backend. Not here: predicting the counts (`internevo_core::volume`).

mod record;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

pub use record::{VolumeRecorder, record};

use super::{
    Buffer, CommError, Communicator, ElementKind, FailureCause, Pending, RankTrace,
    buffer::on_vector,
    call::{Call, Place, Verb},
    member::{Deposit, Engine, Member},
    self_mail::SelfMail,
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
    let engine = Arc::new(Dry { shared, to_self: SelfMail::default() });
    let comm = Arc::new(Member::new(engine, Place::in_world(rank, world)));
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
    /// The only messages that arrive.
    to_self: SelfMail,
}

impl Dry {
    fn alive(&self, place: &Place) -> Result<(), CommError> {
        let aborted = |why: &String| FailureCause::Aborted { rank: place.rank(), why: why.clone() };
        self.shared.aborted.get().map_or(Ok(()), |why| Err(CommError::new(aborted(why), Vec::new())))
    }

    /// Refuses a result that is too large to be made up.
    fn affordable(&self, place: &Place, call: impl ToString, kind: ElementKind, len: usize) -> Result<(), CommError> {
        let (bytes, most) = (len.saturating_mul(kind.size()), self.shared.options.max_result_bytes);
        if bytes <= most {
            return Ok(());
        }
        let reason = format!("the result of {bytes} bytes is beyond max_result_bytes = {most} of the dry world");
        Err(place.invalid(call, reason, Vec::new()))
    }
}

impl Engine for Dry {
    const PEERS: bool = false;

    fn post(&self, place: &Place, _sequence: u64, call: Call, deposit: Deposit) -> Result<Pending, CommError> {
        self.alive(place)?;
        let Deposit { mut buffer, send, receive } = deposit;
        let (slot, ranks) = (place.slot, place.members.len());
        let part = call.len / ranks;
        Ok(Pending::ready(match call.verb {
            Verb::AllReduce(_) | Verb::Broadcast { .. } | Verb::Barrier => buffer,
            Verb::ReduceScatter(_) => {
                on_vector!(&mut buffer, v => {
                    v.copy_within(slot * part..(slot + 1) * part, 0);
                    v.truncate(part);
                });
                buffer
            }
            Verb::AllGather => {
                self.affordable(place, call, call.kind, call.len.saturating_mul(ranks))?;
                on_vector!(buffer, v => v.repeat(ranks).into())
            }
            Verb::AllGatherInPlace => {
                for other in (0..ranks).filter(|other| *other != slot) {
                    on_vector!(&mut buffer, v => v.copy_within(slot * part..(slot + 1) * part, other * part));
                }
                buffer
            }
            Verb::AllToAll => {
                self.affordable(place, call, call.kind, receive.iter().sum())?;
                on_vector!(buffer, v => mirrored(&v, &send, &receive).into())
            }
            Verb::Split if ranks == 1 => buffer,
            Verb::Split => {
                let reason = "a dry rank cannot ask the others for their colors; use `subgroup`";
                return Err(place.invalid(call, reason, Vec::new()));
            }
        }))
    }

    fn send(&self, place: &Place, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        self.alive(place)?;
        if to == place.slot {
            self.to_self.post(tag, buffer);
        }
        Ok(Pending::ready(Buffer::U8(Vec::new())))
    }

    fn receive(
        &self,
        place: &Place,
        kind: ElementKind,
        len: usize,
        from: usize,
        tag: u32,
    ) -> Result<Pending, CommError> {
        self.alive(place)?;
        self.affordable(place, "recv", kind, len)?;
        let own = from == place.slot;
        let message = if own { self.to_self.take(place, kind, len, tag)? } else { Buffer::zeros(kind, len) };
        Ok(Pending::ready(message))
    }

    fn abort(&self, why: &str) {
        self.shared.aborted.get_or_init(|| why.to_owned());
    }

    fn flight(&self) -> Vec<RankTrace> {
        Vec::new()
    }

    fn divided(self: &Arc<Self>, color: Option<u32>, _key: i32) -> Result<Option<Arc<Self>>, CommError> {
        let group = |_| Arc::new(Self { shared: self.shared.clone(), to_self: SelfMail::default() });
        Ok(color.map(group))
    }
}

/// What a rank would get from peers that send as it sends: its own part for each, cut or repeated to what is received.
fn mirrored<T: Copy + Default>(sent: &[T], send: &[usize], receive: &[usize]) -> Vec<T> {
    let mut rest = sent;
    let mut received = Vec::with_capacity(receive.iter().sum());
    for (send, receive) in send.iter().zip(receive) {
        let (part, others) = rest.split_at(*send);
        rest = others;
        let filler = if part.is_empty() { &[T::default()] } else { part };
        received.extend(filler.iter().cycle().take(*receive));
    }
    received
}
