//! The embedding table: gather rows forward, add gradients of equal tokens backward (in order of position).

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;

pub use op::{embedding, embedding_shard};

use crate::vocab::VocabShard;

/// Panics, naming the position, if a token is not in the vocabulary.
fn check(shard: &VocabShard, tokens: &[u32]) {
    let vocab = shard.vocab();
    if let Some(position) = tokens.iter().position(|token| *token as usize >= vocab) {
        panic!("embedding: token {} at position {position} is outside 0..{vocab}", tokens[position]);
    }
}

#[cfg(test)]
mod tests;
