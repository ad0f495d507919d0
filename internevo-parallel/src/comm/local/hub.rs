//! The meeting place of a local world: who has arrived at which call, what is in the post, who failed.
//!
//! One mutex and one condition variable serve the whole world; nothing spins. The lock is never held while elements are
//! added or copied. Not here: the arithmetic (`reduce.rs`) and the trait's face (`mod.rs`).

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    LocalOptions,
    reduce::{Exchange, Work},
};
use crate::comm::{Buffer, CommError, ElementKind, FailureCause, RankTrace, ReduceOp};

/// Number of a group within its world.
pub(super) type GroupId = u64;

/// What a call does, as far as all ranks must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    AllReduce(ReduceOp),
    ReduceScatter(ReduceOp),
    AllGather,
    AllGatherInPlace,
    AllToAll,
    Broadcast { root: usize },
    Barrier,
    Split,
}

/// One rank's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) kind: ElementKind,
    pub(super) len: usize,
}

impl Call {
    fn agrees_with(&self, other: &Self) -> bool {
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

/// A group as the hub knows it.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    /// World ranks in group order.
    pub(super) members: Arc<[usize]>,
}

/// What a rank brings to a call.
pub(super) struct Deposit {
    pub(super) buffer: Buffer,
    /// `all_to_all_v`: elements for each rank.
    pub(super) send: Vec<usize>,
    /// `all_to_all_v`: elements from each rank.
    pub(super) receive: Vec<usize>,
}

/// What a rank takes from a finished call.
pub(super) enum Outcome {
    /// Its own buffer, with the result in it.
    Own(Buffer),
    /// Everybody's deposits, to copy from.
    Shared(Arc<[Deposit]>),
}

enum Stage {
    Gathering(Vec<Option<Deposit>>),
    Exchanging(Arc<Exchange>),
    Sharing(Arc<[Deposit]>),
}

struct Operation {
    calls: Vec<Option<Call>>,
    stage: Stage,
    /// Ranks that have neither taken nor given up their result.
    left: usize,
}

/// Address of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mailbox {
    pub(super) group: GroupId,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tag: u32,
}

/// How a rank is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    Left,
    Panicked,
}

struct State {
    operations: HashMap<(GroupId, u64), Operation>,
    mail: HashMap<Mailbox, VecDeque<Buffer>>,
    /// Groups made by split: (parent, call, color) to the new group's number.
    groups: HashMap<(GroupId, u64, i64), GroupId>,
    presence: Vec<Presence>,
    failure: Option<CommError>,
    flight: Vec<VecDeque<String>>,
}

/// The shared part of a local world.
pub(super) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
    options: LocalOptions,
}

impl Hub {
    pub(super) fn new(ranks: usize, options: LocalOptions) -> Self {
        let state = State {
            operations: HashMap::new(),
            mail: HashMap::new(),
            groups: HashMap::new(),
            presence: vec![Presence::Here; ranks],
            failure: None,
            flight: vec![VecDeque::new(); ranks],
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), options }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock leaves a half-made state behind, so a panicking holder is no reason to stop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails the world, if it has not failed yet, and returns the failure that counts.
    fn fail(&self, state: &mut State, cause: FailureCause) -> CommError {
        if state.failure.is_none() {
            let trace =
                |(rank, calls): (usize, &VecDeque<String>)| RankTrace { rank, calls: calls.iter().cloned().collect() };
            state.failure = Some(CommError::new(cause, state.flight.iter().enumerate().map(trace).collect()));
            // Deposits of unfinished calls are of no use any more.
            state.operations.retain(|_, op| !matches!(op.stage, Stage::Gathering(_)));
            self.changed.notify_all();
        }
        state.failure.clone().expect("set above")
    }

    /// An error of the caller alone, with what the ranks did before it.
    pub(super) fn invalid(&self, rank: usize, call: String, reason: String) -> CommError {
        let state = self.lock();
        let trace =
            |(rank, calls): (usize, &VecDeque<String>)| RankTrace { rank, calls: calls.iter().cloned().collect() };
        let flight = state.flight.iter().enumerate().map(trace).collect();
        CommError::new(FailureCause::Invalid { rank, call, reason }, flight)
    }

    pub(super) fn abort(&self, rank: usize, why: &str) {
        let mut state = self.lock();
        self.fail(&mut state, FailureCause::Aborted { rank, why: why.to_owned() });
    }

    /// `rank` has dropped its last handle.
    pub(super) fn leave(&self, rank: usize, panicking: bool) {
        let mut state = self.lock();
        state.presence[rank] = if panicking { Presence::Panicked } else { Presence::Left };
        self.changed.notify_all();
    }

    fn record(&self, state: &mut State, rank: usize, line: String) {
        let calls = &mut state.flight[rank];
        if calls.len() == self.options.recorded_calls.max(1) {
            calls.pop_front();
        }
        calls.push_back(line);
    }

    /// Brings `deposit` to call number `sequence` of `group`.
    pub(super) fn post(
        &self,
        group: &Group,
        slot: usize,
        sequence: u64,
        call: Call,
        deposit: Deposit,
    ) -> Result<(), CommError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        self.record(state, group.members[slot], format!("{call} #{sequence} of ranks {:?}", group.members));
        let ranks = group.members.len();
        let operation = state.operations.entry((group.id, sequence)).or_insert_with(|| Operation {
            calls: vec![None; ranks],
            stage: Stage::Gathering((0..ranks).map(|_| None).collect()),
            left: ranks,
        });
        let agreed = operation.calls.iter().flatten().all(|other| other.agrees_with(&call));
        operation.calls[slot] = Some(call);
        let Stage::Gathering(deposits) = &mut operation.stage else {
            unreachable!("a call leaves this stage when its last rank has posted")
        };
        deposits[slot] = Some(deposit);
        if !agreed || !counts_agree(deposits) {
            let calls = operation.calls.iter().zip(group.members.iter());
            let calls = calls.filter_map(|(call, rank)| Some((*rank, call.as_ref()?.to_string()))).collect();
            let cause = FailureCause::Mismatch { sequence, members: group.members.to_vec(), calls };
            return Err(self.fail(state, cause));
        }
        if deposits.iter().all(Option::is_some) {
            let deposits: Vec<Deposit> = deposits.iter_mut().filter_map(Option::take).collect();
            operation.stage = stage_of(call.verb, deposits);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Waits for the call that [`Hub::post`] brought a deposit to; takes part in its work meanwhile.
    fn complete(&self, group: &Group, slot: usize, sequence: u64) -> Result<Outcome, CommError> {
        let started = Instant::now();
        let mut guard = self.lock();
        loop {
            let state = &mut *guard;
            let Some(operation) = state.operations.get(&(group.id, sequence)) else {
                return Err(state
                    .failure
                    .clone()
                    .expect("a call disappears before it is taken only when the world fails"));
            };
            match &operation.stage {
                Stage::Sharing(deposits) => return Ok(Outcome::Shared(deposits.clone())),
                Stage::Exchanging(exchange) if exchange.is_finished() => {
                    return Ok(Outcome::Own(exchange.take(slot).expect("a ticket takes its result once")));
                }
                Stage::Exchanging(exchange) if exchange.has_work() => {
                    let exchange = exchange.clone();
                    drop(guard);
                    let last = exchange.work();
                    guard = self.lock();
                    if last {
                        self.changed.notify_all();
                    }
                    continue;
                }
                Stage::Exchanging(_) => guard = self.sleep(guard, started).0,
                Stage::Gathering(deposits) => {
                    let missing: Vec<usize> = missing_ranks(group, deposits);
                    let call = operation.calls[slot].map(|c| format!("{c} #{sequence}")).unwrap_or_default();
                    guard = self.sleep_for_ranks(guard, started, group.members[slot], &missing, call)?;
                }
            }
        }
    }

    /// Sleeps until something changes, unless one of `missing` can never arrive or the time is up.
    fn sleep_for_ranks<'a>(
        &'a self,
        mut guard: MutexGuard<'a, State>,
        started: Instant,
        waiting: usize,
        missing: &[usize],
        call: String,
    ) -> Result<MutexGuard<'a, State>, CommError> {
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if let Some(rank) = missing.iter().copied().find(|r| state.presence[*r] != Presence::Here) {
            let cause = match state.presence[rank] {
                Presence::Panicked => FailureCause::Panicked { rank, waiting, call },
                _ => FailureCause::Left { rank, waiting, call },
            };
            return Err(self.fail(state, cause));
        }
        let waited = started.elapsed();
        if waited >= self.options.timeout {
            let cause = FailureCause::Timeout { waiting, call, missing: missing.to_vec(), waited };
            return Err(self.fail(state, cause));
        }
        Ok(self.sleep(guard, started).0)
    }

    fn sleep<'a>(&'a self, guard: MutexGuard<'a, State>, started: Instant) -> (MutexGuard<'a, State>, bool) {
        let rest = self.options.timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let (guard, result) = self.changed.wait_timeout(guard, rest).unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// One rank is done with a call; the last one removes it.
    fn release(&self, group: GroupId, sequence: u64) {
        let mut state = self.lock();
        if let Some(operation) = state.operations.get_mut(&(group, sequence)) {
            operation.left -= 1;
            if operation.left == 0 {
                state.operations.remove(&(group, sequence));
            }
        }
    }

    /// The number of the group that `color` makes of call `sequence` of `parent`; the same on every rank.
    pub(super) fn group_number(&self, parent: GroupId, sequence: u64, color: i64) -> GroupId {
        let mut state = self.lock();
        let next = state.groups.len() as GroupId + 1;
        *state.groups.entry((parent, sequence, color)).or_insert(next)
    }

    pub(super) fn send(&self, mailbox: Mailbox, buffer: Buffer) -> Result<(), CommError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let line = format!("send({} x {}) to rank {} tag {}", buffer.kind(), buffer.len(), mailbox.to, mailbox.tag);
        self.record(state, mailbox.from, line);
        state.mail.entry(mailbox).or_default().push_back(buffer);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn recv(&self, mailbox: Mailbox, kind: ElementKind, len: usize) -> Result<Buffer, CommError> {
        let Mailbox { from, to, tag, .. } = mailbox;
        let call = format!("recv({kind} x {len}) from rank {from} tag {tag}");
        let started = Instant::now();
        let mut guard = self.lock();
        self.record(&mut guard, to, call.clone());
        loop {
            let state = &mut *guard;
            let queue = state.mail.get_mut(&mailbox);
            if let Some(buffer) = queue.and_then(VecDeque::pop_front) {
                if buffer.kind() == kind && buffer.len() == len {
                    return Ok(buffer);
                }
                let (expected, found) = (format!("{kind} x {len}"), format!("{} x {}", buffer.kind(), buffer.len()));
                return Err(self.fail(state, FailureCause::Message { from, to, tag, expected, found }));
            }
            guard = self.sleep_for_ranks(guard, started, to, &[from], call.clone())?;
        }
    }
}

fn missing_ranks(group: &Group, deposits: &[Option<Deposit>]) -> Vec<usize> {
    deposits.iter().zip(group.members.iter()).filter(|(d, _)| d.is_none()).map(|(_, rank)| *rank).collect()
}

/// Whether what each rank sends is what the others expect, as far as they have arrived.
fn counts_agree(deposits: &[Option<Deposit>]) -> bool {
    let here = || deposits.iter().enumerate().filter_map(|(slot, d)| Some((slot, d.as_ref()?)));
    here().all(|(from, a)| here().all(|(to, b)| a.send.get(to) == b.receive.get(from)))
}

fn stage_of(verb: Verb, deposits: Vec<Deposit>) -> Stage {
    let work = match verb {
        Verb::AllReduce(op) => Work::Reduce(op),
        Verb::ReduceScatter(op) => Work::ReduceScatter(op),
        Verb::AllGatherInPlace => Work::Gather,
        _ => return Stage::Sharing(deposits.into()),
    };
    Stage::Exchanging(Arc::new(Exchange::new(deposits.into_iter().map(|d| d.buffer).collect(), work)))
}

/// One rank's claim on the result of a call. Dropped, it lets go of it.
pub(super) struct Ticket {
    pub(super) hub: Arc<Hub>,
    pub(super) group: Group,
    pub(super) slot: usize,
    pub(super) sequence: u64,
}

impl Ticket {
    pub(super) fn wait(self) -> Result<Outcome, CommError> {
        self.hub.complete(&self.group, self.slot, self.sequence)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub.release(self.group.id, self.sequence);
    }
}
