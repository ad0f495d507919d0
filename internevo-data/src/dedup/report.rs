//! What a deduplication found: the content of `duplicates.json`.

use std::{cmp::Reverse, path::Path};

use internevo_core::storage::{self, StorageError};
use serde::{Deserialize, Serialize};

use super::decide::Outcome;
use crate::{
    least::Least,
    spill::{Scratch, Sorter},
};

/// Name of the file, beside `report.json`.
pub const DUPLICATES: &str = "duplicates.json";
/// Clusters shown.
const LARGEST_CLUSTERS: usize = 20;
/// Removed documents shown per cluster.
const CLUSTER_EXAMPLES: usize = 5;

/// What was compared and found. Which counts are set depends on the method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DuplicateReport {
    /// Sets of exact copies.
    pub exact_groups: u64,
    /// Clusters of near duplicates (each set of exact copies counts as one document).
    pub near_clusters: u64,
    /// Pairs whose shingle sets were compared.
    pub candidate_pairs: u64,
    /// Pairs among them whose true Jaccard similarity reaches the threshold.
    pub verified_pairs: u64,
    /// Candidate groups too large for every pair to be considered.
    pub truncated_groups: u64,
    /// Documents of the index that were compared with.
    pub indexed: u64,
    /// Parts (lines, paragraphs, sentences, windows of tokens) that were compared.
    pub parts: u64,
    /// Parts among them that occurred before.
    pub repeated_parts: u64,
    /// Documents of which something was removed, without those that were rejected.
    pub shortened: u64,
    /// Bytes of text removed from them.
    pub bytes_removed: u64,
    /// Kept documents with the most removed copies, largest first.
    pub largest: Vec<Cluster>,
}

/// A kept document and those removed for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Id of the kept document.
    pub kept: String,
    /// Documents removed for it.
    pub removed: u64,
    /// Ids of the first of them.
    pub examples: Vec<String>,
}

/// Collects [`DuplicateReport::largest`] while removed documents pass by.
#[derive(Debug)]
pub(super) struct Clusters {
    /// Kept documents, largest cluster first.
    largest: Vec<(u32, Cluster)>,
}

impl Clusters {
    /// Finds the largest clusters of `outcome`; equally large ones in input order.
    pub fn new(outcome: &Outcome, scratch: &Scratch, memory: usize) -> Result<Self, StorageError> {
        let mut by_kept = Sorter::new(scratch, memory);
        for removed in outcome.removed()? {
            by_kept.push(u128::from(removed?.1.of))?;
        }
        let mut largest: Least<Reverse<u64>, (u32, Cluster)> = Least::default();
        let mut add = |kept: u32, removed: u64| {
            largest.add(LARGEST_CLUSTERS, Reverse(removed), || (kept, Cluster { removed, ..Cluster::default() }));
        };
        let (mut current, mut size) = (0, 0);
        for kept in by_kept.finish()?.iter()? {
            let kept = kept? as u32;
            if size > 0 && kept != current {
                add(current, size);
                size = 0;
            }
            (current, size) = (kept, size + 1);
        }
        if size > 0 {
            add(current, size);
        }
        Ok(Self { largest: largest.into_values().collect() })
    }

    /// Their kept documents.
    pub fn kept(&self) -> impl Iterator<Item = u32> {
        self.largest.iter().map(|(document, _)| *document)
    }

    /// `removed` goes for `kept`; told in input order, because the first ones are shown.
    pub fn add_example(&mut self, kept: u32, kept_id: &str, removed_id: String) {
        if let Some((_, cluster)) = self.largest.iter_mut().find(|(document, _)| *document == kept)
            && cluster.examples.len() < CLUSTER_EXAMPLES
        {
            kept_id.clone_into(&mut cluster.kept);
            cluster.examples.push(removed_id);
        }
    }

    /// All of them.
    pub fn finish(self) -> Vec<Cluster> {
        self.largest.into_iter().map(|(_, cluster)| cluster).collect()
    }
}

/// Writes `duplicates.json`.
pub(super) fn write_duplicates(output: &Path, report: &DuplicateReport) -> Result<(), StorageError> {
    let bytes = serde_json::to_vec_pretty(report).expect("numbers and strings are JSON");
    storage::write_atomic(output.join(DUPLICATES), bytes)
}
