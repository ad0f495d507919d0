//! From candidates to decisions: verify pairs, connect them, choose who stays.
//!
//! Connected components are exact and independent of the order of work: a pair is skipped only when both documents are
//! already connected. Inside a component a document is removed only if a *kept* document is at least `threshold`
//! similar to it, so a chain A~B~C with A unlike C loses B, not C.
//!
//! Not here: files (`stage.rs`).

use std::{collections::BTreeMap, sync::Arc};

use internevo_core::storage::StorageError;

use crate::spill::Store;

use super::{shingle::ShingleSet, union_find::UnionFind};

/// Within one band's group a document is compared with this many that follow it in input order. Groups this large share
/// a boilerplate passage; comparing a million such pages with each other would cost their square.
const WINDOW: usize = 256;

/// Looks up shingle sets.
pub trait Sets: Sync {
    /// The set of a document.
    ///
    /// # Errors
    /// When it was on disk and cannot be read.
    fn set(&self, document: u32) -> Result<Arc<ShingleSet>, StorageError>;
}

impl Sets for Store<'_, ShingleSet> {
    fn set(&self, document: u32) -> Result<Arc<ShingleSet>, StorageError> {
        self.get(document)
    }
}

/// What comparing candidates gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// Connected documents, members ascending.
    pub clusters: Vec<Vec<u32>>,
    /// Pairs that were compared exactly.
    pub candidate_pairs: u64,
    /// Pairs among them that reached the threshold.
    pub verified_pairs: u64,
    /// Groups too large for every pair to be considered.
    pub truncated_groups: u64,
}

/// Connects documents whose true Jaccard similarity reaches `threshold`, among the pairs of documents of one of `groups`.
///
/// Equal groups count once; a pair that is already connected is not compared.
///
/// # Errors
/// When a set cannot be read.
pub fn connect(mut groups: Vec<Vec<u32>>, sets: &impl Sets, threshold: f64) -> Result<Components, StorageError> {
    groups.sort_unstable();
    groups.dedup();
    let mut members: Vec<u32> = groups.concat();
    members.sort_unstable();
    members.dedup();
    let slot = |document: u32| members.binary_search(&document).expect("members are those of the groups") as u32;
    let union_find = UnionFind::new(members.len());
    let mut result = Components::default();
    for group in &groups {
        let slots: Vec<u32> = group.iter().map(|document| slot(*document)).collect();
        result.truncated_groups += u64::from(group.len() > WINDOW + 1);
        for a in 0..group.len() {
            let mut set_a = None;
            for b in a + 1..group.len().min(a + 1 + WINDOW) {
                if union_find.find(slots[a]) == union_find.find(slots[b]) {
                    continue;
                }
                let set_a = match &set_a {
                    Some(set) => set,
                    None => set_a.insert(sets.set(group[a])?),
                };
                result.candidate_pairs += 1;
                if set_a.jaccard_from(&*sets.set(group[b])?, threshold).is_some() {
                    union_find.union(slots[a], slots[b]);
                    result.verified_pairs += 1;
                }
            }
        }
    }
    let mut clusters: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (slot, document) in members.iter().enumerate() {
        clusters.entry(union_find.find(slot as u32)).or_default().push(*document);
    }
    result.clusters = clusters.into_values().filter(|cluster| cluster.len() > 1).collect();
    Ok(result)
}

/// A document that goes, and the one that stays for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Removal {
    /// The document that goes.
    pub document: u32,
    /// The kept document most similar to it.
    pub duplicate_of: u32,
    /// Their true Jaccard similarity.
    pub jaccard: f64,
}

/// Decides about one cluster: goes through `members` in order of preference, keeps a document unless a kept one is at
/// least `threshold` similar. The first `fixed` of them stay in any case.
///
/// # Errors
/// When a set cannot be read.
pub fn choose(members: &[u32], fixed: usize, sets: &impl Sets, threshold: f64) -> Result<Vec<Removal>, StorageError> {
    let mut kept: Vec<u32> = members[..fixed].to_vec();
    let mut removed = Vec::new();
    for &document in &members[fixed..] {
        let set = sets.set(document)?;
        let mut nearest: Option<Removal> = None;
        for &duplicate_of in &kept {
            // Of equally similar ones the first stays: it is preferred.
            let least = nearest.map_or(threshold, |nearest| nearest.jaccard);
            match set.jaccard_from(&*sets.set(duplicate_of)?, least) {
                Some(jaccard) if nearest.is_none_or(|nearest| jaccard > nearest.jaccard) => {
                    nearest = Some(Removal { document, duplicate_of, jaccard });
                }
                _ => {}
            }
        }
        match nearest {
            Some(removal) => removed.push(removal),
            None => kept.push(document),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sets for Vec<Arc<ShingleSet>> {
        fn set(&self, document: u32) -> Result<Arc<ShingleSet>, StorageError> {
            Ok(Arc::clone(&self[document as usize]))
        }
    }

    fn sets(ranges: &[std::ops::Range<u64>]) -> Vec<Arc<ShingleSet>> {
        ranges.iter().map(|range| Arc::new(ShingleSet::new(range.clone().collect()))).collect()
    }

    #[test]
    fn a_chain_loses_its_middle_and_every_removed_document_resembles_a_kept_one() {
        // Neighbours share 80 of 120 shingles (J = 2/3), the ends share 60 of 140 (J = 3/7).
        let sets = sets(&[0..100, 20..120, 40..140]);
        let components = connect(vec![vec![0, 1, 2]], &sets, 0.6).expect("memory");
        assert_eq!(components.clusters, vec![vec![0, 1, 2]]);
        assert_eq!(components.verified_pairs, 2);
        let removed = choose(&[2, 1, 0], 0, &sets, 0.6).expect("memory");
        assert_eq!(removed, vec![Removal { document: 1, duplicate_of: 2, jaccard: 80.0 / 120.0 }]);
    }

    #[test]
    fn a_fixed_document_stays_though_it_resembles_a_kept_one() {
        let sets = sets(&[0..100, 1..101, 2..102]);
        let removed = choose(&[0, 1, 2], 2, &sets, 0.7).expect("memory");
        assert_eq!(
            removed.iter().map(|removal| (removal.document, removal.duplicate_of)).collect::<Vec<_>>(),
            [(2, 1)]
        );
    }

    #[test]
    fn a_candidate_below_the_threshold_is_never_connected() {
        let sets = sets(&[0..100, 31..131]);
        let components = connect(vec![vec![0, 1]], &sets, 0.7).expect("memory");
        assert_eq!((components.candidate_pairs, components.verified_pairs), (1, 0));
        assert!(components.clusters.is_empty());
    }

    #[test]
    fn a_connected_pair_is_not_compared_again_in_another_group() {
        let sets = sets(&[0..100, 1..101, 2..102]);
        let groups = vec![vec![0, 1, 2], vec![0, 2], vec![0, 1, 2]];
        assert_eq!(connect(groups, &sets, 0.7).expect("memory").candidate_pairs, 2);
    }
}
