//! Grouped-query attention over one fused, interleaved `wqkv`, for packed segments and for a growing cache.
//!
//! Not here: the attention and rotary kernels themselves (internevo-kernels).

use burn::{module::Module, tensor::Tensor};
use internevo_kernels::{KernelSet, QkvLayout, RotaryTable, attention, attention_cached, rotary};

use super::weights::{FlatReader, Matrix};
use crate::{generate::LayerCache, spec::ModelSpec};

/// Where each token of a packed batch stands.
pub struct Packing<'a> {
    /// Segment boundaries, first 0, last `T`.
    pub cu_seqlens: &'a [u32],
    /// Position inside the segment, `[T]`.
    pub positions: &'a [u32],
    /// Rotary angles of every position in use.
    pub rotary: &'a RotaryTable,
}

/// Rows of `wqkv`: for each key/value head its query heads, then its key, then its value (InternLM2 report, 2.2).
#[derive(Module, Debug)]
pub struct Attention {
    wqkv: Matrix,
    wo: Matrix,
    #[module(skip)]
    layout: QkvLayout,
}

impl Attention {
    pub(super) fn take(spec: &ModelSpec, source: &mut FlatReader<'_>) -> Self {
        Self {
            wqkv: Matrix::take([spec.qkv_rows(), spec.hidden], source),
            wo: Matrix::take([spec.hidden, spec.heads * spec.head_dim], source),
            layout: QkvLayout { kv_heads: spec.kv_heads, q_per_kv: spec.q_per_kv(), head_dim: spec.head_dim },
        }
    }

    pub(super) fn refill(&mut self, source: &mut FlatReader<'_>) {
        self.wqkv.refill(source);
        self.wo.refill(source);
    }

    /// `x [T, hidden]` to the same shape; causal inside each segment.
    pub fn forward(&self, set: KernelSet, x: Tensor<2>, packing: &Packing<'_>) -> Tensor<2> {
        let qkv = self.wqkv.apply(set, x);
        let qkv = rotary(set, qkv, self.layout, packing.positions, packing.rotary);
        self.wo.apply(set, attention(set, qkv, self.layout, packing.cu_seqlens))
    }

    /// `x [T, hidden]`, the tokens after those in `cache`, which then holds them too. Inference only.
    pub fn forward_cached(
        &self,
        set: KernelSet,
        x: Tensor<2>,
        positions: &[u32],
        table: &RotaryTable,
        cache: &mut LayerCache,
    ) -> Tensor<2> {
        let qkv = rotary(set, self.wqkv.apply(set, x), self.layout, positions, table);
        let (q, k, v) = self.split(qkv);
        let (keys, values) = cache.append(k, v);
        self.wo.apply(set, attention_cached(q, keys, values, self.layout))
    }

    /// `qkv [T, (H+2K)*D]` interleaved to `q [T, H*D]`, `k [T, K*D]`, `v [T, K*D]`.
    fn split(&self, qkv: Tensor<2>) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let QkvLayout { kv_heads, q_per_kv, head_dim, .. } = self.layout;
        let tokens = qkv.dims()[0];
        // [time, key/value head, head within the group, head dim]
        let qkv_tkgd = qkv.reshape([tokens, kv_heads, q_per_kv + 2, head_dim]);
        let part = |first: usize, heads: usize| {
            qkv_tkgd.clone().narrow(2, first, heads).reshape([tokens, kv_heads * heads * head_dim])
        };
        (part(0, q_per_kv), part(q_per_kv, 1), part(q_per_kv + 1, 1))
    }
}
