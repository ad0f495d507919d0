//! The first pass, which keeps of a document its facts, an identity and its band keys; then who must be looked at again.

use internevo_core::storage::StorageError;
use rayon::prelude::*;

use super::{
    super::{
        catalog::{BitSet, Catalog, Facts},
        settings::{Method, Settings},
        union_find::UnionFind,
    },
    Candidates, DOCUMENT_BITS, Hashed, document, same_key,
};
use crate::spill::{Scratch, Sorted, Sorter};

/// First pass: numbers items from 0 in the order of [`Self::push`].
pub struct Deduplicator<'s> {
    settings: Settings,
    scratch: &'s Scratch,
    catalog: Catalog<'s>,
    /// Identity above document.
    identities: Sorter<'s>,
    /// Band key above document.
    keys: Sorter<'s>,
}

impl<'s> Deduplicator<'s> {
    /// Nothing read yet. Most of the memory goes to band keys, the rest to identities and facts.
    pub fn new(settings: &Settings, scratch: &'s Scratch) -> Self {
        let memory = settings.memory;
        let for_keys = if settings.method == Method::MinHash { memory / 2 } else { 0 };
        Self {
            settings: *settings,
            scratch,
            catalog: Catalog::new(settings.keep, scratch, memory / 8),
            identities: Sorter::new(scratch, memory / 8),
            keys: Sorter::new(scratch, for_keys),
        }
    }

    /// Takes the next item; `None` for one that is no document.
    ///
    /// # Errors
    /// When a temporary file cannot be written.
    pub fn push(&mut self, item: Option<&Hashed>) -> Result<(), StorageError> {
        let Some(hashed) = item else {
            self.catalog.push(Facts { broken: true, ..Facts::default() })?;
            return Ok(());
        };
        let number = u128::from(self.catalog.push(hashed.facts)?);
        self.identities.push(hashed.identity >> DOCUMENT_BITS << DOCUMENT_BITS | number)?;
        hashed.keys.iter().try_for_each(|key| self.keys.push(u128::from(*key) << DOCUMENT_BITS | number))
    }

    /// Declares all items so far to be of an index: they stay.
    pub fn end_index(&mut self) {
        self.catalog.end_index();
    }

    /// Ends the first pass.
    ///
    /// # Errors
    /// When a temporary file cannot be written or read.
    pub fn candidates(self) -> Result<Candidates<'s>, StorageError> {
        let Self { settings, scratch, catalog, identities, keys } = self;
        let needed = BitSet::new(catalog.items());
        let exact = ExactCopies::find(&catalog, &identities.finish()?, scratch, settings.memory / 16)?;
        let keys = keys.finish()?;
        let components = components(&catalog, &keys, &exact.bits, &needed, scratch, settings.memory / 8)?;
        let in_memory = components.memory_bytes() + exact.copies.memory_bytes() + settings.memory / 8;
        let sets_memory = settings.memory.saturating_sub(in_memory + settings.memory / 4);
        Ok(Candidates { settings, scratch, catalog, exact, components, needed, sets_memory })
    }
}

/// Sets of equal documents.
pub(super) struct ExactCopies {
    /// All but the preferred document of each set.
    pub bits: BitSet,
    /// The preferred ones.
    pub leaders: BitSet,
    /// Leader above copy.
    pub copies: Sorted,
    pub groups: u64,
}

impl ExactCopies {
    fn find(
        catalog: &Catalog<'_>,
        identities: &Sorted,
        scratch: &Scratch,
        memory: usize,
    ) -> Result<Self, StorageError> {
        let (bits, leaders) = (BitSet::new(catalog.items()), BitSet::new(catalog.items()));
        let (mut copies, mut groups) = (Sorter::new(scratch, memory), 0);
        identities.batches(DOCUMENT_BITS, |batch| {
            for group in batch.chunk_by(same_key).filter(|group| group.len() > 1) {
                let order = catalog.by_preference(&group.iter().map(document).collect::<Vec<_>>())?;
                // A set within the index is no business of this run.
                let new = order.iter().position(|document| *document >= catalog.indexed());
                let Some(new) = new.map(|new| new.max(1)).filter(|new| *new < order.len()) else { continue };
                groups += 1;
                leaders.insert(order[0]);
                for copy in &order[new..] {
                    bits.insert(*copy);
                    copies.push(u128::from(order[0]) << DOCUMENT_BITS | u128::from(*copy))?;
                }
            }
            Ok::<(), StorageError>(())
        })?;
        Ok(Self { bits, leaders, copies: copies.finish()?, groups })
    }
}

/// The groups of `keys` with two or more documents that are no exact copies, ordered by the component of the candidate graph that
/// they belong to: component above key above document. Marks their documents in `needed`.
fn components(
    catalog: &Catalog<'_>,
    keys: &Sorted,
    copies: &BitSet,
    needed: &BitSet,
    scratch: &Scratch,
    memory: usize,
) -> Result<Sorted, StorageError> {
    let union_find = UnionFind::new(catalog.items() as usize);
    let distinct = |group: &[u128]| {
        let mut distinct: Vec<u32> = Vec::new();
        if group.len() > 1 && group.last().is_some_and(|last| document(last) >= catalog.indexed()) {
            distinct.extend(group.iter().map(document).filter(|document| !copies.contains(*document)));
            distinct.dedup();
        }
        distinct
    };
    keys.batches::<StorageError>(DOCUMENT_BITS, |batch| {
        batch.par_chunk_by(same_key).for_each(|group| {
            let group = distinct(group);
            for pair in group.windows(2) {
                union_find.union(pair[0], pair[1]);
                pair.iter().for_each(|document| needed.insert(*document));
            }
        });
        Ok(())
    })?;
    let mut sorter = Sorter::new(scratch, memory);
    keys.batches::<StorageError>(DOCUMENT_BITS, |batch| {
        for group in batch.chunk_by(same_key) {
            let members = distinct(group);
            if members.len() < 2 {
                continue;
            }
            let component = u128::from(union_find.find(members[0])) << 96;
            let key = group[0] >> DOCUMENT_BITS << DOCUMENT_BITS;
            members.iter().try_for_each(|member| sorter.push(component | key | u128::from(*member)))?;
        }
        Ok(())
    })?;
    sorter.finish()
}
