//! What a rank sends to itself, for backends whose transport only reaches others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use super::{Buffer, CommError, ElementKind, call::Place};

/// One group's messages from this rank to itself, a queue per tag.
#[derive(Default)]
pub(super) struct SelfMail(Mutex<HashMap<u32, VecDeque<Buffer>>>);

impl SelfMail {
    pub(super) fn post(&self, tag: u32, buffer: Buffer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tag).or_default().push_back(buffer);
    }

    /// The next message under `tag`. Waiting for one that was not sent would be for ever, so it is an error.
    pub(super) fn take(&self, place: &Place, kind: ElementKind, len: usize, tag: u32) -> Result<Buffer, CommError> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = queues.get_mut(&tag).and_then(VecDeque::pop_front);
        let found = message.as_ref().map(|message| (message.kind(), message.len()));
        message.filter(|_| found == Some((kind, len))).ok_or_else(|| {
            let found = found.map_or("nothing".to_owned(), |(kind, len)| format!("{kind} x {len}"));
            let reason = format!("this rank sent itself {found} under tag {tag}");
            place.invalid(format!("recv({kind} x {len})"), reason, Vec::new())
        })
    }
}
