#![doc = include_str!("../README.md")]

pub mod decoder;
mod error;
mod eval;
pub mod generate;
pub mod hf;
pub mod init;
mod spec;

pub use decoder::{Decoder, Execution};
pub use error::ModelError;
pub use eval::{EvalSums, Evaluation, evaluate};
pub use generate::{Generator, KvCache, Sampling, generate};
pub use spec::{Init, InitSpec, ModelSpec, Parameter, param_specs, param_table, role, state_plan};
