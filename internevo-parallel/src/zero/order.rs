//! Which of a step's micro-batches a rank computes, so that sums over ranks and over micro-batches make one tree.

use internevo_core::layout::{GroupKind, ParallelLayout, ZeroStage};

/// The numbering of a step's micro-batches over the ranks of a data-parallel group.
///
/// Gradients that are reduced once a step are added over a rank's micro-batches first: rank `r` takes
/// `r·m..(r+1)·m`. Where a group of `inner` ranks reduces after every micro-batch (ZeRO-2, ZeRO-3, `isp`), the addition over
/// these ranks comes first, so their micro-batches alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroBatches {
    per_rank: usize,
    ranks: usize,
    inner: usize,
}

impl MicroBatches {
    /// The numbering for `layout` with `micro_num` micro-batches per rank and step.
    pub fn new(layout: &ParallelLayout, micro_num: usize) -> Self {
        let ranks = layout.size(GroupKind::Data);
        let zero = if layout.zero_stage() == ZeroStage::Optimizer { 1 } else { layout.size(GroupKind::Zero1) };
        // A weight group's ranks share sequences with their tensor group.
        let inner = match layout.is_isp() {
            true => (layout.size(GroupKind::Weight) * zero / layout.size(GroupKind::Tensor)).max(1),
            false => zero,
        };
        Self { per_rank: micro_num, ranks, inner: if ranks.is_multiple_of(inner) { inner } else { 1 } }
    }

    /// Micro-batches of a step over all ranks.
    pub fn per_step(&self) -> usize {
        self.per_rank * self.ranks
    }

    /// Index within the step of the `local`-th micro-batch of rank `data_rank`.
    pub fn index(&self, data_rank: usize, local: usize) -> usize {
        let (outer, inner) = (data_rank / self.inner, data_rank % self.inner);
        (outer * self.per_rank + local) * self.inner + inner
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_micro_batch_of_a_step_has_one_rank(inner in 1usize..5, outer in 1usize..5, per_rank in 1usize..5) {
            let order = MicroBatches { per_rank, ranks: inner * outer, inner };
            let mut all: Vec<usize> =
                (0..inner * outer).flat_map(|r| (0..per_rank).map(move |i| order.index(r, i))).collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..order.per_step()));
        }
    }
}
