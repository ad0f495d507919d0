//! The result: who goes for whom, and what it took.

use std::iter::Peekable;

use internevo_core::storage::StorageError;

use super::super::cluster::Components;
use crate::spill::Sorted;

/// Why a document goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DuplicateKind {
    /// Equal after normalisation to the kept one.
    Exact,
    /// Similar to the kept one.
    Near,
}

impl DuplicateKind {
    /// The `reason` of a rejected document.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Exact => "exact_duplicate",
            Self::Near => "near_duplicate",
        }
    }
}

/// A document that goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// Why.
    pub kind: DuplicateKind,
    /// The *kept* document that it duplicates.
    pub of: u32,
    /// True Jaccard similarity of the two; 1 for exact copies.
    pub jaccard: f64,
}

impl Duplicate {
    /// Document, kept document, and the similarity with the kind as its sign.
    pub(super) fn to_item(self, document: u32) -> u128 {
        let sign = if self.kind == DuplicateKind::Exact { 1 << 63 } else { 0 };
        u128::from(document) << 96 | u128::from(self.of) << 64 | u128::from(self.jaccard.to_bits() | sign)
    }

    pub(super) fn of_item(item: u128) -> (u32, Self) {
        let (bits, of) = (item as u64, (item >> 64) as u32);
        let kind = if bits >> 63 == 1 { DuplicateKind::Exact } else { DuplicateKind::Near };
        ((item >> 96) as u32, Self { kind, of, jaccard: f64::from_bits(bits & !(1 << 63)) })
    }
}

/// The result: who goes, and what it took.
#[derive(Debug, Default)]
pub struct Outcome {
    pub(super) removed: Sorted,
    /// Sets of exact copies.
    pub exact_groups: u64,
    /// Connected near duplicates (each set of exact copies counts as one document).
    pub near_clusters: u64,
    /// Pairs that were compared exactly.
    pub candidate_pairs: u64,
    /// Pairs among them that reached the threshold.
    pub verified_pairs: u64,
    /// Groups too large for every pair to be considered.
    pub truncated_groups: u64,
}

impl Outcome {
    /// The removed documents, ascending.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn removed(&self) -> Result<impl Iterator<Item = Result<(u32, Duplicate), StorageError>> + '_, StorageError> {
        Ok(self.removed.iter()?.map(|item| item.map(Duplicate::of_item)))
    }

    pub(super) fn count(&mut self, components: &Components) {
        self.near_clusters += components.clusters.len() as u64;
        self.candidate_pairs += components.candidate_pairs;
        self.verified_pairs += components.verified_pairs;
        self.truncated_groups += components.truncated_groups;
    }
}

/// The fate of `document` in a stream of ascending documents that was not read beyond it.
pub(in crate::dedup) fn advance_to(
    fates: &mut Peekable<impl Iterator<Item = Result<(u32, Duplicate), StorageError>>>,
    document: u32,
) -> Result<Option<Duplicate>, StorageError> {
    while let Some(next) = fates.peek() {
        match next {
            Ok((found, _)) if *found < document => drop(fates.next()),
            Ok((found, duplicate)) => return Ok((*found == document).then_some(*duplicate)),
            Err(_) => return fates.next().transpose().map(|_| None),
        }
    }
    Ok(None)
}
