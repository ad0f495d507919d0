//! The second pass: the shingle sets of the candidates are compared, and the choice is made.

use internevo_core::storage::StorageError;
use rayon::prelude::*;

use super::{
    super::{
        catalog::{BitSet, Catalog},
        cluster::{Components, Removal, choose, connect},
        settings::Settings,
        shingle::ShingleSet,
    },
    DOCUMENT_BITS, Duplicate, DuplicateKind, Outcome, advance_to, document,
    first_pass::ExactCopies,
    same_key,
};
use crate::spill::{Scratch, Sorted, Sorter, Store};

/// Documents that may be duplicates, after the first pass.
pub struct Candidates<'s> {
    pub(super) settings: Settings,
    pub(super) scratch: &'s Scratch,
    pub(super) catalog: Catalog<'s>,
    pub(super) exact: ExactCopies,
    pub(super) components: Sorted,
    pub(super) needed: BitSet,
    pub(super) sets_memory: usize,
}

impl<'s> Candidates<'s> {
    /// Facts about all items.
    pub fn catalog(&self) -> &Catalog<'s> {
        &self.catalog
    }

    /// Does [`Self::decide`] need the shingle set of this item?
    pub fn needs_set(&self, item: u32) -> bool {
        self.needed.contains(item)
    }

    /// May this item be named as the kept copy of another?
    pub fn may_be_kept_copy(&self, item: u32) -> bool {
        self.needed.contains(item) || self.exact.leaders.contains(item)
    }

    /// An empty store for the shingle sets, with what memory is left.
    pub fn sets(&self) -> Store<'s, ShingleSet> {
        Store::new(self.scratch, self.sets_memory)
    }

    /// Compares and chooses. `sets` holds the shingle set of every item that [`Self::needs_set`].
    ///
    /// # Errors
    /// When a temporary file cannot be written or read.
    ///
    /// # Panics
    /// If a set is missing.
    pub fn decide(&self, sets: &Store<'_, ShingleSet>) -> Result<Outcome, StorageError> {
        let mut outcome = Outcome { exact_groups: self.exact.groups, ..Outcome::default() };
        let mut near = Sorter::new(self.scratch, self.settings.memory / 16);
        self.components.batches::<StorageError>(96, |batch| {
            let resolved = batch.par_chunk_by(|a, b| a >> 96 == b >> 96).map(|component| self.resolve(component, sets));
            for resolved in resolved.collect::<Vec<_>>() {
                let (components, removals) = resolved?;
                outcome.count(&components);
                for Removal { document, duplicate_of, jaccard } in removals {
                    let duplicate = Duplicate { kind: DuplicateKind::Near, of: duplicate_of, jaccard };
                    near.push(duplicate.to_item(document))?;
                }
            }
            Ok(())
        })?;
        outcome.removed = self.with_copies(&near.finish()?)?;
        Ok(outcome)
    }

    /// Compares within one component of the candidate graph.
    fn resolve(
        &self,
        component: &[u128],
        sets: &Store<'_, ShingleSet>,
    ) -> Result<(Components, Vec<Removal>), StorageError> {
        let threshold = self.settings.threshold;
        let groups = component.chunk_by(same_key).map(|group| group.iter().map(document).collect()).collect();
        let components = connect(groups, sets, threshold)?;
        let mut removals = Vec::new();
        for cluster in &components.clusters {
            let fixed = cluster.partition_point(|document| *document < self.catalog.indexed());
            removals.extend(choose(&self.catalog.by_preference(cluster)?, fixed, sets, threshold)?);
        }
        Ok((components, removals))
    }

    /// Adds the exact copies: those of a near duplicate are near duplicates of the same kept document.
    fn with_copies(&self, near: &Sorted) -> Result<Sorted, StorageError> {
        let mut all = Sorter::new(self.scratch, self.settings.memory / 16);
        let mut fates = near.iter()?.map(|item| item.map(Duplicate::of_item)).peekable();
        for item in near.iter()? {
            all.push(item?)?;
        }
        for item in self.exact.copies.iter()? {
            let item = item?;
            let (leader, copy) = ((item >> DOCUMENT_BITS) as u32, document(&item));
            let fate = advance_to(&mut fates, leader)?;
            let exact = Duplicate { kind: DuplicateKind::Exact, of: leader, jaccard: 1.0 };
            all.push(fate.unwrap_or(exact).to_item(copy))?;
        }
        all.finish()
    }
}
