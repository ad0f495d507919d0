//! The `local` backend: one process, one thread per rank, no system package. Deterministic and without spinning, so that
//! more ranks than cores cost little.
//!
//! A call deposits its buffer and returns; whoever waits first after the last deposit works on the buffers in place, in
//! chunks that all waiting ranks share. Not here: spawning the threads (`../ranks.rs`).

mod hub;
mod reduce;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hub::{Call, Deposit, Group, Hub, Mailbox, Outcome, Ticket, Verb};

use super::{Buffer, CommError, Communicator, Counts, ElementKind, Pending, ReduceOp, buffer::on_vector};

/// Settings of a local world.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// How long a rank waits for others before the world fails.
    pub timeout: Duration,
    /// Calls of each rank that the flight recorder keeps.
    pub recorded_calls: usize,
}

impl Default for LocalOptions {
    /// Ten minutes, 16 calls.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(600), recorded_calls: 16 }
    }
}

/// A world of `ranks` ranks in this process; element `r` belongs to the thread that plays rank `r`.
///
/// # Panics
/// If `ranks` is zero.
pub fn local_world(ranks: usize) -> Vec<Arc<dyn Communicator>> {
    local_world_with(ranks, LocalOptions::default())
}

/// [`local_world`] with its own settings.
///
/// # Panics
/// If `ranks` is zero.
pub fn local_world_with(ranks: usize, options: LocalOptions) -> Vec<Arc<dyn Communicator>> {
    assert!(ranks > 0, "a world has at least one rank");
    let hub = Arc::new(Hub::new(ranks, options));
    let group = Group { id: 0, members: (0..ranks).collect() };
    let member = |rank| {
        let presence = Arc::new(Presence { hub: hub.clone(), rank });
        Arc::new(Local { hub: hub.clone(), group: group.clone(), slot: rank, sequence: AtomicU64::new(0), presence })
            as Arc<dyn Communicator>
    };
    (0..ranks).map(member).collect()
}

/// Shared by all communicators of one rank: tells the others when the last one is gone.
struct Presence {
    hub: Arc<Hub>,
    rank: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.hub.leave(self.rank, std::thread::panicking());
    }
}

/// One rank's handle on one group.
struct Local {
    hub: Arc<Hub>,
    group: Group,
    slot: usize,
    sequence: AtomicU64,
    presence: Arc<Presence>,
}

impl Local {
    fn post(&self, verb: Verb, buffer: Buffer) -> Result<Ticket, CommError> {
        self.post_with(verb, buffer, Vec::new(), Vec::new())
    }

    fn post_with(
        &self,
        verb: Verb,
        buffer: Buffer,
        send: Vec<usize>,
        receive: Vec<usize>,
    ) -> Result<Ticket, CommError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let call = Call { verb, kind: buffer.kind(), len: buffer.len() };
        self.hub.post(&self.group, self.slot, sequence, call, Deposit { buffer, send, receive })?;
        Ok(Ticket { hub: self.hub.clone(), group: self.group.clone(), slot: self.slot, sequence })
    }

    fn invalid(&self, verb: Verb, buffer: &Buffer, reason: String) -> CommError {
        let call = Call { verb, kind: buffer.kind(), len: buffer.len() };
        self.hub.invalid(self.presence.rank, call.to_string(), reason)
    }

    fn check_op(&self, verb: Verb, buffer: &Buffer, op: ReduceOp) -> Result<(), CommError> {
        match (buffer.kind(), op) {
            (ElementKind::U8, ReduceOp::Sum) => Err(self.invalid(verb, buffer, "bytes have no sum".into())),
            _ => Ok(()),
        }
    }

    fn check_parts(&self, verb: Verb, buffer: &Buffer) -> Result<(), CommError> {
        if buffer.len().is_multiple_of(self.size()) {
            return Ok(());
        }
        let reason = format!("{} elements cannot be divided evenly among {} ranks", buffer.len(), self.size());
        Err(self.invalid(verb, buffer, reason))
    }

    fn peer(&self, peer: usize, call: impl FnOnce() -> String) -> Result<usize, CommError> {
        self.group.members.get(peer).copied().ok_or_else(|| {
            let reason = format!("there is no rank {peer} in a group of {}", self.size());
            self.hub.invalid(self.presence.rank, call(), reason)
        })
    }
}

impl Communicator for Local {
    fn rank(&self) -> usize {
        self.slot
    }

    fn size(&self) -> usize {
        self.group.members.len()
    }

    fn world_ranks(&self) -> &[usize] {
        &self.group.members
    }

    fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Arc<dyn Communicator>>, CommError> {
        let mine = color.map_or(-1, i64::from);
        let ticket = self.post(Verb::Split, Buffer::I64(vec![mine, i64::from(key)]))?;
        let sequence = ticket.sequence;
        let pairs = concatenate(&shared(ticket)?).into_i64();
        if color.is_none() {
            return Ok(None);
        }
        let of_color = pairs.chunks_exact(2).enumerate().filter(|(_, pair)| pair[0] == mine);
        let mut order: Vec<(i64, usize)> = of_color.map(|(slot, pair)| (pair[1], slot)).collect();
        order.sort_unstable();
        let slot = order.iter().position(|(_, s)| *s == self.slot).expect("a rank is a member of its own color");
        let members = order.iter().map(|(_, s)| self.group.members[*s]).collect();
        let group = Group { id: self.hub.group_number(self.group.id, sequence, mine), members };
        let presence = self.presence.clone();
        Ok(Some(Arc::new(Self { hub: self.hub.clone(), group, slot, sequence: AtomicU64::new(0), presence })))
    }

    fn all_reduce(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        self.check_op(Verb::AllReduce(op), &buffer, op)?;
        let ticket = self.post(Verb::AllReduce(op), buffer)?;
        Ok(Pending::new(move || own(ticket)))
    }

    fn reduce_scatter(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        let verb = Verb::ReduceScatter(op);
        self.check_op(verb, &buffer, op)?;
        self.check_parts(verb, &buffer)?;
        let ticket = self.post(verb, buffer)?;
        Ok(Pending::new(move || own(ticket)))
    }

    fn all_gather(&self, buffer: Buffer) -> Result<Pending, CommError> {
        let ticket = self.post(Verb::AllGather, buffer)?;
        Ok(Pending::new(move || Ok(concatenate(&shared(ticket)?))))
    }

    fn all_gather_in_place(&self, buffer: Buffer) -> Result<Pending, CommError> {
        self.check_parts(Verb::AllGatherInPlace, &buffer)?;
        let ticket = self.post(Verb::AllGatherInPlace, buffer)?;
        Ok(Pending::new(move || own(ticket)))
    }

    fn all_to_all_v(&self, buffer: Buffer, counts: &Counts) -> Result<Pending, CommError> {
        let Counts { send, receive } = counts;
        if send.len() != self.size() || receive.len() != self.size() || send.iter().sum::<usize>() != buffer.len() {
            let reason = format!("counts {send:?} and {receive:?} do not fit {} ranks and the buffer", self.size());
            return Err(self.invalid(Verb::AllToAll, &buffer, reason));
        }
        let slot = self.slot;
        let ticket = self.post_with(Verb::AllToAll, buffer, send.clone(), receive.clone())?;
        Ok(Pending::new(move || Ok(collect_parts(&shared(ticket)?, slot))))
    }

    fn broadcast(&self, buffer: Buffer, root: usize) -> Result<Pending, CommError> {
        self.peer(root, || format!("broadcast({} x {}, root {root})", buffer.kind(), buffer.len()))?;
        let ticket = self.post(Verb::Broadcast { root }, buffer)?;
        Ok(Pending::new(move || Ok(shared(ticket)?[root].buffer.clone())))
    }

    fn send(&self, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        let to = self.peer(to, || format!("send to rank {to}"))?;
        self.hub.send(Mailbox { group: self.group.id, from: self.presence.rank, to, tag }, buffer)?;
        Ok(Pending::ready(Buffer::U8(Vec::new())))
    }

    fn recv(&self, kind: ElementKind, len: usize, from: usize, tag: u32) -> Result<Pending, CommError> {
        let from = self.peer(from, || format!("recv from rank {from}"))?;
        let mailbox = Mailbox { group: self.group.id, from, to: self.presence.rank, tag };
        let hub = self.hub.clone();
        Ok(Pending::new(move || hub.recv(mailbox, kind, len)))
    }

    fn barrier(&self) -> Result<(), CommError> {
        shared(self.post(Verb::Barrier, Buffer::U8(Vec::new()))?).map(|_| ())
    }

    fn abort(&self, why: &str) {
        self.hub.abort(self.presence.rank, why);
    }
}

fn own(ticket: Ticket) -> Result<Buffer, CommError> {
    match ticket.wait()? {
        Outcome::Own(buffer) => Ok(buffer),
        Outcome::Shared(_) => unreachable!("the caller posted a call that works in place"),
    }
}

fn shared(ticket: Ticket) -> Result<Arc<[Deposit]>, CommError> {
    match ticket.wait()? {
        Outcome::Shared(deposits) => Ok(deposits),
        Outcome::Own(_) => unreachable!("the caller posted a call that shares deposits"),
    }
}

/// A new buffer of the first deposit's kind, filled with `part` of each deposit in rank order.
macro_rules! gather_parts {
    ($deposits:expr, $part:expr) => {
        match &$deposits[0].buffer {
            Buffer::F32(_) => Buffer::F32(gather_parts!(@ F32, $deposits, $part)),
            Buffer::F64(_) => Buffer::F64(gather_parts!(@ F64, $deposits, $part)),
            Buffer::I64(_) => Buffer::I64(gather_parts!(@ I64, $deposits, $part)),
            Buffer::U8(_) => Buffer::U8(gather_parts!(@ U8, $deposits, $part)),
        }
    };
    (@ $variant:ident, $deposits:expr, $part:expr) => {{
        let ranges: Vec<std::ops::Range<usize>> = $deposits.iter().map($part).collect();
        let mut all = Vec::with_capacity(ranges.iter().map(|r| r.len()).sum());
        for (deposit, range) in $deposits.iter().zip(ranges) {
            let Buffer::$variant(v) = &deposit.buffer else {
                unreachable!("kinds were compared when the calls were posted")
            };
            all.extend_from_slice(&v[range]);
        }
        all
    }};
}

fn concatenate(deposits: &[Deposit]) -> Buffer {
    gather_parts!(deposits, |d| 0..on_vector!(&d.buffer, v => v.len()))
}

/// What every rank sent to `slot`.
fn collect_parts(deposits: &[Deposit], slot: usize) -> Buffer {
    gather_parts!(deposits, |d| {
        let start = d.send[..slot].iter().sum::<usize>();
        start..start + d.send[slot]
    })
}
