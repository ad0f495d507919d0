//! One collective on one rank: which elements go where, what is combined, and what comes out. No MPI call is made here; the
//! engine moves the blocks that this file names.
//!
//! Every collective is at most two exchanges. In the first, each rank has a block for each other; in the second, which long
//! all-reduces and broadcasts need, each rank's part of the result goes to everybody.

use std::ops::Range;

use super::{letter::INLINE_BYTES, transport::Memory};
use crate::comm::{
    Buffer, ElementKind, ReduceOp,
    buffer::on_vector,
    call::{Call, Place, Verb},
    member::Deposit,
    tree,
};

/// A collective under way.
pub(super) struct Operation {
    pub(super) place: Place,
    pub(super) sequence: u64,
    pub(super) call: Call,
    /// What each rank called, as far as it is heard.
    pub(super) heard: Vec<Option<Call>>,
    /// Tag of each rank's second block.
    pub(super) spread_tags: Vec<u32>,
    /// Requests that MPI has not finished.
    pub(super) outstanding: usize,
    pub(super) spreading: bool,
    own: Memory,
    /// Where blocks land, if not in `own`.
    landing: Option<Memory>,
    send: Vec<Range<usize>>,
    receive: Vec<Range<usize>>,
    /// The parts of the second exchange.
    parts: Option<Vec<Range<usize>>>,
}

impl Operation {
    /// `lanes` gives the memory for a reduction's blocks: that many elements of any value.
    pub(super) fn new(
        place: Place,
        sequence: u64,
        call: Call,
        deposit: Deposit,
        lanes: impl FnOnce(ElementKind, usize) -> Buffer,
    ) -> Self {
        let ranks = place.members.len();
        let Route { landing, send, receive, parts } = Route::of(&place, &call, &deposit);
        let mut heard = vec![None; ranks];
        heard[place.slot] = Some(call);
        let own = Memory::new(deposit.buffer);
        let landing = landing.map(|len| match call.verb {
            Verb::AllReduce(_) | Verb::ReduceScatter(_) => lanes(call.kind, len),
            _ => Buffer::zeros(call.kind, len),
        });
        let landing = landing.map(Memory::new);
        let spread_tags = vec![0; ranks];
        let (outstanding, spreading) = (0, false);
        let mut operation = Self {
            place,
            sequence,
            call,
            heard,
            spread_tags,
            outstanding,
            spreading,
            own,
            landing,
            send,
            receive,
            parts,
        };
        operation.deliver_to_self();
        operation
    }

    fn deliver_to_self(&mut self) {
        let slot = self.place.slot;
        if let Some(landing) = &mut self.landing {
            landing.copy_from(&self.receive[slot], &self.own, &self.send[slot]);
        }
    }

    /// The other ranks of the group: slot and world rank.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (members, slot) = (self.place.members.clone(), self.place.slot);
        (0..members.len()).filter(move |other| *other != slot).map(move |other| (other, members[other]))
    }

    /// Elements of the block for `slot`.
    pub(super) fn outgoing(&self, slot: usize) -> Range<usize> {
        self.send[slot].clone()
    }

    /// Elements of the block from `slot`, in the memory it lands in.
    pub(super) fn incoming(&self, slot: usize) -> Range<usize> {
        self.receive[slot].clone()
    }

    /// Whether a block of so many elements fits a letter.
    pub(super) fn fits_letter(&self, range: &Range<usize>) -> bool {
        range.len() * self.own.width() <= INLINE_BYTES
    }

    pub(super) fn own(&self) -> &Memory {
        &self.own
    }

    pub(super) fn landing(&mut self) -> &mut Memory {
        self.landing.as_mut().unwrap_or(&mut self.own)
    }

    /// Whether every rank's letter has come and no request of this exchange is under way.
    pub(super) fn exchange_is_over(&self) -> bool {
        self.outstanding == 0 && self.heard.iter().all(Option::is_some)
    }

    /// What the second exchange sends to and receives from `slot`; `None` when nothing is left to do.
    pub(super) fn spread(&self, slot: usize) -> Option<(Range<usize>, Range<usize>)> {
        let parts = self.parts.as_ref()?;
        let root = match self.call.verb {
            Verb::Broadcast { root } => Some(root),
            _ => None,
        };
        // The root of a broadcast has everything from the start.
        let part_for = |receiver: usize, part: usize| if root == Some(receiver) { 0..0 } else { parts[part].clone() };
        Some((part_for(slot, self.place.slot), part_for(self.place.slot, slot)))
    }

    /// Combines what came in the first exchange, into this rank's part of its own buffer, and gives back the lanes.
    pub(super) fn combine(&mut self) -> Option<Buffer> {
        let (Verb::AllReduce(op) | Verb::ReduceScatter(op)) = self.call.verb else { return None };
        let slot = self.place.slot;
        let target = match (&self.parts, self.call.verb) {
            (Some(parts), _) => parts[slot].clone(),
            // The whole buffer, or the part that is all this rank keeps.
            (None, _) => 0..self.receive[slot].len(),
        };
        let mut lanes = self.landing.take().expect("a reduction's blocks land in lanes").into_buffer();
        combine_into(self.own.buffer_mut(), target, &mut lanes, self.place.members.len(), op);
        if let Verb::ReduceScatter(_) = self.call.verb {
            let kept = self.receive[slot].len();
            on_vector!(self.own.buffer_mut(), v => v.truncate(kept));
        }
        Some(lanes)
    }

    /// The rank's result, when both exchanges are over.
    pub(super) fn into_result(self) -> Buffer {
        self.landing.unwrap_or(self.own).into_buffer()
    }
}

/// Reduces `ranks` equally long lanes, which lie one after the other, into `own[target]`.
fn combine_into(own: &mut Buffer, target: Range<usize>, lanes: &mut Buffer, ranks: usize, op: ReduceOp) {
    macro_rules! combine {
        ($own:expr, $lanes:expr) => {{
            let (own, lanes) = ($own, $lanes);
            let len = lanes.len() / ranks;
            if len > 0 {
                let mut lanes: Vec<&mut [_]> = lanes.chunks_exact_mut(len).collect();
                tree::combine(&mut lanes, Some(0), op);
                own[target].copy_from_slice(lanes[0]);
            }
        }};
    }
    match (own, lanes) {
        (Buffer::F32(own), Buffer::F32(lanes)) => combine!(own, lanes),
        (Buffer::F64(own), Buffer::F64(lanes)) => combine!(own, lanes),
        (Buffer::I64(own), Buffer::I64(lanes)) => combine!(own, lanes),
        (Buffer::U8(own), Buffer::U8(lanes)) => combine!(own, lanes),
        _ => unreachable!("lanes are made of the buffer's kind"),
    }
}

/// Where a collective's elements go.
struct Route {
    /// Elements of the memory that blocks land in, if that is not the rank's own buffer.
    landing: Option<usize>,
    send: Vec<Range<usize>>,
    receive: Vec<Range<usize>>,
    parts: Option<Vec<Range<usize>>>,
}

impl Route {
    fn of(place: &Place, call: &Call, deposit: &Deposit) -> Self {
        let (ranks, slot, len) = (place.members.len(), place.slot, call.len);
        let width = on_vector!(&deposit.buffer, v => size_of_val(v.as_slice()).checked_div(len).unwrap_or(0));
        let short = len * width <= INLINE_BYTES;
        let all = |range: Range<usize>| vec![range; ranks];
        let parts = || parts_of(len, ranks);
        match call.verb {
            Verb::Barrier => Self { landing: None, send: all(0..0), receive: all(0..0), parts: None },
            Verb::AllReduce(_) if short => {
                Self { landing: Some(ranks * len), send: all(0..len), receive: lanes(ranks, len), parts: None }
            }
            Verb::AllReduce(_) => {
                let lane = parts()[slot].len();
                let parts = parts();
                let (send, receive) = (parts.clone(), lanes(ranks, lane));
                Self { landing: Some(ranks * lane), send, receive, parts: Some(parts) }
            }
            Verb::ReduceScatter(_) => {
                Self { landing: Some(len), send: parts(), receive: lanes(ranks, len / ranks), parts: None }
            }
            Verb::AllGather | Verb::Split => {
                Self { landing: Some(ranks * len), send: all(0..len), receive: lanes(ranks, len), parts: None }
            }
            Verb::AllGatherInPlace => {
                Self { landing: None, send: all(parts()[slot].clone()), receive: parts(), parts: None }
            }
            Verb::AllToAll => {
                let (send, receive) = (consecutive(&deposit.send), consecutive(&deposit.receive));
                Self { landing: Some(deposit.receive.iter().sum()), send, receive, parts: None }
            }
            Verb::Broadcast { root } => {
                let parts = (!short).then(parts);
                let whole = || all(0..len);
                let mut send = all(0..0);
                let mut receive = all(0..0);
                if slot == root {
                    send = parts.clone().unwrap_or_else(whole);
                    send[root] = 0..0;
                } else {
                    receive[root] = parts.as_ref().map_or(0..len, |parts| parts[slot].clone());
                }
                Self { landing: None, send, receive, parts }
            }
        }
    }
}

/// `ranks` parts of `0..len` that differ by at most one element.
fn parts_of(len: usize, ranks: usize) -> Vec<Range<usize>> {
    let at = |part: usize| len / ranks * part + (len % ranks).min(part);
    (0..ranks).map(|part| at(part)..at(part + 1)).collect()
}

/// `ranks` ranges of `len` elements, one after the other.
fn lanes(ranks: usize, len: usize) -> Vec<Range<usize>> {
    (0..ranks).map(|lane| lane * len..(lane + 1) * len).collect()
}

fn consecutive(counts: &[usize]) -> Vec<Range<usize>> {
    let ranges = counts.iter().scan(0, |end, count| {
        let start = *end;
        *end += count;
        Some(start..*end)
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_cover_everything_once_and_evenly(len in 0usize..10_000, ranks in 1usize..40) {
            let parts = parts_of(len, ranks);
            prop_assert_eq!((parts[0].start, parts[ranks - 1].end), (0, len));
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let lengths = parts.iter().map(|part| part.len());
            prop_assert!(lengths.clone().max().unwrap_or(0) - lengths.min().unwrap_or(0) <= 1);
        }
    }
}
