//! Duplicate documents, in three steps that never hold the texts: [`Deduplicator::push`] keeps facts, an identity and the band keys
//! of each document, [`Deduplicator::candidates`] says whose texts are needed once more, and [`Candidates::decide`] compares their
//! shingle sets and chooses.
//!
//! Whatever grows with the corpus is in a [`Sorter`](crate::spill::Sorter), [`Store`](crate::spill::Store) or
//! [`Table`](crate::spill::Table), which go to disk beyond their share of the memory; beside them a document costs 4 bytes and two
//! bits.
//!
//! Not here: files (`stage.rs`).

mod candidates;
mod first_pass;
mod hash;
mod outcome;
#[cfg(test)]
mod tests;

pub(super) use self::outcome::advance_to;
pub use self::{
    candidates::Candidates,
    first_pass::Deduplicator,
    hash::{DocumentView, HashBuffers, Hashed, Hasher},
    outcome::{Duplicate, DuplicateKind, Outcome},
};

/// Bits of a document number at the end of an item.
const DOCUMENT_BITS: u32 = 32;

/// The document of an item.
fn document(item: &u128) -> u32 {
    *item as u32
}

fn same_key(a: &u128, b: &u128) -> bool {
    a >> DOCUMENT_BITS == b >> DOCUMENT_BITS
}
