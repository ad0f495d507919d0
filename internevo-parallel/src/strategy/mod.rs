//! Strategies: how a decoder's layers and sequences are divided among the ranks of a tensor group. The [`Strategy`] trait is what
//! a model asks at the few places where ranks differ; `register_strategy!` offers one by the name in `parallel.tensor.mode`.
//!
//! `mtp`, `msp` and `fsp` are in `tensor/`, `isp` in `sequence/`. Not here: sharded weights (`weight/`), which any strategy can
//! be combined with, and the state's division (`state/`), which follows from [`Strategy::split`].

mod plugin;

use std::sync::Arc;

use internevo_core::config::Config;
use internevo_kernels::{CrossEntropy, KernelSet, QkvLayout, Recall, attention::Runs, burn::tensor::Tensor};
pub use plugin::{StrategyChoice, StrategyEntry, StrategyPlugin};

use crate::{ProcessGroups, comm::CommError};

/// What a parameter is to the model; decides how it is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The embedding `[vocab, hidden]`.
    Embedding,
    /// A matrix whose outputs can be divided: `wqkv`, `w1`, `w3`.
    Column,
    /// A matrix whose inputs are divided then: `wo`, `w2`.
    Row,
    /// The head `[vocab, hidden]`.
    Head,
    /// A norm's scale.
    Norm,
}

/// The input of column-divided matrices.
pub struct Region {
    /// `[tokens, hidden]`.
    pub x: Tensor<2>,
    /// How the backward pass gets the values of `x` again, where the tape shall not keep them.
    pub recall: Option<Recall>,
}

/// The loss of a micro-batch and how it is scaled.
#[derive(Clone, Copy, Debug)]
pub struct LossOptions<'a> {
    /// Labels of the whole micro-batch, `[T]`.
    pub labels: &'a [i32],
    /// Share of the target's mass that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// Factor on the loss.
    pub scale: f64,
}

/// How the ranks of a tensor group share one model and one micro-batch of `T` tokens.
///
/// The residual stream of a rank is `[r, hidden]`, where the rows are the tokens [`Strategy::residual`]. Blocks compute
/// `x + leave(row(f(column(enter(norm(x))))))`.
///
/// Collectives are made inside these calls and inside the backward pass that they record, in the same order on every rank. When
/// one fails it unwinds with the [`CommError`]; [`catching`] turns that into a value at the edge of a step.
pub trait Strategy: Send + Sync {
    /// Along which dimension a parameter is divided among the ranks, if it is.
    fn split(&self, role: Role) -> Option<usize>;

    /// Which of the micro-batch's `tokens` the rows of this rank's residual stream are.
    fn residual(&self, tokens: usize) -> Runs;

    /// Which of the micro-batch's `tokens` the rows inside a region (between [`Strategy::enter`] and [`Strategy::leave`]) are.
    fn region(&self, tokens: usize) -> Runs;

    /// Whether ranks of a group work on different tokens of the residual stream.
    fn splits_tokens(&self) -> bool;

    /// Whether each rank's loss is a part of the micro-batch's; otherwise every rank has all of it.
    fn splits_loss(&self) -> bool;

    /// The layout of the rows of this rank's `wqkv`.
    fn heads(&self, layout: QkvLayout) -> QkvLayout;

    /// The residual stream of `tokens` (all of the micro-batch's) under this rank's share of the embedding.
    fn embed(&self, set: KernelSet, weight: Tensor<2>, tokens: &[u32]) -> Tensor<2>;

    /// From the normalised residual stream to the input of column-divided matrices.
    fn enter(&self, x: Tensor<2>) -> Region;

    /// From the partial output of a row-divided matrix to the residual stream.
    fn leave(&self, partial: Tensor<2>) -> Tensor<2>;

    /// Causal attention inside the segments of the micro-batch: `qkv` is what [`Strategy::heads`] describes for the tokens of
    /// [`Strategy::region`], rotated already; the result is `[region, H · D]`.
    fn attend(&self, set: KernelSet, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2>;

    /// The loss under this rank's share of the head; `hidden` is the normalised residual stream.
    fn loss(&self, set: KernelSet, hidden: Tensor<2>, weight: Tensor<2>, options: LossOptions<'_>) -> CrossEntropy;
}

/// What a strategy is built from.
#[derive(Clone)]
pub struct StrategyContext<'a> {
    /// This rank's groups.
    pub groups: &'a ProcessGroups,
    /// The job's configuration.
    pub config: &'a Config,
    /// Rows of the embedding and of the head over all ranks.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
}

/// A strategy for a rank that is alone in its tensor group.
pub fn alone() -> Arc<dyn Strategy> {
    Arc::new(crate::tensor::Alone)
}

/// Ends a forward or backward pass because ranks could not communicate. Unwinds without printing anything.
pub(crate) fn failed(error: CommError) -> ! {
    std::panic::resume_unwind(Box::new(error))
}

/// Runs a part of a step; a failed collective inside it, in a forward or backward pass, is returned.
///
/// # Errors
/// The failure.
pub fn catching<T>(body: impl FnOnce() -> T) -> Result<T, CommError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<CommError>() {
            Ok(error) => Err(*error),
            Err(other) => std::panic::resume_unwind(other),
        },
    }
}
