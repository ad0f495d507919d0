//! From candidates to decisions: verify pairs, connect them, choose who stays.
//!
//! Connected components are exact and independent of the order of work: a pair is skipped only when both documents are
//! already connected. Inside a component a document is removed only if a *kept* document is at least `threshold`
//! similar to it, so a chain A~B~C with A unlike C loses B, not C.
//!
//! Not here: files (`stage.rs`).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{shingle::ShingleSet, union_find::UnionFind};

/// Within one band's group a document is compared with this many that follow it in input order. Groups this large share
/// a boilerplate passage; comparing a million such pages with each other would cost their square.
const WINDOW: usize = 256;

/// Which documents of the index are near duplicates of each other.
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

/// Connects documents whose true Jaccard similarity reaches `threshold`, among the candidates of `groups`.
///
/// `groups` holds, by band, groups of documents with a common key ([`LshIndex::groups`](super::LshIndex::groups));
/// `documents` is the number of documents of the corpus, `sets` the shingle sets of all documents named in `groups`.
///
/// # Panics
/// If a document of a group has no set.
pub fn connect(
    documents: usize,
    groups: &[Vec<Vec<u32>>],
    sets: &BTreeMap<u32, ShingleSet>,
    threshold: f64,
) -> Components {
    let mut union_find = UnionFind::new(documents);
    let mut result = Components::default();
    for band in groups {
        // Groups of one band share no document, so each can work on its own copy of the partition; bands follow one
        // another.
        let labelled: Vec<(&Vec<u32>, Vec<u32>)> =
            band.iter().map(|group| (group, group.iter().map(|d| union_find.find(*d)).collect())).collect();
        let compared: Vec<Comparison> =
            labelled.par_iter().map(|(group, labels)| compare_group(group, labels, sets, threshold)).collect();
        for comparison in compared {
            result.candidate_pairs += comparison.pairs;
            result.verified_pairs += comparison.edges.len() as u64;
            result.truncated_groups += u64::from(comparison.truncated);
            for (a, b) in comparison.edges {
                union_find.union(a, b);
            }
        }
    }
    result.clusters = union_find.clusters();
    result
}

#[derive(Default)]
struct Comparison {
    pairs: u64,
    edges: Vec<(u32, u32)>,
    truncated: bool,
}

/// Compares the members of one group, skipping pairs that are already connected. `labels` are their current sets.
fn compare_group(group: &[u32], labels: &[u32], sets: &BTreeMap<u32, ShingleSet>, threshold: f64) -> Comparison {
    let mut result = Comparison::default();
    if labels.iter().all(|label| *label == labels[0]) {
        return result;
    }
    let members: Vec<&ShingleSet> = group.iter().map(|document| &sets[document]).collect();
    let mut local = UnionFind::new(group.len());
    let mut first_of_label = BTreeMap::new();
    for (slot, label) in labels.iter().enumerate() {
        local.union(*first_of_label.entry(*label).or_insert(slot as u32), slot as u32);
    }
    result.truncated = group.len() > WINDOW + 1;
    for a in 0..group.len() {
        for b in a + 1..group.len().min(a + 1 + WINDOW) {
            if local.find(a as u32) == local.find(b as u32) {
                continue;
            }
            result.pairs += 1;
            if members[a].jaccard_from(members[b], threshold).is_some() {
                local.union(a as u32, b as u32);
                result.edges.push((group[a], group[b]));
            }
        }
    }
    result
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
/// least `threshold` similar.
///
/// # Panics
/// If a member has no set.
pub fn choose(members: &[u32], sets: &BTreeMap<u32, ShingleSet>, threshold: f64) -> Vec<Removal> {
    let mut kept: Vec<u32> = Vec::new();
    let mut removed = Vec::new();
    for &document in members {
        let set = &sets[&document];
        let mut nearest: Option<Removal> = None;
        for &duplicate_of in &kept {
            // Of equally similar ones the first stays: it is preferred.
            let least = nearest.map_or(threshold, |nearest| nearest.jaccard);
            match set.jaccard_from(&sets[&duplicate_of], least) {
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
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(ranges: &[std::ops::Range<u64>]) -> BTreeMap<u32, ShingleSet> {
        ranges.iter().enumerate().map(|(d, r)| (d as u32, ShingleSet::new(r.clone().collect()))).collect()
    }

    #[test]
    fn a_chain_loses_its_middle_and_every_removed_document_resembles_a_kept_one() {
        // Neighbours share 80 of 120 shingles (J = 2/3), the ends share 60 of 140 (J = 3/7).
        let sets = sets(&[0..100, 20..120, 40..140]);
        let groups = vec![vec![vec![0, 1, 2]]];
        let components = connect(3, &groups, &sets, 0.6);
        assert_eq!(components.clusters, vec![vec![0, 1, 2]]);
        assert_eq!(components.verified_pairs, 2);
        let removed = choose(&[2, 1, 0], &sets, 0.6);
        assert_eq!(removed, vec![Removal { document: 1, duplicate_of: 2, jaccard: 80.0 / 120.0 }]);
    }

    #[test]
    fn a_candidate_below_the_threshold_is_never_connected() {
        let sets = sets(&[0..100, 31..131]);
        let components = connect(2, &[vec![vec![0, 1]]], &sets, 0.7);
        assert_eq!((components.candidate_pairs, components.verified_pairs), (1, 0));
        assert!(components.clusters.is_empty());
    }

    #[test]
    fn a_connected_pair_is_not_compared_again_in_the_next_band() {
        let sets = sets(&[0..100, 1..101, 2..102]);
        let groups = vec![vec![vec![0, 1, 2]], vec![vec![0, 2]], vec![vec![0, 1, 2]]];
        assert_eq!(connect(3, &groups, &sets, 0.7).candidate_pairs, 2);
    }
}
