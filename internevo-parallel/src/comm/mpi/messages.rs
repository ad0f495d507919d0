//! Messages from one rank to another: the engine's half that brings a send and its receive together.
//!
//! A message is a letter, with its block inside or after it. It waits at its receiver until somebody wants it; a long block
//! waits at its sender, whose call has long returned.

use std::collections::VecDeque;

use super::{
    engine::{Engine, Progress, Stop},
    letter::{INLINE_BYTES, Letter, Subject},
    shared::CallId,
    transport::{Memory, Token},
};
use crate::comm::{Buffer, ElementKind, FailureCause, call::GroupId};

/// Where a message waits: group, sender, tag.
pub(super) type Mailbox = (GroupId, usize, u32);

/// A receive without its message.
pub(super) struct Wanted {
    pub(super) id: CallId,
    pub(super) kind: ElementKind,
    pub(super) len: usize,
}

/// What waits in a mailbox: messages or receives, never both.
#[derive(Default)]
pub(super) struct Mail {
    arrived: VecDeque<Letter>,
    pub(super) wanted: VecDeque<Wanted>,
}

/// A message whose block MPI is moving.
pub(super) struct Message {
    memory: Memory,
    outstanding: usize,
    incoming: bool,
}

impl Message {
    /// Whether it comes to this rank.
    pub(super) fn is_incoming(&self) -> bool {
        self.incoming
    }
}

impl Engine {
    pub(super) fn send(&mut self, id: CallId, group: GroupId, buffer: Buffer, to: usize, tag: u32) -> Progress {
        let (kind, len) = (buffer.kind(), buffer.len());
        let (memory, all) = (Memory::new(buffer), 0..len);
        let short = len * memory.width() <= INLINE_BYTES;
        let inline = short.then(|| memory.read(&all));
        let block_tag = self.transport.tags(1);
        let letter = Letter { group, subject: Subject::Message { tag, kind, len }, count: len, block_tag, inline };
        self.transport.post_letter(letter.encode(), to)?;
        if !short {
            let message = self.messages.entry(id).or_insert(Message { memory, outstanding: 0, incoming: false });
            let block = message.memory.block(&all);
            // SAFETY: the memory is kept in `messages` until its requests are done, or for ever, and nobody writes to it.
            message.outstanding = unsafe { self.transport.send(block, to, block_tag, id)? };
        }
        Ok(())
    }

    /// A receive was called.
    pub(super) fn await_message(&mut self, mailbox: Mailbox, wanted: Wanted) -> Progress {
        self.shared.taken_up(wanted.id, vec![mailbox.1]);
        self.mail.entry(mailbox).or_default().wanted.push_back(wanted);
        self.deliver(mailbox)
    }

    /// A message has come.
    pub(super) fn read_message(&mut self, mailbox: Mailbox, letter: Letter) -> Progress {
        let mail = self.mail.entry(mailbox).or_default();
        mail.arrived.push_back(letter);
        self.shared.heard(mailbox.1, mail.wanted.front().map(|wanted| wanted.id));
        self.deliver(mailbox)
    }

    /// Brings together the messages and the receives of a mailbox.
    fn deliver(&mut self, mailbox: Mailbox) -> Progress {
        let (_, from, tag) = mailbox;
        while let Some(mail) = self.mail.get_mut(&mailbox) {
            if mail.arrived.is_empty() && mail.wanted.is_empty() {
                self.mail.remove(&mailbox);
                break;
            }
            let (Some(letter), Some(wanted)) = (mail.arrived.front(), mail.wanted.front()) else { break };
            let Subject::Message { kind, len, .. } = letter.subject else { unreachable!("mail holds messages") };
            if (kind, len) != (wanted.kind, wanted.len) {
                let (expected, found) = (format!("{} x {}", wanted.kind, wanted.len), format!("{kind} x {len}"));
                return Err(Stop::Refused(FailureCause::Message { from, to: self.shared.rank, tag, expected, found }));
            }
            let id = wanted.id;
            let letter = mail.arrived.pop_front().expect("looked at above");
            mail.wanted.pop_front();
            self.shared.taken_up(id, Vec::new());
            self.take(id, from, letter, kind)?;
        }
        Ok(())
    }

    /// Takes in a message's elements.
    fn take(&mut self, id: CallId, from: usize, letter: Letter, kind: ElementKind) -> Progress {
        let mut memory = Memory::new(Buffer::zeros(kind, letter.count));
        let all = 0..letter.count;
        if let Some(bytes) = letter.inline {
            memory.write(&all, &bytes);
            self.shared.complete(id, memory.into_buffer());
            return Ok(());
        }
        let message = self.messages.entry(id).or_insert(Message { memory, outstanding: 0, incoming: true });
        let block = message.memory.block(&all);
        // SAFETY: the memory is kept in `messages` until its requests are done, or for ever, and nobody looks at it before.
        message.outstanding = unsafe { self.transport.receive(block, from, letter.block_tag, id)? };
        Ok(())
    }

    /// MPI has finished a request of a message.
    pub(super) fn message_block_done(&mut self, token: Token) {
        let message = self.messages.get_mut(&token).expect("a request belongs to a call or a message");
        message.outstanding -= 1;
        if message.outstanding == 0 {
            let message = self.messages.remove(&token).expect("found above");
            if message.incoming {
                self.shared.complete(token, message.memory.into_buffer());
            }
        }
    }

    /// Receives the blocks of messages that nobody asked for, so that their senders can end.
    pub(super) fn discard_unclaimed(&mut self) -> Progress {
        for ((_, from, _), mail) in std::mem::take(&mut self.mail) {
            for letter in mail.arrived {
                let Subject::Message { kind, .. } = letter.subject else { unreachable!("mail holds messages") };
                let id = self.shared.next_id();
                self.take(id, from, letter, kind)?;
            }
        }
        Ok(())
    }
}
