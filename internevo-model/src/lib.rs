#![doc = include_str!("../README.md")]

pub mod decoder;
mod engine;
mod error;
mod eval;
pub mod generate;
pub mod hf;
pub mod init;
mod spec;

pub use decoder::{Decoder, Execution};
pub use engine::{Engine, EngineError, LossSums};
pub use error::ModelError;
pub use eval::{EvalSums, Evaluation, evaluate, evaluate_on};
pub use generate::{Generator, KvCache, Sampling, generate};
pub use spec::{Init, InitSpec, ModelSpec, Parameter, param_specs, param_table, role, state_plan};
