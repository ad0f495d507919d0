//! Embedding and head under tensor parallelism: divided by vocabulary, the embedding also by columns.

use std::{ops::Range, sync::Arc};

use internevo_kernels::{
    CrossEntropy, KernelSet, VocabShard,
    burn::tensor::Tensor,
    cross_entropy, embedding, embedding_shard, linear,
    linear_cross_entropy::{
        cpu::{Reduction, chunk_rows},
        linear_cross_entropy_shard,
    },
};

use super::collectives::{columns_to_rows, gather_columns};
use crate::{
    comm::{Buffer, CommError, Communicator, ReduceOp},
    state::share_of,
    strategy::{LossOptions, failed},
};

/// The vocabulary on one rank.
pub(super) struct Vocab {
    /// Words over all ranks.
    pub(super) rows: usize,
    /// Width of the residual stream.
    pub(super) hidden: usize,
    /// The embedding is divided by columns.
    pub(super) by_columns: bool,
    /// The loss works on divided logits.
    pub(super) keeps_logits_divided: bool,
    pub(super) group: Arc<dyn Communicator>,
}

impl Vocab {
    fn words_of(&self, rank: usize) -> Range<usize> {
        share_of(self.rows, rank, self.group.size())
    }

    fn shard(&self) -> VocabShard {
        VocabShard::new(self.words_of(self.group.rank()), self.rows)
    }

    /// Parts of all ranks, one after the other.
    fn widths(&self, total: usize) -> Vec<usize> {
        (0..self.group.size()).map(|rank| share_of(total, rank, self.group.size()).len()).collect()
    }

    /// This rank's part of the sum that is the embedding `[T, hidden]`.
    pub(super) fn embed_rows(&self, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        embedding_shard(weight, &self.shard(), tokens)
    }

    /// The embedding from columns: of all tokens, or of this rank's share of them.
    pub(super) fn embed_columns(
        &self,
        set: KernelSet,
        weight: Tensor<2>,
        tokens: &[u32],
        divide_tokens: bool,
    ) -> Tensor<2> {
        let (columns, widths) = (embedding(set, weight, tokens), self.widths(self.hidden));
        if divide_tokens {
            columns_to_rows(columns, &widths, &self.group)
        } else {
            gather_columns(columns, &widths, &self.group)
        }
    }

    /// The loss of all tokens, equal on all ranks; the gradient of `hidden [T, hidden]` is this rank's part of a sum.
    pub(super) fn loss(
        &self,
        set: KernelSet,
        hidden: Tensor<2>,
        weight: Tensor<2>,
        options: LossOptions<'_>,
    ) -> CrossEntropy {
        let LossOptions { labels, label_smoothing, scale } = options;
        if !self.keeps_logits_divided {
            let logits = gather_columns(linear(set, hidden, weight), &self.widths(self.rows), &self.group);
            return cross_entropy(set, logits, labels, label_smoothing, scale);
        }
        // The last share is the longest.
        let rows = chunk_rows(self.words_of(self.group.size() - 1).len());
        let reduce = |reduction: Reduction<'_>| self.reduce(reduction);
        linear_cross_entropy_shard(hidden, weight, &self.shard(), labels, label_smoothing, scale, rows, reduce)
            .unwrap_or_else(|error| failed(error))
    }

    fn reduce(&self, reduction: Reduction<'_>) -> Result<(), CommError> {
        match reduction {
            Reduction::Max(values) => {
                let buffer = Buffer::F32(values.to_vec());
                values.copy_from_slice(&self.group.all_reduce(buffer, ReduceOp::Max)?.wait()?.into_f32());
            }
            Reduction::Sum(values) => {
                let buffer = Buffer::F64(values.to_vec());
                values.copy_from_slice(&self.group.all_reduce(buffer, ReduceOp::Sum)?.wait()?.into_f64());
            }
        }
        Ok(())
    }
}
