//! Letters: what ranks tell each other before and instead of a block. Eight words and, when it is short, the block itself.

use super::transport::LETTER_BYTES;
use crate::comm::{
    ElementKind, ReduceOp,
    call::{Call, GroupId, Verb},
};

const WORDS: usize = 8;
/// Bytes of the longest block that travels inside its letter.
pub(super) const INLINE_BYTES: usize = LETTER_BYTES - WORDS * size_of::<u64>();

/// What a letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The sender has made call number `sequence` of the group.
    Call { sequence: u64, call: Call },
    /// The sender has sent a message.
    Message { tag: u32, kind: ElementKind, len: usize },
}

/// A letter from one rank to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) group: GroupId,
    pub(super) subject: Subject,
    /// Elements of the block that goes to the reader.
    pub(super) count: usize,
    /// Tag of the block, and of the next one of the same call.
    pub(super) block_tag: u32,
    /// The block, if it is inside.
    pub(super) inline: Option<Vec<u8>>,
}

impl Letter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (subject, number, verb, kind, len) = match self.subject {
            Subject::Call { sequence, call } => (0, sequence, verb_word(call.verb), call.kind, call.len),
            Subject::Message { tag, kind, len } => (1, u64::from(tag), 0, kind, len),
        };
        let flags = subject | u64::from(self.inline.is_some()) << 1 | kind_word(kind) << 8;
        let words: [u64; WORDS] =
            [flags, self.group, number, verb, len as u64, self.count as u64, u64::from(self.block_tag), 0];
        let mut bytes: Vec<u8> = bytemuck::cast_slice(&words).to_vec();
        bytes.extend_from_slice(self.inline.as_deref().unwrap_or_default());
        bytes
    }

    /// `None` for bytes that are no letter of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, block) = bytes.split_at_checked(WORDS * size_of::<u64>())?;
        let words: [u64; WORDS] = bytemuck::pod_read_unaligned(head);
        let [flags, group, number, verb, len, count, block_tag, _] = words;
        let (kind, len) = (kind_of(flags >> 8)?, usize::try_from(len).ok()?);
        let subject = match flags & 1 {
            0 => Subject::Call { sequence: number, call: Call { verb: verb_of(verb)?, kind, len } },
            _ => Subject::Message { tag: u32::try_from(number).ok()?, kind, len },
        };
        let inline = (flags & 2 != 0).then(|| block.to_vec());
        let (count, block_tag) = (usize::try_from(count).ok()?, u32::try_from(block_tag).ok()?);
        Some(Self { group, subject, count, block_tag, inline })
    }
}

const KINDS: [ElementKind; 4] = [ElementKind::F32, ElementKind::F64, ElementKind::I64, ElementKind::U8];
const OPS: [ReduceOp; 3] = [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min];

fn kind_word(kind: ElementKind) -> u64 {
    KINDS.iter().position(|k| *k == kind).expect("every kind is listed") as u64
}

fn kind_of(word: u64) -> Option<ElementKind> {
    KINDS.get(usize::try_from(word).ok()?).copied()
}

/// The verb in the low byte, its argument above.
fn verb_word(verb: Verb) -> u64 {
    let op_word = |op: ReduceOp| OPS.iter().position(|o| *o == op).expect("every operation is listed") as u64;
    match verb {
        Verb::AllReduce(op) => op_word(op) << 8,
        Verb::ReduceScatter(op) => 1 | op_word(op) << 8,
        Verb::AllGather => 2,
        Verb::AllGatherInPlace => 3,
        Verb::AllToAll => 4,
        Verb::Broadcast { root } => 5 | (root as u64) << 8,
        Verb::Barrier => 6,
        Verb::Split => 7,
    }
}

fn verb_of(word: u64) -> Option<Verb> {
    let argument = usize::try_from(word >> 8).ok()?;
    let op = || OPS.get(argument).copied();
    Some(match word & 0xff {
        0 => Verb::AllReduce(op()?),
        1 => Verb::ReduceScatter(op()?),
        2 => Verb::AllGather,
        3 => Verb::AllGatherInPlace,
        4 => Verb::AllToAll,
        5 => Verb::Broadcast { root: argument },
        6 => Verb::Barrier,
        7 => Verb::Split,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_is_read_as_it_was_written() {
        let verbs = [
            Verb::AllReduce(ReduceOp::Min),
            Verb::ReduceScatter(ReduceOp::Max),
            Verb::AllGather,
            Verb::AllGatherInPlace,
            Verb::AllToAll,
            Verb::Broadcast { root: 70_000 },
            Verb::Barrier,
            Verb::Split,
        ];
        let call = |(i, verb): (usize, Verb)| Subject::Call {
            sequence: u64::MAX - i as u64,
            call: Call { verb, kind: KINDS[i % 4], len: 1 << (8 * (i % 7)) },
        };
        let message = Subject::Message { tag: u32::MAX, kind: ElementKind::U8, len: 0 };
        for subject in verbs.into_iter().enumerate().map(call).chain([message]) {
            for inline in [None, Some(vec![]), Some(vec![1, 2, 3])] {
                let letter = Letter { group: u64::MAX, subject, count: 3, block_tag: 9, inline };
                assert_eq!(Letter::decode(&letter.encode()), Some(letter));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_letter_are_refused() {
        let letter = Letter {
            group: 1,
            subject: Subject::Message { tag: 1, kind: ElementKind::F32, len: 1 },
            count: 1,
            block_tag: 1,
            inline: None,
        };
        let bytes = letter.encode();
        assert_eq!(Letter::decode(&bytes[..bytes.len() - 1]), None);
        let mut unknown_kind = bytes;
        unknown_kind[1] = 200;
        assert_eq!(Letter::decode(&unknown_kind), None);
    }
}
