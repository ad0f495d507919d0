//! The embedding table: gather rows forward, add gradients of equal tokens backward (in order of position).

pub mod cpu;
mod op;
pub mod reference;

pub use op::{embedding, embedding_shard};

#[cfg(test)]
mod tests;
