//! The all-to-all around attention: from all heads of a rank's tokens to some heads of the group's tokens, and back.

use std::{ops::Range, sync::Arc};

use internevo_kernels::{QkvLayout, autograd::HostTensor, burn::tensor::Tensor};

use crate::{
    comm::{Buffer, Communicator, Counts},
    tensor::collectives::{differentiable, waited},
};

/// How the heads of a fused `qkv` are divided among the ranks of a head group.
#[derive(Clone)]
pub(super) struct HeadExchange {
    group: Arc<dyn Communicator>,
    layout: QkvLayout,
}

impl HeadExchange {
    pub(super) fn new(group: Arc<dyn Communicator>, layout: QkvLayout) -> Self {
        Self { group, layout }
    }

    /// The layout on one rank: whole groups of heads, or some query heads of one group with a copy of its key and value.
    pub(super) fn divided(&self) -> QkvLayout {
        let (ranks, QkvLayout { kv_heads, q_per_kv, head_dim }) = (self.group.size(), self.layout);
        if kv_heads >= ranks {
            QkvLayout { kv_heads: kv_heads / ranks, q_per_kv, head_dim }
        } else {
            QkvLayout { kv_heads: 1, q_per_kv: q_per_kv * kv_heads / ranks, head_dim }
        }
    }

    /// The columns of the whole `qkv` that make up the `qkv` of `rank`: whole groups, or queries and a copied key and value.
    fn columns(&self, rank: usize) -> [Range<usize>; 2] {
        let (ranks, QkvLayout { kv_heads, q_per_kv, head_dim: d }) = (self.group.size(), self.layout);
        let group_width = (q_per_kv + 2) * d;
        if kv_heads >= ranks {
            let width = kv_heads / ranks * group_width;
            let (start, end) = (rank * width, (rank + 1) * width);
            return [start..end, end..end];
        }
        let ranks_per_group = ranks / kv_heads;
        let start = rank / ranks_per_group * group_width;
        let queries = q_per_kv / ranks_per_group * d;
        let first = start + rank % ranks_per_group * queries;
        [first..first + queries, start + q_per_kv * d..start + group_width]
    }

    /// `qkv [t, (H + 2K) · D]` of this rank's tokens to this rank's heads of the group's tokens, rank by rank.
    pub(super) fn scatter(&self, qkv: Tensor<2>) -> Tensor<2> {
        let ([tokens, width], ranks) = (qkv.dims(), self.group.size());
        let divided = self.divided().qkv_width();
        let counts = Counts { send: vec![tokens * divided; ranks], receive: vec![tokens * divided; ranks] };
        let columns: Vec<_> = (0..ranks).map(|rank| self.columns(rank)).collect();
        let forward = |qkv: HostTensor| {
            let mut send = Vec::with_capacity(tokens * divided * ranks);
            for columns in &columns {
                for row in qkv.chunks_exact(width) {
                    columns.iter().for_each(|range| send.extend_from_slice(&row[range.clone()]));
                }
            }
            waited(self.group.all_to_all_v(Buffer::F32(send), &counts))
        };
        let (group, columns_back, counts_back) = (self.group.clone(), columns.clone(), counts.clone());
        let backward = move |d_qkv: HostTensor| {
            let received = waited(group.all_to_all_v(Buffer::F32(d_qkv.to_vec()), &counts_back));
            // A key and value that several ranks had a copy of get the sum of their gradients, in rank order.
            let mut gradient = vec![0.0; tokens * width];
            for (columns, part) in columns_back.iter().zip(received.chunks_exact((tokens * divided).max(1))) {
                for (row, source) in gradient.chunks_exact_mut(width).zip(part.chunks_exact(divided)) {
                    let mut at = 0;
                    for range in columns {
                        let values = &source[at..at + range.len()];
                        row[range.clone()].iter_mut().zip(values).for_each(|(sum, g)| *sum += g);
                        at += range.len();
                    }
                }
            }
            gradient
        };
        differentiable(qkv, [tokens * ranks, divided], forward, backward)
    }

    /// Attention's output for this rank's heads of the group's tokens to all heads of this rank's tokens.
    pub(super) fn gather(&self, output: Tensor<2>) -> Tensor<2> {
        let ([all_tokens, part], ranks) = (output.dims(), self.group.size());
        let tokens = all_tokens / ranks;
        let counts = Counts { send: vec![tokens * part; ranks], receive: vec![tokens * part; ranks] };
        let (group, counts_back) = (self.group.clone(), counts.clone());
        let forward = |output: HostTensor| {
            let received = waited(self.group.all_to_all_v(Buffer::F32(output.to_vec()), &counts));
            transpose_blocks(&received, ranks, tokens, part)
        };
        let backward = move |gradient: HostTensor| {
            let send = transpose_blocks(&gradient, tokens, ranks, part);
            waited(group.all_to_all_v(Buffer::F32(send), &counts_back))
        };
        differentiable(output, [tokens, ranks * part], forward, backward)
    }
}

/// `[outer][inner]` blocks of `len` elements to `[inner][outer]`.
fn transpose_blocks(blocks: &[f32], outer: usize, inner: usize, len: usize) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(blocks.len());
    for i in 0..inner {
        for o in 0..outer {
            transposed.extend_from_slice(&blocks[(o * inner + i) * len..][..len]);
        }
    }
    transposed
}
