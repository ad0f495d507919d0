//! The linear layer `y = x · Wᵀ` without bias, weight stored `[out, in]`. No transpose is ever materialised.

pub mod cpu;
mod op;
pub mod reference;

pub use op::{Recall, Recalled, linear, linear_recalled};

#[cfg(test)]
mod tests;
