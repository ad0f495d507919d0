//! Adding up gradients of a step's micro-batches in a fixed order. Not here: adding over ranks (`sink.rs`).

use rayon::prelude::*;

use super::ReductionOrder;

/// Elements one thread adds at a time.
const CHUNK: usize = 64 * 1024;

/// A running sum of vectors that reuses its buffers.
///
/// `Tree` works like a binary counter: two sums over equally many micro-batches are added at once, so that after a power of
/// two of them the additions form a balanced tree. That is the subtree which `k` ranks would have computed for
/// the same micro-batches, hence the same bits.
#[derive(Debug)]
pub(super) struct GradientAccumulator {
    order: ReductionOrder,
    len: usize,
    /// Partial sums with the number of micro-batches in each; earlier ones first.
    partial: Vec<(usize, Vec<f32>)>,
    spare: Vec<Vec<f32>>,
}

impl GradientAccumulator {
    pub(super) fn new(order: ReductionOrder, len: usize) -> Self {
        Self { order, len, partial: Vec::new(), spare: Vec::new() }
    }

    /// A zeroed buffer to be filled and given to [`GradientAccumulator::push`].
    pub(super) fn buffer(&mut self) -> Vec<f32> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(self.len, 0.0);
        buffer
    }

    /// Keeps a buffer of at least this length for later use.
    pub(super) fn recycle(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() >= self.len {
            self.spare.push(buffer);
        }
    }

    /// Adds the gradient of the next micro-batch.
    pub(super) fn push(&mut self, gradient: Vec<f32>) {
        self.partial.push((1, gradient));
        while let [.., (left, _), (right, _)] = self.partial.as_slice()
            && (left == right || self.order == ReductionOrder::Sequential)
        {
            self.merge();
        }
    }

    /// The sum of all micro-batches since the last call; `None` without any.
    pub(super) fn finish(&mut self) -> Option<Vec<f32>> {
        while self.partial.len() > 1 {
            self.merge();
        }
        self.partial.pop().map(|(_, sum)| sum)
    }

    /// Adds the two latest partial sums.
    fn merge(&mut self) {
        let (right_count, right) = self.partial.pop().expect("the caller saw two");
        let (left_count, left) = self.partial.last_mut().expect("the caller saw two");
        left.par_chunks_mut(CHUNK).zip(right.par_chunks(CHUNK)).for_each(|(a, b)| {
            for (a, b) in a.iter_mut().zip(b) {
                *a += b;
            }
        });
        *left_count += right_count;
        self.recycle(right);
    }
}
