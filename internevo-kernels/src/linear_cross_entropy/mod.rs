//! The vocabulary head and its cross-entropy in one: logits exist for a chunk of rows at a time, and a chunk's
//! contributions to both gradients are made while it is in cache.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;

pub use op::{linear_cross_entropy, linear_cross_entropy_shard, linear_cross_entropy_with};

#[cfg(test)]
mod tests;
