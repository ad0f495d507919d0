#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod comm;
mod error;
pub mod groups;
pub mod launch;
pub mod lr;
pub mod optimizer;
pub mod sequence;
pub mod state;
pub mod strategy;
pub mod tensor;
pub mod weight;
pub mod zero;

pub use error::ParallelError;
pub use groups::ProcessGroups;
pub use state::{ParamSpec, StatePlan};
pub use strategy::{Strategy, StrategyChoice};
pub use weight::WeightGatherer;
pub use zero::{GradientSink, MicroBatches, ShardedOptimizer, StepOutcome, ZeroConfig};

/// Used by the `register_*!` macros; not for direct use.
#[doc(hidden)]
pub use internevo_core as __core;
