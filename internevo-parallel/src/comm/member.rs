//! The face of every backend that runs on the host: checks a call's arguments, numbers it and hands it to the [`Engine`].

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Buffer, CommError, Communicator, Counts, ElementKind, FailureCause, Pending, RankTrace, ReduceOp,
    call::{Call, GroupId, Place, Verb},
};

/// What a rank brings to a call.
pub(crate) struct Deposit {
    pub(crate) buffer: Buffer,
    /// `all_to_all_v`: elements for each rank.
    pub(crate) send: Vec<usize>,
    /// `all_to_all_v`: elements from each rank.
    pub(crate) receive: Vec<usize>,
}

/// One rank's share of a backend: carries out calls whose arguments make sense. `Split` gathers the ranks' buffers as
/// `AllGather` does. Ranks in messages are slots of the group.
pub(crate) trait Engine: Send + Sync + 'static {
    fn post(&self, place: &Place, sequence: u64, call: Call, deposit: Deposit) -> Result<Pending, CommError>;
    fn send(&self, place: &Place, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError>;
    fn receive(
        &self,
        place: &Place,
        kind: ElementKind,
        len: usize,
        from: usize,
        tag: u32,
    ) -> Result<Pending, CommError>;
    fn abort(&self, why: &str);
    fn flight(&self) -> Vec<RankTrace>;
}

/// One rank's handle on one group.
pub(crate) struct Member<E> {
    engine: Arc<E>,
    place: Place,
    sequence: AtomicU64,
}

impl<E: Engine> Member<E> {
    pub(crate) fn new(engine: Arc<E>, place: Place) -> Self {
        Self { engine, place, sequence: AtomicU64::new(0) }
    }

    fn post(&self, verb: Verb, buffer: Buffer) -> Result<Pending, CommError> {
        self.post_deposit(verb, Deposit { buffer, send: Vec::new(), receive: Vec::new() }).map(|(_, pending)| pending)
    }

    fn post_deposit(&self, verb: Verb, deposit: Deposit) -> Result<(u64, Pending), CommError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let call = Call { verb, kind: deposit.buffer.kind(), len: deposit.buffer.len() };
        Ok((sequence, self.engine.post(&self.place, sequence, call, deposit)?))
    }

    fn invalid(&self, call: impl ToString, reason: String) -> CommError {
        let cause = FailureCause::Invalid { rank: self.place.rank(), call: call.to_string(), reason };
        CommError::new(cause, self.engine.flight())
    }

    fn check_op(&self, verb: Verb, buffer: &Buffer, op: ReduceOp) -> Result<(), CommError> {
        match (buffer.kind(), op) {
            (ElementKind::U8, ReduceOp::Sum) => Err(self.invalid(call_of(verb, buffer), "bytes have no sum".into())),
            _ => Ok(()),
        }
    }

    fn check_parts(&self, verb: Verb, buffer: &Buffer) -> Result<(), CommError> {
        if buffer.len().is_multiple_of(self.size()) {
            return Ok(());
        }
        let reason = format!("{} elements cannot be divided evenly among {} ranks", buffer.len(), self.size());
        Err(self.invalid(call_of(verb, buffer), reason))
    }

    fn check_peer(&self, peer: usize, call: impl FnOnce() -> String) -> Result<(), CommError> {
        if peer < self.size() {
            return Ok(());
        }
        Err(self.invalid(call(), format!("there is no rank {peer} in a group of {}", self.size())))
    }
}

impl<E: Engine> Communicator for Member<E> {
    fn rank(&self) -> usize {
        self.place.slot
    }

    fn size(&self) -> usize {
        self.place.members.len()
    }

    fn world_ranks(&self) -> &[usize] {
        &self.place.members
    }

    fn split(&self, color: Option<u32>, key: i32) -> Result<Option<Arc<dyn Communicator>>, CommError> {
        let mine = color.map_or(-1, i64::from);
        let buffer = Buffer::I64(vec![mine, i64::from(key)]);
        let deposit = Deposit { buffer, send: Vec::new(), receive: Vec::new() };
        let (sequence, pending) = self.post_deposit(Verb::Split, deposit)?;
        let pairs = pending.wait()?.into_i64();
        if color.is_none() {
            return Ok(None);
        }
        let of_color = pairs.chunks_exact(2).enumerate().filter(|(_, pair)| pair[0] == mine);
        let mut order: Vec<(i64, usize)> = of_color.map(|(slot, pair)| (pair[1], slot)).collect();
        order.sort_unstable();
        let slot = order.iter().position(|(_, s)| *s == self.place.slot).expect("a rank is a member of its own color");
        let members = order.iter().map(|(_, s)| self.place.members[*s]).collect();
        let group = group_number(self.place.group, sequence, mine);
        Ok(Some(Arc::new(Self::new(self.engine.clone(), Place { group, members, slot }))))
    }

    fn all_reduce(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        self.check_op(Verb::AllReduce(op), &buffer, op)?;
        self.post(Verb::AllReduce(op), buffer)
    }

    fn reduce_scatter(&self, buffer: Buffer, op: ReduceOp) -> Result<Pending, CommError> {
        let verb = Verb::ReduceScatter(op);
        self.check_op(verb, &buffer, op)?;
        self.check_parts(verb, &buffer)?;
        self.post(verb, buffer)
    }

    fn all_gather(&self, buffer: Buffer) -> Result<Pending, CommError> {
        self.post(Verb::AllGather, buffer)
    }

    fn all_gather_in_place(&self, buffer: Buffer) -> Result<Pending, CommError> {
        self.check_parts(Verb::AllGatherInPlace, &buffer)?;
        self.post(Verb::AllGatherInPlace, buffer)
    }

    fn all_to_all_v(&self, buffer: Buffer, counts: &Counts) -> Result<Pending, CommError> {
        let Counts { send, receive } = counts.clone();
        let fit = send.len() == self.size() && receive.len() == self.size();
        if !fit || send[self.rank()] != receive[self.rank()] || send.iter().sum::<usize>() != buffer.len() {
            let reason = format!("counts {send:?} and {receive:?} do not fit {} ranks and the buffer", self.size());
            return Err(self.invalid(call_of(Verb::AllToAll, &buffer), reason));
        }
        self.post_deposit(Verb::AllToAll, Deposit { buffer, send, receive }).map(|(_, pending)| pending)
    }

    fn broadcast(&self, buffer: Buffer, root: usize) -> Result<Pending, CommError> {
        let verb = Verb::Broadcast { root };
        self.check_peer(root, || call_of(verb, &buffer).to_string())?;
        self.post(verb, buffer)
    }

    fn send(&self, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        self.check_peer(to, || format!("send to rank {to}"))?;
        self.engine.send(&self.place, buffer, to, tag)
    }

    fn recv(&self, kind: ElementKind, len: usize, from: usize, tag: u32) -> Result<Pending, CommError> {
        self.check_peer(from, || format!("recv from rank {from}"))?;
        self.engine.receive(&self.place, kind, len, from, tag)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.post(Verb::Barrier, Buffer::U8(Vec::new()))?.wait().map(drop)
    }

    fn abort(&self, why: &str) {
        self.engine.abort(why);
    }

    fn flight(&self) -> Vec<RankTrace> {
        self.engine.flight()
    }
}

fn call_of(verb: Verb, buffer: &Buffer) -> Call {
    Call { verb, kind: buffer.kind(), len: buffer.len() }
}

/// The number of the group that `color` makes of call `sequence` of `parent`. All members compute the same without a word;
/// 64 bits of a cryptographic hash keep a job's groups apart.
fn group_number(parent: GroupId, sequence: u64, color: i64) -> GroupId {
    let hash = blake3::hash(bytemuck::bytes_of(&[parent, sequence, color as u64]));
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}
