//! The `local` backend: one process, one thread per rank, no system package. Deterministic and without spinning, so that
//! more ranks than cores cost little.
//!
//! A call deposits its buffer and returns; whoever waits first after the last deposit works on the buffers in place, in
//! chunks that all waiting ranks share. Not here: spawning the threads (`../ranks.rs`).

mod hub;
mod reduce;

use std::{sync::Arc, time::Duration};

use hub::{Hub, Mailbox, Outcome, Ticket};

use super::{
    Buffer, CommError, Communicator, ElementKind, Pending, RankTrace,
    buffer::on_vector,
    call::{Call, Place, Verb},
    member::{Deposit, Engine, Member},
};

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
    let member = |rank| {
        let seat = Arc::new(Seat { hub: hub.clone(), rank });
        Arc::new(Member::new(seat, Place::in_world(rank, ranks))) as Arc<dyn Communicator>
    };
    (0..ranks).map(member).collect()
}

/// What all communicators of one rank share; tells the others when the last one is gone.
struct Seat {
    hub: Arc<Hub>,
    rank: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(self.rank, std::thread::panicking());
    }
}

impl Engine for Seat {
    fn post(&self, place: &Place, sequence: u64, call: Call, deposit: Deposit) -> Result<Pending, CommError> {
        self.hub.post(place, sequence, call, deposit)?;
        let ticket = Ticket { hub: self.hub.clone(), place: place.clone(), sequence };
        let slot = place.slot;
        Ok(match call.verb {
            Verb::AllReduce(_) | Verb::ReduceScatter(_) | Verb::AllGatherInPlace => Pending::new(move || own(ticket)),
            Verb::AllGather | Verb::Split => Pending::new(move || Ok(concatenate(&shared(ticket)?))),
            Verb::AllToAll => Pending::new(move || Ok(collect_parts(&shared(ticket)?, slot))),
            Verb::Broadcast { root } => Pending::new(move || Ok(shared(ticket)?[root].buffer.clone())),
            Verb::Barrier => Pending::new(move || shared(ticket).map(|_| Buffer::U8(Vec::new()))),
        })
    }

    fn send(&self, place: &Place, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        self.hub.send(Mailbox { group: place.group, from: self.rank, to: place.members[to], tag }, buffer)?;
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
        let mailbox = Mailbox { group: place.group, from: place.members[from], to: self.rank, tag };
        let hub = self.hub.clone();
        Ok(Pending::new(move || hub.recv(mailbox, kind, len)))
    }

    fn abort(&self, why: &str) {
        self.hub.abort(self.rank, why);
    }

    fn flight(&self) -> Vec<RankTrace> {
        self.hub.flight()
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
