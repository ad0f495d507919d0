//! Duplicate documents, in three steps that never hold the texts: [`Deduplicator::push`] keeps facts, an identity and the band keys
//! of each document, [`Deduplicator::candidates`] says whose texts are needed once more, and [`Candidates::decide`] compares their
//! shingle sets and chooses.
//!
//! Whatever grows with the corpus is in a [`Sorter`], [`Store`] or [`Table`](crate::spill::Table), which go to disk beyond their
//! share of the memory; beside them a document costs 4 bytes and two bits.
//!
//! Not here: files (`stage.rs`).

use std::iter::Peekable;

use internevo_core::storage::StorageError;
use rayon::prelude::*;

use super::{
    catalog::{BitSet, Catalog, Facts, Rank},
    cluster::{Components, Removal, choose, connect},
    minhash::MinHasher,
    settings::{Method, Settings},
    shingle::{ShingleSet, shingles},
    tokens::{TokenRule, Tokens, text_identity},
    union_find::UnionFind,
};
use crate::spill::{Scratch, Sorted, Sorter, Store};

/// Seed of the hash functions: part of the format of band keys, so that shards hashed on different machines agree.
const HASH_SEED: u64 = 1;

/// Bits of a document number at the end of an item.
const DOCUMENT_BITS: u32 = 32;

/// What the first pass needs of a document.
#[derive(Clone, Copy, Debug)]
pub struct DocumentView<'a> {
    /// Its text.
    pub text: &'a str,
    /// Prose or code.
    pub rule: TokenRule,
    /// For the keep rule ([`KeepRule::rank`](super::KeepRule::rank)).
    pub rank: Rank,
    /// Does its line name its id?
    pub named: bool,
}

/// What the first pass found out about a document.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// For the catalog.
    pub facts: Facts,
    /// Equal for exact copies.
    pub identity: u128,
    /// One per band; none for a document without tokens.
    pub keys: Vec<u64>,
}

/// Buffers that one thread reuses for all its documents.
#[derive(Debug, Default)]
pub struct HashBuffers {
    tokens: Tokens,
    shingles: Vec<u64>,
    signature: Vec<u32>,
}

/// Turns texts into hashes; shared by all threads.
#[derive(Clone, Debug)]
pub struct Hasher {
    settings: Settings,
    minhash: MinHasher,
}

impl Hasher {
    /// The hasher of these settings.
    pub fn new(settings: &Settings) -> Self {
        let functions = settings.bands.bands * settings.bands.rows;
        Self { settings: *settings, minhash: MinHasher::new(functions, HASH_SEED) }
    }

    /// Hashes a document.
    pub fn hash(&self, buffers: &mut HashBuffers, document: &DocumentView<'_>) -> Hashed {
        let facts =
            Facts { text_bytes: document.text.len() as u64, broken: false, named: document.named, rank: document.rank };
        if self.settings.method != Method::MinHash {
            return Hashed { facts, identity: text_identity(document.text), keys: Vec::new() };
        }
        self.read(buffers, document.text, document.rule);
        let mut keys = Vec::new();
        if !buffers.shingles.is_empty() {
            self.minhash.signature(&buffers.shingles, &mut buffers.signature);
            keys.reserve_exact(self.settings.bands.bands);
            self.settings.bands.keys(&buffers.signature, &mut keys);
        }
        Hashed { facts, identity: buffers.tokens.identity(document.text, document.rule), keys }
    }

    /// The shingle set of a text; the second pass makes it for every candidate.
    pub fn shingle_set(&self, buffers: &mut HashBuffers, text: &str, rule: TokenRule) -> ShingleSet {
        self.read(buffers, text, rule);
        ShingleSet::new(buffers.shingles.clone())
    }

    fn read(&self, buffers: &mut HashBuffers, text: &str, rule: TokenRule) {
        buffers.tokens.read(text, rule);
        shingles(buffers.tokens.hashes(), self.settings.ngram, &mut buffers.shingles);
    }
}

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

/// The document of an item.
fn document(item: &u128) -> u32 {
    *item as u32
}

fn same_key(a: &u128, b: &u128) -> bool {
    a >> DOCUMENT_BITS == b >> DOCUMENT_BITS
}

/// Sets of equal documents.
struct ExactCopies {
    /// All but the preferred document of each set.
    bits: BitSet,
    /// The preferred ones.
    leaders: BitSet,
    /// Leader above copy.
    copies: Sorted,
    groups: u64,
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

/// Documents that may be duplicates, after the first pass.
pub struct Candidates<'s> {
    settings: Settings,
    scratch: &'s Scratch,
    catalog: Catalog<'s>,
    exact: ExactCopies,
    components: Sorted,
    needed: BitSet,
    sets_memory: usize,
}

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
    fn to_item(self, document: u32) -> u128 {
        let sign = if self.kind == DuplicateKind::Exact { 1 << 63 } else { 0 };
        u128::from(document) << 96 | u128::from(self.of) << 64 | u128::from(self.jaccard.to_bits() | sign)
    }

    fn of_item(item: u128) -> (u32, Self) {
        let (bits, of) = (item as u64, (item >> 64) as u32);
        let kind = if bits >> 63 == 1 { DuplicateKind::Exact } else { DuplicateKind::Near };
        ((item >> 96) as u32, Self { kind, of, jaccard: f64::from_bits(bits & !(1 << 63)) })
    }
}

/// The result: who goes, and what it took.
#[derive(Debug, Default)]
pub struct Outcome {
    removed: Sorted,
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

    fn count(&mut self, components: &Components) {
        self.near_clusters += components.clusters.len() as u64;
        self.candidate_pairs += components.candidate_pairs;
        self.verified_pairs += components.verified_pairs;
        self.truncated_groups += components.truncated_groups;
    }
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

/// The fate of `document` in a stream of ascending documents that was not read beyond it.
pub(super) fn advance_to(
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use internevo_core::{config::DedupConfig, rng::CounterRng};

    use super::*;

    /// Who goes, with all of the memory or with hardly any.
    fn decide(config: &DedupConfig, texts: &[String], memory: usize) -> (BTreeMap<u32, Duplicate>, Outcome, u32) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
        let settings = Settings { memory, ..Settings::new(config).expect("valid settings") };
        let hasher = Hasher::new(&settings);
        let mut dedup = Deduplicator::new(&settings, &scratch);
        let view = |text| DocumentView { text, rule: TokenRule::Prose, rank: Rank::UNKNOWN, named: true };
        let hashed: Vec<Hashed> = texts
            .par_iter()
            .map_init(HashBuffers::default, |buffers, text| hasher.hash(buffers, &view(text)))
            .collect();
        hashed.iter().try_for_each(|hashed| dedup.push(Some(hashed))).expect("disk");
        let candidates = dedup.candidates().expect("disk");
        let mut sets = candidates.sets();
        let mut buffers = HashBuffers::default();
        for (text, item) in texts.iter().zip(0..).filter(|(_, item)| candidates.needs_set(*item)) {
            sets.insert(item, hasher.shingle_set(&mut buffers, text, TokenRule::Prose)).expect("disk");
        }
        sets.flush().expect("disk");
        let outcome = candidates.decide(&sets).expect("disk");
        let removed = outcome.removed().expect("disk").collect::<Result<_, _>>().expect("disk");
        (removed, outcome, scratch.files())
    }

    /// Random documents, each followed by copies with one word in `rate` replaced.
    fn planted(originals: u64, words: u64) -> Vec<String> {
        let mut texts = Vec::new();
        for document in 0..originals {
            let rng = CounterRng::new(document, "planted");
            let original: Vec<u64> = (0..words).map(|i| rng.below(i, 5000)).collect();
            for rate in [0, 100, 50, 33, 20] {
                let edited = original.iter().zip(0u64..).map(|(word, i)| {
                    let hit = rate > 0 && rng.below(1_000_000 * (rate + 1) + i, rate) == 0;
                    format!("w{}", spell(if hit { 9999 + i } else { *word }))
                });
                texts.push(edited.collect::<Vec<_>>().join(" "));
            }
        }
        texts
    }

    /// Digits would all be folded to zero: numbers are spelt with letters.
    fn spell(number: u64) -> String {
        number.to_string().bytes().map(|digit| char::from(b'a' + digit - b'0')).collect()
    }

    /// The word n-grams of a text, as strings.
    fn grams(text: &str, ngram: usize) -> HashSet<String> {
        text.split(' ').collect::<Vec<_>>().windows(ngram).map(|w| w.join(" ")).collect()
    }

    fn jaccard(a: &HashSet<String>, b: &HashSet<String>) -> f64 {
        let common = a.intersection(b).count();
        common as f64 / (a.len() + b.len() - common) as f64
    }

    #[test]
    fn planted_near_duplicates_are_found_as_all_pairs_comparison_finds_them_and_nothing_else_is() {
        let texts = planted(30, 300);
        let config = DedupConfig { keep: "first".into(), ..DedupConfig::default() };
        let (removed, ..) = decide(&config, &texts, 1 << 30);
        let sets: Vec<HashSet<String>> = texts.iter().map(|text| grams(text, config.ngram)).collect();
        let (mut pairs, mut resolved, mut expected_misses) = (0u32, 0u32, 0.0);
        for a in 0..texts.len() {
            for b in a + 1..texts.len() {
                let jaccard = jaccard(&sets[a], &sets[b]);
                if jaccard >= config.threshold {
                    pairs += 1;
                    resolved += u32::from([a, b].iter().any(|d| removed.contains_key(&(*d as u32))));
                    expected_misses += 1.0 - super::super::probability(jaccard, config.bands, config.rows);
                }
            }
        }
        assert!(pairs > 100, "the test needs pairs: {pairs}");
        // Each pair is missed with probability 1 - P(s) at most; allow four standard deviations of a Poisson count.
        let allowed = expected_misses + 4.0 * f64::sqrt(expected_misses) + 1.0;
        assert!(f64::from(pairs - resolved) <= allowed, "{resolved} of {pairs}, allowed misses {allowed}");
        for (document, duplicate) in &removed {
            assert!(!removed.contains_key(&duplicate.of), "the duplicate of {document} must stay");
            let jaccard = jaccard(&sets[*document as usize], &sets[duplicate.of as usize]);
            assert!(
                (jaccard - duplicate.jaccard).abs() < 1e-12 && jaccard >= config.threshold,
                "{document}: {jaccard}"
            );
        }
    }

    #[test]
    fn the_outcome_depends_neither_on_memory_nor_on_threads() {
        let texts = planted(120, 120);
        let config = DedupConfig::default();
        let (removed, outcome, files) = decide(&config, &texts, 1 << 30);
        assert!(removed.len() > 200 && files == 0, "{} removed, {files} files", removed.len());
        for (threads, memory) in [(1, 1 << 30), (3, 0), (1, 100_000), (2, 1_000_000)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            let (again, counts, files) = pool.install(|| decide(&config, &texts, memory));
            assert_eq!((&again, counts.candidate_pairs), (&removed, outcome.candidate_pairs));
            assert_eq!(counts.near_clusters, outcome.near_clusters);
            assert!(files > 4 || memory > 100_000, "{files} files with {memory} bytes");
        }
    }

    #[test]
    fn texts_without_words_are_compared_by_their_bytes() {
        let texts = ["---", "***", "---", ""].map(str::to_owned);
        let config = DedupConfig { keep: "first".into(), ..DedupConfig::default() };
        assert_eq!(decide(&config, &texts, 1 << 20).0.into_keys().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_exact_run_removes_equal_texts_alone() {
        let texts = ["a b c", "A b c", "a b c", "a b c d e f g"].map(str::to_owned);
        let config = DedupConfig { method: "exact".into(), keep: "first".into(), ..DedupConfig::default() };
        let (removed, outcome, _) = decide(&config, &texts, 1 << 20);
        assert_eq!((removed.keys().copied().collect::<Vec<_>>(), outcome.exact_groups), (vec![2], 1));
    }
}
