//! The control plane: a TCP connection between rank 0 and every other rank, beside MPI and independent of it, by which ranks
//! learn within moments that one of them is dead, hangs, has failed or has left.
//!
//! Each rank tells rank 0 its last call in every heartbeat, and rank 0 tells everybody's to all. A closed connection is a
//! death, silence is a hang. Failures are judged by rank 0, so that all ranks report the same one; when rank 0 itself is gone,
//! each rank judges alone. Not here: what a failure ends on this rank (`shared.rs`).

mod meet;
mod wire;

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

pub(super) use meet::{INVITATION_BYTES, Invitation};
use wire::{Hearing, Link, Word};

use super::shared::Shared;
use crate::comm::{Death, FailureCause};

/// How long the ranks may take to find each other.
const MEETING: Duration = Duration::from_secs(60);
/// How long a rank waits for rank 0's verdict on a failure that it found itself.
const VERDICT: Duration = Duration::from_secs(1);
/// How long the last words may take to arrive before the process ends anyway.
const LINGER: Duration = Duration::from_millis(500);

/// This rank's end of the control plane.
pub(super) struct Control {
    shared: Arc<Shared>,
    /// On rank 0 the links to ranks 1.., elsewhere the one to rank 0.
    links: Vec<Link>,
    /// Rank 0 has given its verdict.
    judged: AtomicBool,
    /// Closed when nobody listens any more.
    listening: Mutex<Receiver<()>>,
}

impl Control {
    /// Connects the ranks, all of which call this, and starts the threads of this rank's end.
    pub(super) fn start(
        shared: Arc<Shared>,
        listener: Option<TcpListener>,
        invitation: &Invitation,
    ) -> io::Result<Arc<Self>> {
        let deadline = Instant::now() + MEETING;
        let connections = match listener {
            Some(listener) => invitation.receive(&listener, shared.ranks, deadline)?,
            None => vec![invitation.accept(shared.rank, deadline)?],
        };
        for (_, hearing) in &connections {
            hearing.be_patient(shared.options.silence)?;
        }
        let (links, hearings): (Vec<Link>, Vec<Hearing>) = connections.into_iter().unzip();
        let (ends, listening) = mpsc::channel();
        let control =
            Arc::new(Self { shared, links, judged: AtomicBool::new(false), listening: Mutex::new(listening) });
        for (index, hearing) in hearings.into_iter().enumerate() {
            let peer = if control.is_hub() { index + 1 } else { 0 };
            let (control, end) = (control.clone(), ends.clone());
            start_thread(format!("control-{peer}"), move || control.listen(peer, hearing, end))?;
        }
        let beating = control.clone();
        start_thread("control-beat".into(), move || beating.beat())?;
        Ok(control)
    }

    fn is_hub(&self) -> bool {
        self.shared.rank == 0
    }

    fn tell_all(&self, word: &Word) {
        self.links.iter().for_each(|link| link.say(word));
    }

    /// A failure that this rank found. Rank 0 judges it.
    pub(super) fn report(&self, cause: FailureCause) {
        if self.is_hub() {
            self.judge(cause);
        } else if self.shared.note_report(&cause) {
            self.tell_all(&Word::Report(cause));
        }
    }

    /// A failure that this rank causes: it counts here at once.
    pub(super) fn abort(&self, cause: FailureCause) {
        if self.is_hub() {
            self.judge(cause);
        } else if !self.shared.is_over() {
            self.tell_all(&Word::Report(cause.clone()));
            self.shared.fail(cause, None);
        }
    }

    /// Rank 0: the first failure is everybody's.
    fn judge(&self, cause: FailureCause) {
        if !self.judged.swap(true, Ordering::SeqCst) && !self.shared.is_over() {
            self.tell_all(&Word::Fail { cause: cause.clone(), flight: self.shared.last_calls() });
            self.shared.fail(cause, None);
        }
    }

    /// This rank makes no more calls; `sent[r]` letters has it sent to rank `r`.
    pub(super) fn left(&self, sent: Vec<u64>) {
        let rank = self.shared.rank;
        self.shared.has_left(rank, sent[rank]);
        self.tell_all(&Word::Left { rank, sent });
    }

    /// This rank has ended MPI.
    pub(super) fn finished(&self) {
        let rank = self.shared.rank;
        self.tell_all(&Word::Finished { rank });
        self.shared.has_finished(rank);
    }

    /// Ends the connections, when the world is over and its last words had time to arrive.
    pub(super) fn hang_up(&self) {
        if !self.is_hub() && self.shared.failure().is_none() {
            self.links.iter().for_each(Link::hang_up);
        }
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody sends anything: this waits until the last listener is gone.
        let ended: Result<(), RecvTimeoutError> = listening.recv_timeout(LINGER);
        tracing::debug!(rank = self.shared.rank, ?ended, "control connections closed");
        self.links.iter().for_each(Link::hang_up);
    }

    /// Hears what rank `peer` says until the end.
    fn listen(&self, peer: usize, mut hearing: Hearing, _end: Sender<()>) {
        loop {
            match hearing.next() {
                Ok(word) => self.hear(peer, word),
                Err(how) => return self.lost(peer, how),
            }
            // A rank other than 0 hangs up first, so that no word of rank 0 is lost.
            if !self.is_hub() && self.shared.is_over() {
                return self.links.iter().for_each(Link::hang_up);
            }
        }
    }

    fn hear(&self, peer: usize, word: Word) {
        match word {
            Word::Beat(trace) if trace.rank == peer => self.shared.learn(trace),
            Word::Table(traces) => traces.into_iter().for_each(|trace| self.shared.learn(trace)),
            Word::Report(cause) => self.judge(cause),
            Word::Fail { cause, flight } => drop(self.shared.fail(cause, Some(flight))),
            Word::Left { rank, ref sent } if rank < self.shared.ranks => {
                self.shared.has_left(rank, sent.get(self.shared.rank).copied().unwrap_or(0));
                self.relay(peer, &word);
            }
            Word::Finished { rank } if rank < self.shared.ranks => {
                // First the others: once this rank knows that all are done, its process may end.
                self.relay(peer, &word);
                self.shared.has_finished(rank);
            }
            other => tracing::warn!(peer, ?other, "unexpected word on the control plane"),
        }
    }

    /// Rank 0 passes on what a rank tells everybody.
    fn relay(&self, from: usize, word: &Word) {
        if self.is_hub() {
            self.links.iter().enumerate().filter(|(index, _)| index + 1 != from).for_each(|(_, link)| link.say(word));
        }
    }

    /// No word will come from rank `peer`.
    fn lost(&self, peer: usize, how: Death) {
        // A rank hangs up when it knows that all have finished, which may be a moment before this one does.
        if self.shared.is_over() || (self.is_hub() && self.shared.is_finished(peer)) {
            return;
        }
        let died = FailureCause::Died { rank: peer, how, noticed_by: self.shared.rank, waiting: None };
        if self.is_hub() {
            self.judge(died);
        } else {
            // Rank 0 may have ended because of the very failure that this rank reported to it.
            let own = self.shared.unanswered_report(Duration::ZERO);
            self.shared.fail(own.unwrap_or(died), None);
        }
    }

    /// Sends heartbeats, and looks after calls that can no more be completed.
    fn beat(&self) {
        while !self.shared.rest(self.shared.options.heartbeat) {
            let word =
                if self.is_hub() { Word::Table(self.shared.last_calls()) } else { Word::Beat(self.shared.last_call()) };
            self.tell_all(&word);
            if let Some(cause) = self.shared.overdue() {
                self.report(cause);
            }
            if let Some(cause) = self.shared.unanswered_report(VERDICT) {
                self.shared.fail(cause, None);
            }
        }
    }
}

fn start_thread(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name).stack_size(512 << 10).spawn(body).map(drop)
}
