//! Reductions and gathers inside the ranks' own buffers, chunk by chunk, by whichever ranks happen to wait. No memory is
//! allocated and every element is read and written once. The order of additions is fixed by the ranks' numbers alone; who
//! executes a chunk changes nothing.
//!
//! Not here: the order itself (`../tree.rs`), collecting the buffers and waking the ranks (`hub.rs`).

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::comm::{
    Buffer, ReduceOp,
    buffer::on_vector,
    tree::{Element, combine_with, tiles},
};

/// Elements per claimed chunk: large enough that claiming costs nothing, small enough that two ranks finish together.
const CHUNK: usize = 32 * 1024;

/// What becomes of the ranks' buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Every buffer holds the combination of all.
    Reduce(ReduceOp),
    /// Rank `r` of `n` keeps the `r`-th of `n` equal parts of the combination.
    ReduceScatter(ReduceOp),
    /// Every buffer holds the `r`-th of `n` equal parts of rank `r`'s buffer.
    Gather,
}

/// Work for which all ranks' buffers have arrived.
pub(super) struct Exchange {
    lanes: Box<dyn Lanes>,
    chunks: Vec<Chunk>,
    next: AtomicUsize,
    finished: AtomicUsize,
    /// The owners of the memory behind `lanes`; each rank takes its own back when all chunks are finished.
    buffers: Mutex<Vec<Option<Buffer>>>,
    scatter: bool,
}

struct Chunk {
    range: Range<usize>,
    task: Task,
}

#[derive(Clone, Copy)]
enum Task {
    /// Combine all lanes into lane `keep`, or into all.
    Combine { keep: Option<usize> },
    /// Copy lane `from` to all others.
    Copy { from: usize },
}

impl Exchange {
    /// The work on equally long buffers of one kind; for parts, their number divides the length.
    pub(super) fn new(mut buffers: Vec<Buffer>, work: Work) -> Self {
        let (ranks, len) = (buffers.len(), buffers[0].len());
        let parts = |task: fn(usize) -> Task| {
            let part = len / ranks;
            (0..ranks).flat_map(|r| chunked(r * part..(r + 1) * part, task(r))).collect()
        };
        let chunks = match work {
            Work::Reduce(_) => chunked(0..len, Task::Combine { keep: None }).collect(),
            Work::ReduceScatter(_) => parts(|r| Task::Combine { keep: Some(r) }),
            Work::Gather => parts(|r| Task::Copy { from: r }),
        };
        let lanes = match work {
            Work::Reduce(op) | Work::ReduceScatter(op) => lanes_of(&mut buffers, op),
            // Nothing is combined: any operation will do.
            Work::Gather => lanes_of(&mut buffers, ReduceOp::Max),
        };
        let buffers = Mutex::new(buffers.into_iter().map(Some).collect());
        let scatter = matches!(work, Work::ReduceScatter(_));
        Self { lanes, chunks, next: AtomicUsize::new(0), finished: AtomicUsize::new(0), buffers, scatter }
    }

    /// Whether a chunk is left that nobody works on.
    pub(super) fn has_work(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.chunks.len()
    }

    /// Whether every chunk is done.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.chunks.len()
    }

    /// Does chunks until none is left to claim. True if this call finished the last one.
    pub(super) fn work(&self) -> bool {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = self.chunks.get(index) else { return false };
            // SAFETY: `fetch_add` hands every index to exactly one caller and the chunks' ranges are disjoint, so nobody
            // else touches these elements; `buffers` keeps the memory alive and gives nothing out before `is_finished`.
            unsafe { self.lanes.perform(&chunk.range, chunk.task) };
            // AcqRel: the rank that sees the last increment sees every chunk's elements.
            if self.finished.fetch_add(1, Ordering::AcqRel) + 1 == self.chunks.len() {
                return true;
            }
        }
    }

    /// The result of rank `slot`, in the buffer it brought. `None` when it was already taken.
    pub(super) fn take(&self, slot: usize) -> Option<Buffer> {
        assert!(self.is_finished(), "results are taken after the last chunk");
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let ranks = buffers.len();
        let mut buffer = buffers[slot].take()?;
        if self.scatter {
            on_vector!(&mut buffer, v => {
                let part = v.len() / ranks;
                v.copy_within(slot * part..(slot + 1) * part, 0);
                v.truncate(part);
            });
        }
        Some(buffer)
    }
}

fn chunked(range: Range<usize>, task: Task) -> impl Iterator<Item = Chunk> {
    let end = range.end;
    range.step_by(CHUNK).map(move |start| Chunk { range: start..(start + CHUNK).min(end), task })
}

/// The ranks' buffers as raw lanes of equal length.
trait Lanes: Send + Sync {
    /// Performs `task` on `range` of all lanes.
    ///
    /// # Safety
    /// Nobody else may touch these elements during the call, and the memory must be alive.
    unsafe fn perform(&self, range: &Range<usize>, task: Task);
}

/// Lanes of one element type with the operation as a type, so that the inner loop is vectorised.
struct Typed<T, F> {
    pointers: Vec<*mut T>,
    combine: F,
}

// SAFETY: the pointers are only followed in `perform`, whose contract makes access exclusive; `T` is a plain number.
unsafe impl<T: Send, F: Send> Send for Typed<T, F> {}
// SAFETY: as above; a shared reference gives no other access to the elements.
unsafe impl<T: Send, F: Sync> Sync for Typed<T, F> {}

impl<T: Element, F: Fn(T, T) -> T + Send + Sync> Lanes for Typed<T, F> {
    unsafe fn perform(&self, range: &Range<usize>, task: Task) {
        let slice_of = |pointer: &*mut T| {
            // SAFETY: the range lies inside every lane (lengths were compared before), and the caller promises exclusive
            // access to it; lanes are separate allocations, so the slices never overlap.
            unsafe { std::slice::from_raw_parts_mut(pointer.add(range.start), range.len()) }
        };
        let mut lanes: Vec<&mut [T]> = self.pointers.iter().map(slice_of).collect();
        match task {
            Task::Combine { keep } => combine_with(&mut lanes, keep, &self.combine),
            Task::Copy { from } => copy(&mut lanes, from),
        }
    }
}

fn copy<T: Copy>(lanes: &mut [&mut [T]], from: usize) {
    let (before, rest) = lanes.split_at_mut(from);
    let Some((source, after)) = rest.split_first_mut() else { return };
    for tile in tiles(source.len()) {
        for lane in before.iter_mut().chain(&mut *after) {
            lane[tile.clone()].copy_from_slice(&source[tile.clone()]);
        }
    }
}

macro_rules! lanes_of_kind {
    ($buffers:expr, $op:expr, $variant:ident, $element:ty) => {{
        let pointers = $buffers.iter_mut().map(|b| match b {
            Buffer::$variant(v) => v.as_mut_ptr(),
            _ => unreachable!("kinds were compared when the calls were posted"),
        });
        let pointers = pointers.collect();
        match $op {
            ReduceOp::Sum => Box::new(Typed { pointers, combine: <$element>::sum }) as Box<dyn Lanes>,
            ReduceOp::Max => Box::new(Typed { pointers, combine: <$element>::larger }),
            ReduceOp::Min => Box::new(Typed { pointers, combine: <$element>::smaller }),
        }
    }};
}

fn lanes_of(buffers: &mut [Buffer], op: ReduceOp) -> Box<dyn Lanes> {
    match &buffers[0] {
        Buffer::F32(_) => lanes_of_kind!(buffers, op, F32, f32),
        Buffer::F64(_) => lanes_of_kind!(buffers, op, F64, f64),
        Buffer::I64(_) => lanes_of_kind!(buffers, op, I64, i64),
        Buffer::U8(_) => lanes_of_kind!(buffers, op, U8, u8),
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::rng::CounterRng;

    use super::*;

    /// The documented tree, written as the recursion of its definition.
    fn tree(values: &[f32]) -> f32 {
        match values {
            [one] => *one,
            _ => {
                let half = values.len().next_power_of_two() / 2;
                tree(&values[..half]) + tree(&values[half..])
            }
        }
    }

    #[test]
    fn every_element_is_the_documented_tree_bit_for_bit() {
        for ranks in 1..=9 {
            let len = CHUNK + 77;
            let rng = CounterRng::new(3, &format!("lanes-{ranks}"));
            let lane = |r: usize| (0..len).map(|i| rng.normal((r * len + i) as u64) as f32).collect::<Vec<_>>();
            let lanes: Vec<Vec<f32>> = (0..ranks).map(lane).collect();
            let buffers = lanes.iter().cloned().map(Buffer::F32).collect();
            let exchange = Exchange::new(buffers, Work::Reduce(ReduceOp::Sum));
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| exchange.work());
                }
            });
            for slot in 0..ranks {
                let result = exchange.take(slot).expect("not taken").into_f32();
                for (i, value) in result.iter().enumerate() {
                    let column: Vec<f32> = lanes.iter().map(|l| l[i]).collect();
                    assert_eq!(value.to_bits(), tree(&column).to_bits(), "{ranks} ranks, element {i}");
                }
            }
        }
    }
}
