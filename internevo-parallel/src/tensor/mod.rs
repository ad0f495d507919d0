//! Tensor parallelism: every rank of a group holds a share of each matrix.
//!
//! | mode | enters a region | leaves it | the tape keeps | residual stream |
//! |---|---|---|---|---|
//! | `mtp` | copy | all-reduce | its input | all tokens on every rank |
//! | `msp` | all-gather of tokens | reduce-scatter | the gathered input | a share of the tokens |
//! | `fsp` | all-gather of tokens | reduce-scatter | the own share, gathered again in the backward | a share of the tokens |
//!
//! The embedding is divided by vocabulary or by columns (`model.embed_split_hidden`), the head by vocabulary; its logits stay
//! divided in the loss (`model.parallel_output`) or are gathered. A vocabulary that the ranks do not divide gives them
//! different numbers of rows; there are no padding rows.

pub mod collectives;
mod megatron;
mod vocab;

use internevo_kernels::{
    CrossEntropy, KernelSet, QkvLayout, attention, attention::Runs, burn::tensor::Tensor, embedding,
    linear_cross_entropy,
};
pub use megatron::{FspPlugin, MspPlugin, MtpPlugin};

use crate::strategy::{LossOptions, Region, Role, Strategy};

/// The strategy of a rank that is alone: nothing is divided.
pub(crate) struct Alone;

impl Strategy for Alone {
    fn split(&self, _: Role) -> Option<usize> {
        None
    }

    fn residual(&self, tokens: usize) -> Runs {
        Runs::from(0..tokens)
    }

    fn region(&self, tokens: usize) -> Runs {
        Runs::from(0..tokens)
    }

    fn splits_tokens(&self) -> bool {
        false
    }

    fn splits_loss(&self) -> bool {
        false
    }

    fn heads(&self, layout: QkvLayout) -> QkvLayout {
        layout
    }

    fn embed(&self, set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        embedding(set, weight, tokens)
    }

    fn enter(&self, x: Tensor<2>) -> Region {
        Region { x, recall: None }
    }

    fn leave(&self, partial: Tensor<2>) -> Tensor<2> {
        partial
    }

    fn attend(&self, set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
        attention(set, qkv, layout, cu_seqlens)
    }

    fn loss(&self, set: KernelSet, hidden: Tensor<2>, weight: Tensor<2>, options: LossOptions<'_>) -> CrossEntropy {
        linear_cross_entropy(set, hidden, weight, options.labels, options.label_smoothing, options.scale)
    }
}
