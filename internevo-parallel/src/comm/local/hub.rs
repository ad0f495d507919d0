//! The meeting place of a local world: who has arrived at which call, what is in the post, who failed.
//!
//! One mutex and one condition variable serve the whole world; nothing spins. The lock is never held while elements are
//! added or copied. Not here: the arithmetic (`reduce.rs`) and the trait's face (`../member.rs`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    LocalOptions,
    reduce::{Exchange, Work},
};
use crate::comm::{
    Buffer, CommError, ElementKind, FailureCause, RankTrace,
    call::{Call, GroupId, Place, Record, Verb},
    flight::Recorder,
    member::Deposit,
};

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
    presence: Vec<Presence>,
    failure: Option<CommError>,
    flight: Vec<Recorder>,
}

impl State {
    fn traces(&self) -> Vec<RankTrace> {
        self.flight.iter().enumerate().map(|(rank, recorder)| recorder.trace(rank)).collect()
    }
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
            presence: vec![Presence::Here; ranks],
            failure: None,
            flight: (0..ranks).map(|_| Recorder::new(options.recorded_calls)).collect(),
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
            state.failure = Some(CommError::new(cause, state.traces()));
            // Deposits of unfinished calls are of no use any more.
            state.operations.retain(|_, op| !matches!(op.stage, Stage::Gathering(_)));
            self.changed.notify_all();
        }
        state.failure.clone().expect("set above")
    }

    /// What every rank did last.
    pub(super) fn flight(&self) -> Vec<RankTrace> {
        self.lock().traces()
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

    /// Brings `deposit` to call number `sequence` of `group`.
    pub(super) fn post(&self, place: &Place, sequence: u64, call: Call, deposit: Deposit) -> Result<(), CommError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let Place { group, members, slot } = place;
        state.flight[place.rank()].record(Record::Collective { call, sequence, members: members.clone() });
        let ranks = members.len();
        let operation = state.operations.entry((*group, sequence)).or_insert_with(|| Operation {
            calls: vec![None; ranks],
            stage: Stage::Gathering((0..ranks).map(|_| None).collect()),
            left: ranks,
        });
        let agreed = operation.calls.iter().flatten().all(|other| other.agrees_with(&call));
        operation.calls[*slot] = Some(call);
        let Stage::Gathering(deposits) = &mut operation.stage else {
            unreachable!("a call leaves this stage when its last rank has posted")
        };
        deposits[*slot] = Some(deposit);
        if !agreed || !counts_agree(deposits) {
            let calls = operation.calls.iter().zip(members.iter());
            let calls = calls.filter_map(|(call, rank)| Some((*rank, call.as_ref()?.to_string()))).collect();
            let cause = FailureCause::Mismatch { sequence, members: members.to_vec(), calls };
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
    fn complete(&self, place: &Place, sequence: u64) -> Result<Outcome, CommError> {
        let started = Instant::now();
        let mut guard = self.lock();
        loop {
            let state = &mut *guard;
            let Some(operation) = state.operations.get(&(place.group, sequence)) else {
                return Err(state
                    .failure
                    .clone()
                    .expect("a call disappears before it is taken only when the world fails"));
            };
            match &operation.stage {
                Stage::Sharing(deposits) => return Ok(Outcome::Shared(deposits.clone())),
                Stage::Exchanging(exchange) if exchange.is_finished() => {
                    return Ok(Outcome::Own(exchange.take(place.slot).expect("a ticket takes its result once")));
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
                    let missing = missing_ranks(&place.members, deposits);
                    let call = operation.calls[place.slot].expect("a ticket's rank has called");
                    let record = Record::Collective { call, sequence, members: place.members.clone() };
                    guard = self.sleep_for_ranks(guard, started, place.rank(), &missing, &record)?;
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
        record: &Record,
    ) -> Result<MutexGuard<'a, State>, CommError> {
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if let Some(rank) = missing.iter().copied().find(|r| state.presence[*r] != Presence::Here) {
            let call = record.to_string();
            let cause = match state.presence[rank] {
                Presence::Panicked => FailureCause::Panicked { rank, waiting, call },
                _ => FailureCause::Left { rank, waiting, call },
            };
            return Err(self.fail(state, cause));
        }
        let waited = started.elapsed();
        if waited >= self.options.timeout {
            let call = record.to_string();
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

    pub(super) fn send(&self, mailbox: Mailbox, buffer: Buffer) -> Result<(), CommError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let (kind, len) = (buffer.kind(), buffer.len());
        state.flight[mailbox.from].record(Record::Send { kind, len, to: mailbox.to, tag: mailbox.tag });
        state.mail.entry(mailbox).or_default().push_back(buffer);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn recv(&self, mailbox: Mailbox, kind: ElementKind, len: usize) -> Result<Buffer, CommError> {
        let Mailbox { from, to, tag, .. } = mailbox;
        let record = Record::Receive { kind, len, from, tag };
        let started = Instant::now();
        let mut guard = self.lock();
        guard.flight[to].record(record.clone());
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
            guard = self.sleep_for_ranks(guard, started, to, &[from], &record)?;
        }
    }
}

fn missing_ranks(members: &[usize], deposits: &[Option<Deposit>]) -> Vec<usize> {
    deposits.iter().zip(members).filter(|(d, _)| d.is_none()).map(|(_, rank)| *rank).collect()
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
    pub(super) place: Place,
    pub(super) sequence: u64,
}

impl Ticket {
    pub(super) fn wait(self) -> Result<Outcome, CommError> {
        self.hub.complete(&self.place, self.sequence)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub.release(self.place.group, self.sequence);
    }
}
