//! What the threads of one rank share: the calls under way, who is still there, and the one failure that counts.
//!
//! Callers enter calls here and wait for their results; the engine completes them; the control plane watches their age and
//! ends all of them when the world fails, whatever the engine is doing at that moment.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Sender},
    },
    time::{Duration, Instant},
};

use super::{MpiOptions, engine::Command};
use crate::comm::{
    Buffer, CommError, ElementKind, FailureCause, Pending, RankTrace,
    call::{Call, Place, Record},
    flight::Recorder,
    member::{Deposit, Engine},
};

/// Number of a call of this rank; also the token of its requests.
pub(super) type CallId = u64;

/// A call that has no result yet.
struct Entry {
    record: Record,
    posted: Instant,
    /// The other ranks of the call.
    peers: Vec<usize>,
    /// Those that the engine has not heard from; before it took the call up, all.
    missing: Vec<usize>,
    /// The engine knows of the call.
    taken_up: bool,
    result: Sender<Result<Buffer, CommError>>,
}

/// How far a rank is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    Here,
    Left,
    Finished,
}

struct State {
    entries: BTreeMap<CallId, Entry>,
    next_call: CallId,
    recorder: Recorder,
    /// The others' traces, as far as they were told.
    traces: Vec<RankTrace>,
    presence: Vec<Presence>,
    /// Letters that each rank sent to this one in all; known when it has left.
    sent: Vec<u64>,
    /// Letters that came from each rank.
    received: Vec<u64>,
    /// A failure is being announced; no other one counts.
    failing: bool,
    failure: Option<CommError>,
    /// A failure of this rank that waits for rank 0's verdict.
    reported: Option<(Instant, FailureCause)>,
}

/// See the file's documentation.
pub(super) struct Shared {
    pub(super) rank: usize,
    pub(super) ranks: usize,
    pub(super) options: MpiOptions,
    state: Mutex<State>,
    changed: Condvar,
    commands: Sender<Command>,
}

impl Shared {
    pub(super) fn new(rank: usize, ranks: usize, options: MpiOptions, commands: Sender<Command>) -> Self {
        let state = State {
            entries: BTreeMap::new(),
            next_call: 0,
            recorder: Recorder::new(options.recorded_calls),
            traces: (0..ranks).map(|rank| RankTrace { rank, ..RankTrace::default() }).collect(),
            presence: vec![Presence::Here; ranks],
            sent: vec![0; ranks],
            received: vec![0; ranks],
            failing: false,
            failure: None,
            reported: None,
        };
        Self { rank, ranks, options, state: Mutex::new(state), changed: Condvar::new(), commands }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock leaves a half-made state behind, so a panicking holder is no reason to stop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_engine(&self, command: Command) {
        // Without an engine there is a failure, which every caller finds first.
        let _ = self.commands.send(command);
    }

    /// Enters a call, hands it to the engine and returns the handle of its result. The lock is held meanwhile, so that the
    /// engine sees calls in the order of their numbers.
    fn enter(
        &self,
        record: Record,
        peers: Vec<usize>,
        command: impl FnOnce(CallId) -> Command,
    ) -> Result<Pending, CommError> {
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.recorder.record(record.clone());
        let (result, receiver) = mpsc::channel();
        let id = state.next_call;
        state.next_call += 1;
        let (posted, missing) = (Instant::now(), peers.clone());
        state.entries.insert(id, Entry { record, posted, peers, missing, taken_up: false, result });
        self.wake_engine(command(id));
        drop(state);
        let (rank, gone) = (self.rank, "the world was closed before this call was complete");
        Ok(Pending::new(move || {
            let closed = |_| CommError::new(FailureCause::Transport { rank, what: gone.into(), waiting: None }, vec![]);
            receiver.recv().map_err(closed)?
        }))
    }

    /// A number for a block that belongs to no call.
    pub(super) fn next_id(&self) -> CallId {
        let mut state = self.lock();
        state.next_call += 1;
        state.next_call - 1
    }

    /// The engine has taken up a call and knows which ranks are missing.
    pub(super) fn taken_up(&self, id: CallId, missing: Vec<usize>) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            (entry.missing, entry.taken_up) = (missing, true);
        }
    }

    /// A letter came from `from`, which belongs to call `id` if that is known.
    pub(super) fn heard(&self, from: usize, id: Option<CallId>) {
        let mut state = self.lock();
        state.received[from] += 1;
        if let Some(entry) = id.and_then(|id| state.entries.get_mut(&id)) {
            entry.missing.retain(|rank| *rank != from);
        }
    }

    /// Gives a call its result.
    pub(super) fn complete(&self, id: CallId, result: Buffer) {
        if let Some(entry) = self.lock().entries.remove(&id) {
            // Nobody listens when the handle was dropped.
            let _ = entry.result.send(Ok(result));
        }
    }

    /// The failure, if there is one.
    pub(super) fn failure(&self) -> Option<CommError> {
        self.lock().failure.clone()
    }

    /// Ends every present and later call with `cause`, unless the world has failed before. The hook runs first, so that the
    /// message is out before anybody can leave the process. True if this failure is the one that counts.
    pub(super) fn fail(&self, cause: FailureCause, flight: Option<Vec<RankTrace>>) -> bool {
        let mut state = self.lock();
        if std::mem::replace(&mut state.failing, true) {
            return false;
        }
        if let Some(flight) = flight {
            state.traces = flight;
        }
        let cause = state.seen_from(self.rank, cause);
        let error = CommError::new(cause, state.flight(self.rank));
        drop(state);
        if let Some(hook) = &self.options.on_failure {
            hook(&error);
        }
        let mut state = self.lock();
        state.failure = Some(error.clone());
        for (_, entry) in std::mem::take(&mut state.entries) {
            let _ = entry.result.send(Err(error.clone()));
        }
        drop(state);
        self.wake_engine(Command::Wake);
        self.changed.notify_all();
        true
    }

    /// Notes a failure of this rank, to be judged by rank 0; `false` if one is noted already.
    pub(super) fn note_report(&self, cause: &FailureCause) -> bool {
        let mut state = self.lock();
        let first = !state.failing && state.reported.is_none();
        if first {
            state.reported = Some((Instant::now(), cause.clone()));
        }
        first
    }

    /// This rank's own failure, if rank 0 has not answered to it within `patience`.
    pub(super) fn unanswered_report(&self, patience: Duration) -> Option<FailureCause> {
        let state = self.lock();
        let (at, cause) = state.reported.as_ref()?;
        (!state.failing && at.elapsed() > patience).then(|| cause.clone())
    }

    /// A call that can no more be completed: its rank has left, or its time is up.
    pub(super) fn overdue(&self) -> Option<FailureCause> {
        let state = self.lock();
        if state.failing || state.reported.is_some() {
            return None;
        }
        let waiting = self.rank;
        state.entries.values().find_map(|entry| {
            let gone = |rank: &&usize| {
                state.presence[**rank] != Presence::Here && state.received[**rank] >= state.sent[**rank]
            };
            let call = || entry.record.to_string();
            if let (true, Some(rank)) = (entry.taken_up, entry.missing.iter().find(gone)) {
                return Some(FailureCause::Left { rank: *rank, waiting, call: call() });
            }
            let waited = entry.posted.elapsed();
            let missing = || if entry.missing.is_empty() { entry.peers.clone() } else { entry.missing.clone() };
            let timeout = || FailureCause::Timeout { waiting, call: call(), missing: missing(), waited };
            (waited > self.options.timeout).then(timeout)
        })
    }

    /// Waits a moment, or until the end. True if the end has come.
    pub(super) fn rest(&self, moment: Duration) -> bool {
        let going = |state: &mut State| !state.is_over();
        let waited = self.changed.wait_timeout_while(self.lock(), moment, going);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_over()
    }

    /// Whether the world has failed, or every rank has finished.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// Every rank's last call, as far as this one knows.
    pub(super) fn last_calls(&self) -> Vec<RankTrace> {
        let state = self.lock();
        let mut calls = state.traces.clone();
        calls[self.rank] = state.recorder.last(self.rank);
        calls
    }

    /// This rank's number of calls and last call.
    pub(super) fn last_call(&self) -> RankTrace {
        self.lock().recorder.last(self.rank)
    }

    /// What `trace.rank` does, in its own words.
    pub(super) fn learn(&self, trace: RankTrace) {
        let mut state = self.lock();
        if let Some(known) = state.traces.get_mut(trace.rank) {
            *known = trace;
        }
    }

    /// What every rank does, as far as this one knows.
    pub(super) fn flight(&self) -> Vec<RankTrace> {
        self.lock().flight(self.rank)
    }

    /// `rank` has left, after `sent` letters to this rank.
    pub(super) fn has_left(&self, rank: usize, sent: u64) {
        let mut state = self.lock();
        state.sent[rank] = sent;
        state.presence[rank] = state.presence[rank].max(Presence::Left);
        drop(state);
        self.wake_engine(Command::Wake);
    }

    /// `rank` has finished MPI.
    pub(super) fn has_finished(&self, rank: usize) {
        self.lock().presence[rank] = Presence::Finished;
        self.changed.notify_all();
    }

    /// Whether `rank` has finished MPI.
    pub(super) fn is_finished(&self, rank: usize) -> bool {
        self.lock().presence[rank] == Presence::Finished
    }

    /// Whether every rank has left.
    pub(super) fn all_left(&self) -> bool {
        self.lock().presence.iter().all(|presence| *presence >= Presence::Left)
    }

    /// Whether letters are still to come from ranks that have left.
    pub(super) fn letters_to_come(&self) -> bool {
        let state = self.lock();
        state.received.iter().zip(&state.sent).any(|(received, sent)| received < sent)
    }

    /// Waits for the end: every rank has finished, or the world has failed.
    pub(super) fn wait_for_end(&self) -> Result<(), CommError> {
        let going = |state: &mut State| !state.is_over();
        let state = self.changed.wait_while(self.lock(), going).unwrap_or_else(PoisonError::into_inner);
        state.failure.clone().map_or(Ok(()), Err)
    }

    /// Tells the engine that this rank makes no more calls.
    pub(super) fn leave(&self) {
        self.wake_engine(Command::Leave);
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.failure.is_some() || self.presence.iter().all(|presence| *presence == Presence::Finished)
    }

    fn flight(&self, own: usize) -> Vec<RankTrace> {
        let mut flight = self.traces.clone();
        flight[own] = self.recorder.trace(own);
        flight
    }

    /// What this rank waits in, because of `rank` if there is such a call, else the oldest.
    fn waiting_for(&self, rank: usize) -> Option<String> {
        let calls = || self.entries.values();
        let blocked = calls().find(|entry| entry.missing.contains(&rank));
        blocked.or_else(|| calls().next()).map(|entry| entry.record.to_string())
    }

    /// A failure of another rank in this rank's words: each says what it was itself waiting in.
    fn seen_from(&self, noticed_by: usize, cause: FailureCause) -> FailureCause {
        match cause {
            FailureCause::Died { rank, how, .. } => {
                FailureCause::Died { rank, how, noticed_by, waiting: self.waiting_for(rank) }
            }
            FailureCause::Transport { rank, what, .. } if rank == noticed_by => {
                FailureCause::Transport { rank, what, waiting: self.waiting_for(rank) }
            }
            other => other,
        }
    }
}

/// The rank's side of the shared state that callers use.
pub(super) struct Port {
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) control: std::sync::Arc<super::control::Control>,
}

impl Engine for Port {
    fn post(&self, place: &Place, sequence: u64, call: Call, deposit: Deposit) -> Result<Pending, CommError> {
        let record = Record::Collective { call, sequence, members: place.members.clone() };
        let others = place.members.iter().copied().filter(|rank| *rank != self.shared.rank).collect();
        let place = place.clone();
        self.shared.enter(record, others, |id| Command::Post { id, place, sequence, call, deposit })
    }

    fn send(&self, place: &Place, buffer: Buffer, to: usize, tag: u32) -> Result<Pending, CommError> {
        let (group, to) = (place.group, place.members[to]);
        let record = Record::Send { kind: buffer.kind(), len: buffer.len(), to, tag };
        let mut state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.recorder.record(record);
        let id = state.next_call;
        state.next_call += 1;
        self.shared.wake_engine(Command::Send { id, group, buffer, to, tag });
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
        let (group, from) = (place.group, place.members[from]);
        let record = Record::Receive { kind, len, from, tag };
        self.shared.enter(record, vec![from], |id| Command::Receive { id, group, kind, len, from, tag })
    }

    fn abort(&self, why: &str) {
        self.control.abort(FailureCause::Aborted { rank: self.shared.rank, why: why.to_owned() });
    }

    fn flight(&self) -> Vec<RankTrace> {
        self.shared.flight()
    }
}
