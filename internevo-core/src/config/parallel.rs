//! The sections `parallel` and `hybrid_zero_optimizer`: sizes of the groups, what ZeRO shards, how gradients travel. What the sizes
//! mean for ranks is in `crate::layout`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sizes of the parallel groups. `world = data * pipeline * tensor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ParallelConfig {
    /// ZeRO.
    pub zero1: Zero1Config,
    /// Tensor (and sequence) parallelism.
    pub tensor: TensorParallelConfig,
    /// Pipeline parallelism.
    pub pipeline: PipelineParallelConfig,
    /// Weight parallelism of `isp`.
    pub weight: WeightParallelConfig,
    /// Head and context dimension of the sequence split of `isp`.
    #[serde(rename = "sequence_2D")]
    pub sequence_2d: Sequence2dConfig,
}

/// ZeRO: sharding of optimizer state, gradients and weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Zero1Config {
    /// `<= 0`: the whole data-parallel group; 1: no sharding; k: groups of k ranks, replicated across them.
    pub size: i64,
    /// What is sharded: 1 = the optimizer state, 2 = gradients too, 3 = weights too.
    pub stage: usize,
    /// InternEvo's switch for sharded weights; the same as `stage = 3`.
    pub fsdp: bool,
}

impl Default for Zero1Config {
    fn default() -> Self {
        Self { size: -1, stage: 1, fsdp: false }
    }
}

/// Tensor parallelism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TensorParallelConfig {
    /// Ranks of one tensor group.
    pub size: usize,
    /// `mtp`, `msp`, `fsp` or `isp`.
    pub mode: String,
}

impl Default for TensorParallelConfig {
    fn default() -> Self {
        Self { size: 1, mode: "mtp".into() }
    }
}

/// Pipeline parallelism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PipelineParallelConfig {
    /// Stages.
    pub size: usize,
}

impl Default for PipelineParallelConfig {
    fn default() -> Self {
        Self { size: 1 }
    }
}

/// Weight parallelism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WeightParallelConfig {
    /// Ranks that share one copy of the weights.
    pub size: usize,
    /// Gather the weights that are needed next while the present ones compute (ZeRO-3 too).
    pub overlap: bool,
    /// Where in a block the next block's weights are asked for with `forward_overlap_per = "layer"`: `wqkv`, `attn`, `wo` or
    /// `w1`.
    pub launch_allgather_before: String,
    /// How far ahead the forward asks: the next `module` or the next `layer`.
    pub forward_overlap_per: String,
}

impl Default for WeightParallelConfig {
    fn default() -> Self {
        Self { size: 1, overlap: true, launch_allgather_before: "wo".into(), forward_overlap_per: "layer".into() }
    }
}

/// The grid of a sequence-parallel group: `head_size · context_size = tensor.size` (mode `isp`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sequence2dConfig {
    /// Off: the whole tensor group exchanges heads (DeepSpeed-Ulysses).
    pub enable: bool,
    /// Ranks that exchange heads for tokens.
    pub head_size: usize,
    /// Ranks that pass keys and values around a ring.
    pub context_size: usize,
    /// Which ranks are neighbours.
    pub device_placement_strategy: PlacementConfig,
}

impl Default for Sequence2dConfig {
    fn default() -> Self {
        Self { enable: false, head_size: 1, context_size: 1, device_placement_strategy: PlacementConfig::default() }
    }
}

/// Placement of a two-dimensional sequence group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PlacementConfig {
    /// Ranks of a head group are neighbours; otherwise those of a context group.
    pub head_first: bool,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self { head_first: true }
    }
}

/// Gradient reduction and clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HybridZeroOptimizerConfig {
    /// Bytes per reduction bucket.
    pub reduce_bucket_size: usize,
    /// Clip the global gradient norm to this; 0 = off.
    pub clip_grad_norm: f64,
    /// Order in which gradients are added: `tree` (a fixed binary tree over the step's micro-batches: bit-identical for every
    /// power-of-two split into ranks, at the cost of log2(micro_num) more gradient buffers) or `sequential`.
    pub reduction: String,
    /// Send a bucket of gradients as soon as it is full, while the backward pass goes on.
    pub overlap_sync_grad: bool,
}

impl Default for HybridZeroOptimizerConfig {
    fn default() -> Self {
        Self {
            reduce_bucket_size: 512 * 1024 * 1024,
            clip_grad_norm: 1.0,
            reduction: "tree".into(),
            overlap_sync_grad: true,
        }
    }
}
