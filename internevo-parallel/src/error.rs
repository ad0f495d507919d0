//! The crate's error. Communication and checkpoints have their own enums, which this one carries.

use crate::{checkpoint::CheckpointError, comm::CommError};

/// What can go wrong in the parallel engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// Ranks could not communicate.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An optimizer or schedule could not be built.
    #[error(transparent)]
    Plugin(#[from] internevo_core::plugin::PluginError),
    /// Two parameters share a name.
    #[error("two parameters are called `{name}`")]
    DuplicateParameter {
        /// The shared name.
        name: String,
    },
    /// The flat parameters do not have the declared length.
    #[error("rank {rank}: {found} parameter values for parameters of {expected} elements in total")]
    ParameterCount {
        /// The rank.
        rank: usize,
        /// Elements declared.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// Ranks started with different parameters.
    #[error(
        "ranks {ranks:?} start with other parameters than the first rank that holds the same ones: \
         initialise from the same seed or checkpoint"
    )]
    DifferentStart {
        /// Ranks of the world that differ.
        ranks: Vec<usize>,
    },
    /// A step without any gradient.
    #[error("rank {rank}: an optimizer step was taken before any micro-batch was accumulated")]
    NoGradients {
        /// The rank.
        rank: usize,
    },
    /// The world's size is not the layout's.
    #[error("the layout is for {layout} ranks, the communicator has {world}")]
    WorldSize {
        /// Ranks of the layout.
        layout: usize,
        /// Ranks of the communicator.
        world: usize,
    },
    /// `hybrid_zero_optimizer.reduction` is neither `tree` nor `sequential`.
    #[error("hybrid_zero_optimizer.reduction: `{found}` is not a known order; expected `tree` or `sequential`")]
    UnknownReduction {
        /// What was configured.
        found: String,
    },
}
