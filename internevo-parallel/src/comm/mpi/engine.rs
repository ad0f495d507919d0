//! The communication thread: takes up the calls that the rank's threads enter, writes and reads letters, starts blocks, and
//! completes calls. It alone calls MPI.
//!
//! A rank announces each of its calls to the group's other ranks by a letter, which says what it called and carries the block
//! for the reader if that is short. Two ranks whose calls differ find out by comparing letters, before a block moves. Long
//! blocks follow under a tag that the letter names. Not here: which elements go where (`operation.rs`), and messages between two
//! ranks (`messages.rs`).

use std::{
    collections::HashMap,
    mem::ManuallyDrop,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use super::{
    control::Control,
    letter::{Letter, Subject},
    messages::{Mail, Mailbox, Message, Wanted},
    operation::Operation,
    shared::{CallId, Shared},
    transport::{MpiFault, Token, Transport},
};
use crate::comm::{
    Buffer, ElementKind, FailureCause,
    buffer::on_vector,
    call::{Call, GroupId, Place},
    member::Deposit,
};

/// What the engine is asked to do.
pub(super) enum Command {
    Post {
        id: CallId,
        place: Place,
        sequence: u64,
        call: Call,
        deposit: Deposit,
    },
    Send {
        id: CallId,
        group: GroupId,
        buffer: Buffer,
        to: usize,
        tag: u32,
    },
    Receive {
        id: CallId,
        group: GroupId,
        kind: ElementKind,
        len: usize,
        from: usize,
        tag: u32,
    },
    /// Something else has changed.
    Wake,
    /// No call follows.
    Leave,
}

/// Looks at MPI without sleeping before the engine begins to sleep between looks.
const EAGER_LOOKS: u32 = 64;
/// The shortest and the longest sleep between two looks.
const SLEEPS: Range<Duration> = Duration::from_micros(20)..Duration::from_micros(500);

/// Why the engine stops.
pub(super) enum Stop {
    /// MPI failed.
    Fault(MpiFault),
    /// The world has failed.
    Failed,
    /// Ranks sent what does not fit together.
    Refused(FailureCause),
}

impl From<MpiFault> for Stop {
    fn from(fault: MpiFault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) type Progress<T = ()> = Result<T, Stop>;

pub(super) struct Engine {
    pub(super) transport: Transport,
    pub(super) shared: Arc<Shared>,
    control: Arc<Control>,
    commands: Receiver<Command>,
    operations: HashMap<CallId, Operation>,
    calls: HashMap<(GroupId, u64), CallId>,
    /// Letters about calls that this rank has not made yet.
    early: HashMap<(GroupId, u64), Vec<(usize, Letter)>>,
    pub(super) mail: HashMap<Mailbox, Mail>,
    pub(super) messages: HashMap<CallId, Message>,
    /// Memory of the last reduction of each kind, for the next one.
    spare: HashMap<ElementKind, Buffer>,
    leaving: bool,
}

impl Engine {
    pub(super) fn new(
        transport: Transport,
        shared: Arc<Shared>,
        control: Arc<Control>,
        commands: Receiver<Command>,
    ) -> Self {
        let (operations, calls, early) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (mail, messages, spare, leaving) = (HashMap::new(), HashMap::new(), HashMap::new(), false);
        Self { transport, shared, control, commands, operations, calls, early, mail, messages, spare, leaving }
    }

    /// Works until every rank has left, then ends MPI; or until the world fails.
    pub(super) fn run(self) {
        // When the world fails or this code panics, MPI may still be using the memory of requests under way. It stays
        // allocated: the process is about to end.
        let mut engine = ManuallyDrop::new(self);
        let (control, rank) = (engine.control.clone(), engine.shared.rank);
        let served = catch_unwind(AssertUnwindSafe(|| engine.serve().and_then(|()| engine.part())));
        let stopped = match served {
            Ok(Ok(())) => ManuallyDrop::into_inner(engine).transport.finish().map_err(Stop::Fault),
            Ok(Err(stop)) => Err(stop),
            Err(_) => {
                let what = "the communication thread panicked".to_owned();
                Err(Stop::Refused(FailureCause::Transport { rank, what, waiting: None }))
            }
        };
        match stopped {
            Ok(()) => control.finished(),
            Err(Stop::Failed) => {}
            Err(Stop::Refused(cause)) => control.report(cause),
            Err(Stop::Fault(fault)) => {
                control.report(FailureCause::Transport { rank, what: fault.to_string(), waiting: None });
            }
        }
    }

    /// Carries out calls until this rank leaves and everything it owes is done.
    fn serve(&mut self) -> Progress {
        let mut idle_looks = 0;
        loop {
            let moved = self.look()?;
            idle_looks = if moved { 0 } else { idle_looks + 1 };
            let owing = !self.operations.is_empty() || self.messages.values().any(Message::is_incoming);
            if self.leaving && !owing {
                return Ok(());
            }
            self.rest(idle_looks)?;
        }
    }

    /// The orderly end: says farewell, and takes in what others still send until all have left.
    fn part(&mut self) -> Progress {
        self.control.left(self.transport.letters_posted().to_vec());
        let mut idle_looks = 0;
        loop {
            let moved = self.look()?;
            idle_looks = if moved { 0 } else { idle_looks + 1 };
            if self.shared.all_left() && !self.shared.letters_to_come() {
                self.discard_unclaimed()?;
                if !self.transport.is_busy() {
                    return Ok(());
                }
            }
            self.rest(idle_looks)?;
        }
    }

    /// One round: commands, finished blocks, letters. True if anything moved.
    fn look(&mut self) -> Progress<bool> {
        if self.shared.failure().is_some() {
            return Err(Stop::Failed);
        }
        let mut moved = false;
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command)?;
            moved = true;
        }
        if !self.is_waiting() {
            return Ok(moved);
        }
        let mut done = Vec::new();
        moved |= self.transport.poll(&mut done)?;
        for token in done {
            self.block_done(token)?;
        }
        while let Some((from, bytes)) = self.transport.next_letter()? {
            moved = true;
            let letter = Letter::decode(&bytes).ok_or_else(|| MpiFault {
                function: "reading a letter",
                text: format!("rank {from} does not speak this version's language"),
            })?;
            self.read(from, letter)?;
        }
        Ok(moved)
    }

    /// Whether MPI has to be looked at: without a call under way, letters wait unread at no cost.
    fn is_waiting(&self) -> bool {
        let wanted = || self.mail.values().any(|mail| !mail.wanted.is_empty());
        let last_letters = || self.leaving && self.shared.all_left();
        self.transport.is_busy() || !self.operations.is_empty() || wanted() || last_letters()
    }

    /// Sleeps until a command comes; with something under way, only a moment, longer the longer nothing moved.
    fn rest(&mut self, idle_looks: u32) -> Progress {
        let command = if !self.is_waiting() {
            self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else if idle_looks <= EAGER_LOOKS {
            thread::yield_now();
            return Ok(());
        } else {
            let doublings = ((idle_looks - EAGER_LOOKS) / 16).min(8);
            self.commands.recv_timeout((SLEEPS.start * 2u32.pow(doublings)).min(SLEEPS.end))
        };
        match command {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stop::Failed),
        }
    }

    fn obey(&mut self, command: Command) -> Progress {
        match command {
            Command::Post { id, place, sequence, call, deposit } => {
                let lanes = |kind, len| take_spare(&mut self.spare, kind, len);
                let operation = Operation::new(place, sequence, call, deposit, lanes);
                self.post(id, operation)
            }
            Command::Send { id, group, buffer, to, tag } => self.send(id, group, buffer, to, tag),
            Command::Receive { id, group, kind, len, from, tag } => {
                self.await_message((group, from, tag), Wanted { id, kind, len })
            }
            Command::Wake => Ok(()),
            Command::Leave => {
                self.leaving = true;
                // Nobody waits for these any more.
                self.mail.values_mut().for_each(|mail| mail.wanted.clear());
                Ok(())
            }
        }
    }

    /// Announces a call, sends its blocks and meets the ranks that came before.
    fn post(&mut self, id: CallId, operation: Operation) -> Progress {
        let (group, sequence, call) = (operation.place.group, operation.sequence, operation.call);
        let block_tag = self.transport.tags(2);
        let operation = self.operations.entry(id).or_insert(operation);
        operation.spread_tags[operation.place.slot] = block_tag + 1;
        for (slot, rank) in operation.others() {
            let range = operation.outgoing(slot);
            let short = operation.fits_letter(&range);
            let inline = short.then(|| operation.own().read(&range));
            let subject = Subject::Call { sequence, call };
            let letter = Letter { group, subject, count: range.len(), block_tag, inline };
            self.transport.post_letter(letter.encode(), rank)?;
            if !short {
                let block = operation.own().block(&range);
                // SAFETY: the operation owns the memory and is kept until its outstanding requests are done (`block_done`)
                // or for ever (`run`); until then nothing writes to what it sends: blocks from others land elsewhere.
                operation.outstanding += unsafe { self.transport.send(block, rank, block_tag, id)? };
            }
        }
        self.calls.insert((group, sequence), id);
        let early = self.early.remove(&(group, sequence)).unwrap_or_default();
        let come = |rank: &usize| early.iter().any(|(from, _)| from == rank);
        let missing = operation.others().map(|(_, rank)| rank).filter(|rank| !come(rank)).collect();
        self.shared.taken_up(id, missing);
        for (from, letter) in early {
            self.meet(id, from, letter)?;
        }
        self.advance(id)
    }

    fn read(&mut self, from: usize, letter: Letter) -> Progress {
        match letter.subject {
            Subject::Call { sequence, .. } => {
                let key = (letter.group, sequence);
                let id = self.calls.get(&key).copied();
                self.shared.heard(from, id);
                match id {
                    Some(id) => {
                        self.meet(id, from, letter)?;
                        self.advance(id)
                    }
                    None => {
                        self.early.entry(key).or_default().push((from, letter));
                        Ok(())
                    }
                }
            }
            Subject::Message { tag, .. } => self.read_message((letter.group, from, tag), letter),
        }
    }

    /// Another rank has made call `id` too: compares the calls and takes or awaits its block.
    fn meet(&mut self, id: CallId, from: usize, letter: Letter) -> Progress {
        let operation = self.operations.get_mut(&id).expect("a call is kept until all ranks have met");
        let Subject::Call { call, .. } = letter.subject else { unreachable!("only calls meet") };
        let Some(slot) = operation.place.members.iter().position(|rank| *rank == from) else {
            let text = format!("rank {from} writes to a group it is no member of");
            return Err(Stop::Fault(MpiFault { function: "reading a letter", text }));
        };
        operation.heard[slot] = Some(call);
        operation.spread_tags[slot] = letter.block_tag + 1;
        let range = operation.incoming(slot);
        if !operation.call.agrees_with(&call) || letter.count != range.len() {
            return Err(Stop::Refused(mismatch(operation)));
        }
        match letter.inline {
            Some(bytes) => operation.landing().write(&range, &bytes),
            None => {
                let block = operation.landing().block(&range);
                // SAFETY: as in `post`; each rank's block has a place of its own, which nothing else reads or writes before
                // the exchange is over.
                operation.outstanding += unsafe { self.transport.receive(block, from, letter.block_tag, id)? };
            }
        }
        Ok(())
    }

    /// Goes on with a call whose exchange is over.
    fn advance(&mut self, id: CallId) -> Progress {
        let Some(operation) = self.operations.get_mut(&id) else { return Ok(()) };
        if !operation.exchange_is_over() {
            return Ok(());
        }
        if !operation.spreading {
            // Fresh memory costs more than the additions: the system maps and clears it page by page.
            self.spare.extend(operation.combine().map(|lanes| (lanes.kind(), lanes)));
            operation.spreading = true;
            let own_tag = operation.spread_tags[operation.place.slot];
            for (slot, rank) in operation.others() {
                let Some((out, into)) = operation.spread(slot) else { break };
                let (out, into) = (operation.own().block(&out), operation.own().block(&into));
                let tag = operation.spread_tags[slot];
                // SAFETY: as in `post`; every request of the first exchange is done, so its memory is free again. This rank's
                // part is only read, and every other rank's part is written by that rank's block alone.
                operation.outstanding += unsafe {
                    self.transport.receive(into, rank, tag, id)? + self.transport.send(out, rank, own_tag, id)?
                };
            }
            if operation.outstanding > 0 {
                return Ok(());
            }
        }
        let operation = self.operations.remove(&id).expect("found above");
        self.calls.remove(&(operation.place.group, operation.sequence));
        self.shared.complete(id, operation.into_result());
        Ok(())
    }

    /// MPI has finished a request of call `token`.
    fn block_done(&mut self, token: Token) -> Progress {
        if let Some(operation) = self.operations.get_mut(&token) {
            operation.outstanding -= 1;
            return self.advance(token);
        }
        self.message_block_done(token);
        Ok(())
    }
}

/// `len` elements of any value.
fn take_spare(spare: &mut HashMap<ElementKind, Buffer>, kind: ElementKind, len: usize) -> Buffer {
    let Some(mut buffer) = spare.remove(&kind) else { return Buffer::zeros(kind, len) };
    on_vector!(&mut buffer, v => v.resize(len, Default::default()));
    buffer
}

fn mismatch(operation: &Operation) -> FailureCause {
    let members = operation.place.members.to_vec();
    let heard = operation.heard.iter().zip(&members);
    let calls = heard.filter_map(|(call, rank)| Some((*rank, call.as_ref()?.to_string()))).collect();
    FailureCause::Mismatch { sequence: operation.sequence, members, calls }
}
