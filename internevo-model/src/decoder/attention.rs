//! Grouped-query attention over one fused, interleaved `wqkv`, for packed segments and for a growing cache.
//!
//! Not here: the attention and rotary kernels themselves (internevo-kernels).

use burn::{module::Module, tensor::Tensor};
use internevo_core::batch::PackedBatch;
use internevo_kernels::{KernelSet, QkvLayout, RotaryTable, attention::Runs, attention_cached, rotary};
use internevo_parallel::strategy::Region;

use super::{
    execution::Step,
    weights::{LocalReader, Matrix},
};
use crate::{generate::LayerCache, spec::ModelSpec};

/// Where the tokens of a packed micro-batch stand.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    /// Segment boundaries of the whole micro-batch, first 0, last `T`.
    pub(super) cu_seqlens: Vec<u32>,
    /// Position inside its segment of each token that this rank's `qkv` has.
    pub(super) positions: Vec<u32>,
    /// Rotary angles of every position in use.
    pub(super) rotary: RotaryTable,
}

impl Packing {
    pub(super) fn new(batch: &PackedBatch, region: &Runs, rotary: &RotaryTable) -> Self {
        let positions = region.tokens().map(|token| batch.position_ids[token]).collect();
        Self { cu_seqlens: batch.cu_seqlens.clone(), positions, rotary: rotary.clone() }
    }
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
    pub(super) fn take(spec: &ModelSpec, source: &mut LocalReader<'_>) -> Self {
        Self {
            wqkv: Matrix::take(source),
            wo: Matrix::take(source),
            layout: QkvLayout { kv_heads: spec.kv_heads, q_per_kv: spec.q_per_kv(), head_dim: spec.head_dim },
        }
    }

    pub(super) fn refill(&mut self, source: &mut LocalReader<'_>) {
        self.wqkv.refill(source);
        self.wo.refill(source);
    }

    pub(super) fn matrices(&self) -> [&Matrix; 2] {
        [&self.wqkv, &self.wo]
    }

    /// The input of a region to what its heads attended to, `[region, H · D]`; causal inside each segment.
    pub(super) fn attend(&self, step: &Step, region: &Region, packing: &Packing) -> Tensor<2> {
        let (set, strategy) = (step.on.kernels, &step.on.strategy);
        let layout = strategy.heads(self.layout);
        let qkv = rotary(set, self.wqkv.column(step, region), layout, &packing.positions, &packing.rotary);
        strategy.attend(set, qkv, layout, &packing.cu_seqlens)
    }

    /// What the heads attended to, to this rank's part of the region's output.
    pub(super) fn project(&self, step: &Step, attended: Tensor<2>) -> Tensor<2> {
        self.wo.row(step, attended)
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
