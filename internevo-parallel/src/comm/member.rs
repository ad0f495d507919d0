//! The face of every backend: checks a call's arguments, numbers it and hands it to the [`Engine`].

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Buffer, CommError, Communicator, Counts, ElementKind, Pending, RankTrace, ReduceOp,
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
    /// Whether there are others to be asked who belongs to a group; otherwise the caller's word is taken for it.
    const PEERS: bool = true;

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

    /// What carries out the calls of the group that this rank is in after its group was divided. Every rank of the old group
    /// calls it, those without a `color`, which are in no new one, too.
    fn divided(self: &Arc<Self>, color: Option<u32>, _key: i32) -> Result<Option<Arc<Self>>, CommError> {
        Ok(color.map(|_| self.clone()))
    }
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

    fn next_call(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// The handle on the group of `slots` that call `sequence` made for `color`.
    fn group(&self, engine: Arc<E>, sequence: u64, color: u32, slots: &[usize]) -> Arc<dyn Communicator> {
        let slot = slots.iter().position(|s| *s == self.place.slot).expect("a rank is a member of its own group");
        let members = slots.iter().map(|s| self.place.members[*s]).collect();
        let group = group_number(self.place.group, sequence, color);
        Arc::new(Self::new(engine, Place { group, members, slot }))
    }

    fn post(&self, verb: Verb, buffer: Buffer) -> Result<Pending, CommError> {
        self.post_deposit(verb, Deposit { buffer, send: Vec::new(), receive: Vec::new() }).map(|(_, pending)| pending)
    }

    fn post_deposit(&self, verb: Verb, deposit: Deposit) -> Result<(u64, Pending), CommError> {
        let sequence = self.next_call();
        let call = Call { verb, kind: deposit.buffer.kind(), len: deposit.buffer.len() };
        Ok((sequence, self.engine.post(&self.place, sequence, call, deposit)?))
    }

    fn invalid(&self, call: impl ToString, reason: impl Into<String>) -> CommError {
        self.place.invalid(call, reason, self.engine.flight())
    }

    fn check_op(&self, verb: Verb, buffer: &Buffer, op: ReduceOp) -> Result<(), CommError> {
        match (buffer.kind(), op) {
            (ElementKind::U8, ReduceOp::Sum) => Err(self.invalid(call_of(verb, buffer), "bytes have no sum")),
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
        let (Some(color), Some(engine)) = (color, self.engine.divided(color, key)?) else { return Ok(None) };
        let of_color = pairs.chunks_exact(2).enumerate().filter(|(_, pair)| pair[0] == mine);
        let mut order: Vec<(i64, usize)> = of_color.map(|(slot, pair)| (pair[1], slot)).collect();
        order.sort_unstable();
        let slots: Vec<usize> = order.into_iter().map(|(_, slot)| slot).collect();
        Ok(Some(self.group(engine, sequence, color, &slots)))
    }

    fn subgroup(&self, members: &[usize]) -> Result<Arc<dyn Communicator>, CommError> {
        let sound = members.is_sorted_by(|a, b| a < b) && members.last().is_some_and(|last| *last < self.size());
        let (Ok(place), true) = (members.binary_search(&self.rank()), sound) else {
            let reason = format!("not ascending ranks of a group of {} with {} among them", self.size(), self.rank());
            return Err(self.invalid(format!("subgroup({members:?})"), reason));
        };
        let (color, key) = (members[0] as u32, place as i32);
        let group = if E::PEERS {
            self.split(Some(color), key)?
        } else {
            let engine = self.engine.divided(Some(color), key)?;
            engine.map(|engine| self.group(engine, self.next_call(), color, members))
        };
        Ok(group.expect("a rank that names a color is in a group"))
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
fn group_number(parent: GroupId, sequence: u64, color: u32) -> GroupId {
    let hash = blake3::hash(bytemuck::bytes_of(&[parent, sequence, u64::from(color)]));
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}
