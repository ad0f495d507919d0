//! Duplicate detection over a stream of documents, in three steps that never hold the texts: [`Deduplicator::add`]
//! keeps an identity and the band keys of each document, [`Deduplicator::candidates`] says whose texts are needed once
//! more, and [`Candidates::decide`] compares their shingle sets and chooses.
//!
//! Not here: files (`stage.rs`).

use std::collections::BTreeMap;

use internevo_core::config::DedupConfig;
use rayon::prelude::*;

use super::{
    cluster::{Components, Removal, choose, connect},
    lsh::LshIndex,
    minhash::MinHasher,
    shingle::{ShingleSet, shingles},
    tokens::{TokenRule, Tokens},
};
use crate::DataError;

/// Seed of the hash functions: part of the format of band keys, so that shards hashed on different machines agree.
const HASH_SEED: u64 = 1;

/// Bands, rows and tokens per shingle beyond this are a slip of the pen.
const MAX_SIZE: usize = 4096;

/// Which copy stays. Ties are broken by input order, so the choice never depends on the order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepRule {
    /// The one with the greatest `date`, else `timestamp`, else `dump` (numbers by value, texts alphabetically: ISO
    /// dates and Common Crawl names sort in time). Documents without any count as oldest; among equals the later in
    /// input order stays.
    Newest,
    /// The one with the most bytes of text; among equals the earlier in input order.
    Longest,
    /// The earliest in input order.
    First,
}

impl KeepRule {
    /// The rule called `name` in `pipeline.dedup.keep`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "newest" => Some(Self::Newest),
            "longest" => Some(Self::Longest),
            "first" => Some(Self::First),
            _ => None,
        }
    }
}

/// When a document was made, as far as its fields say. Ordered: unknown, numbers, texts.
#[derive(Clone, Debug, Default, PartialEq, PartialOrd)]
pub enum Date {
    /// No such field.
    #[default]
    Unknown,
    /// A number: seconds, a year.
    Number(f64),
    /// A text: an ISO date, a dump's name.
    Text(Box<str>),
}

impl Date {
    /// From the value of a field.
    pub fn of(value: Option<&serde_json::Value>) -> Self {
        match value {
            Some(serde_json::Value::Number(number)) => number.as_f64().map_or(Self::Unknown, Self::Number),
            Some(serde_json::Value::String(text)) => Self::Text(text.as_str().into()),
            _ => Self::Unknown,
        }
    }
}

/// What the first pass needs of a document.
#[derive(Clone, Debug)]
pub struct DocumentView<'a> {
    /// Its text.
    pub text: &'a str,
    /// Prose or code.
    pub rule: TokenRule,
    /// For [`KeepRule::Newest`].
    pub date: Date,
}

/// First pass: identities and band keys of documents, numbered from 0 in the order of [`Self::add`].
pub struct Deduplicator {
    keep: KeepRule,
    ngram: usize,
    threshold: f64,
    hasher: MinHasher,
    index: LshIndex,
    entries: Vec<Entry>,
}

struct Entry {
    identity: u128,
    bytes: u64,
    date: Date,
}

impl Deduplicator {
    /// A deduplicator with checked settings.
    ///
    /// # Errors
    /// [`DataError::Setting`] names the key and what is wrong with its value.
    pub fn new(config: &DedupConfig) -> Result<Self, DataError> {
        let wrong = |key: &str, reason: String| DataError::Setting { key: format!("pipeline.dedup.{key}"), reason };
        let keep = KeepRule::parse(&config.keep)
            .ok_or_else(|| wrong("keep", format!("`{}` is not `newest`, `longest` or `first`", config.keep)))?;
        for (key, value) in [("bands", config.bands), ("rows", config.rows), ("ngram", config.ngram)] {
            if !(1..=MAX_SIZE).contains(&value) {
                return Err(wrong(key, format!("{value} is not between 1 and {MAX_SIZE}")));
            }
        }
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            return Err(wrong("threshold", format!("{} is not in (0, 1]", config.threshold)));
        }
        Ok(Self {
            keep,
            ngram: config.ngram,
            threshold: config.threshold,
            hasher: MinHasher::new(config.bands * config.rows, HASH_SEED),
            index: LshIndex::new(config.bands, config.rows),
            entries: Vec::new(),
        })
    }

    /// Documents so far.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the next documents, on all threads; the result does not depend on how they are cut into batches.
    pub fn add(&mut self, documents: &[DocumentView<'_>]) {
        let hashed: Vec<(Entry, Vec<u64>)> =
            documents.par_iter().map_init(Scratch::default, |scratch, document| self.hash(scratch, document)).collect();
        for (entry, keys) in hashed {
            if !keys.is_empty() {
                self.index.insert(self.entries.len() as u32, &keys);
            }
            self.entries.push(entry);
        }
    }

    /// Bytes of a document's text.
    pub fn text_bytes(&self, document: u32) -> u64 {
        self.entries[document as usize].bytes
    }

    /// The shingle set of a document; the second pass makes it for every document of [`Candidates::needed`].
    pub fn shingle_set(&self, text: &str, rule: TokenRule) -> ShingleSet {
        let mut scratch = Scratch::default();
        scratch.tokens.read(text, rule);
        shingles(scratch.tokens.hashes(), self.ngram, &mut scratch.shingles);
        ShingleSet::new(scratch.shingles)
    }

    /// Ends the first pass.
    pub fn candidates(&self) -> Candidates {
        let exact = self.exact_groups();
        let mut copy_of_other = vec![false; self.entries.len()];
        exact.iter().flat_map(|group| &group[1..]).for_each(|document| copy_of_other[*document as usize] = true);
        let distinct = |mut group: Vec<u32>| {
            group.retain(|document| !copy_of_other[*document as usize]);
            (group.len() > 1).then_some(group)
        };
        let groups: Vec<Vec<Vec<u32>>> = (0..self.index.bands())
            .map(|band| self.index.groups(band).into_iter().filter_map(distinct).collect())
            .collect();
        let mut needed: Vec<u32> = groups.iter().flatten().flatten().copied().collect();
        needed.sort_unstable();
        needed.dedup();
        Candidates { exact, groups, needed }
    }

    /// Documents of equal identity, the preferred one first; groups in input order of their preferred member.
    fn exact_groups(&self) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        order.par_sort_unstable_by_key(|document| (self.entries[*document as usize].identity, *document));
        let mut groups: Vec<Vec<u32>> = order
            .chunk_by(|a, b| self.entries[*a as usize].identity == self.entries[*b as usize].identity)
            .filter(|group| group.len() > 1)
            .map(|group| self.by_preference(group.to_vec()))
            .collect();
        groups.sort_unstable_by_key(|group| group[0]);
        groups
    }

    fn by_preference(&self, mut documents: Vec<u32>) -> Vec<u32> {
        let entry = |document: u32| &self.entries[document as usize];
        documents.sort_by(|a, b| match self.keep {
            KeepRule::First => a.cmp(b),
            KeepRule::Longest => entry(*b).bytes.cmp(&entry(*a).bytes).then(a.cmp(b)),
            KeepRule::Newest => {
                // A JSON number is finite, so dates are always comparable.
                let newer = entry(*b).date.partial_cmp(&entry(*a).date).unwrap_or(std::cmp::Ordering::Equal);
                newer.then(b.cmp(a))
            }
        });
        documents
    }

    fn hash(&self, scratch: &mut Scratch, document: &DocumentView<'_>) -> (Entry, Vec<u64>) {
        scratch.tokens.read(document.text, document.rule);
        shingles(scratch.tokens.hashes(), self.ngram, &mut scratch.shingles);
        let mut keys = Vec::new();
        if !scratch.shingles.is_empty() {
            self.hasher.signature(&scratch.shingles, &mut scratch.signature);
            keys.reserve_exact(self.index.bands());
            self.index.band_keys(&scratch.signature, &mut keys);
        }
        let identity = scratch.tokens.identity(document.text, document.rule);
        (Entry { identity, bytes: document.text.len() as u64, date: document.date.clone() }, keys)
    }
}

#[derive(Default)]
struct Scratch {
    tokens: Tokens,
    shingles: Vec<u64>,
    signature: Vec<u32>,
}

/// Documents that may be duplicates, after the first pass.
#[derive(Clone, Debug)]
pub struct Candidates {
    exact: Vec<Vec<u32>>,
    groups: Vec<Vec<Vec<u32>>>,
    needed: Vec<u32>,
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

/// The result: who goes, and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Removed documents, by number.
    pub removed: BTreeMap<u32, Duplicate>,
    /// Connected near duplicates (one representative per set of exact copies).
    pub components: Components,
    /// Sets of exact copies.
    pub exact_groups: u64,
}

impl Candidates {
    /// The documents whose shingle sets [`Self::decide`] needs, ascending.
    pub fn needed(&self) -> &[u32] {
        &self.needed
    }

    /// The preferred document of each set of exact copies.
    pub fn exact_leaders(&self) -> impl Iterator<Item = u32> + '_ {
        self.exact.iter().map(|group| group[0])
    }

    /// Compares and chooses. `sets` holds the shingle sets of [`Self::needed`].
    ///
    /// # Panics
    /// If a set is missing.
    pub fn decide(&self, deduplicator: &Deduplicator, sets: &BTreeMap<u32, ShingleSet>) -> Outcome {
        let threshold = deduplicator.threshold;
        let components = connect(deduplicator.len(), &self.groups, sets, threshold);
        let removals: Vec<Removal> = components
            .clusters
            .par_iter()
            .map(|cluster| choose(&deduplicator.by_preference(cluster.clone()), sets, threshold))
            .collect::<Vec<_>>()
            .concat();
        let mut removed: BTreeMap<u32, Duplicate> = removals
            .into_iter()
            .map(|r| (r.document, Duplicate { kind: DuplicateKind::Near, of: r.duplicate_of, jaccard: r.jaccard }))
            .collect();
        for group in &self.exact {
            // Copies of a near duplicate are near duplicates of the same kept document.
            let fate = removed.get(&group[0]).copied();
            let duplicate = fate.unwrap_or(Duplicate { kind: DuplicateKind::Exact, of: group[0], jaccard: 1.0 });
            removed.extend(group[1..].iter().map(|copy| (*copy, duplicate)));
        }
        Outcome { removed, components, exact_groups: self.exact.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use internevo_core::rng::CounterRng;

    use super::*;

    fn decide(config: &DedupConfig, texts: &[String], batch: usize) -> Outcome {
        let mut dedup = Deduplicator::new(config).expect("valid settings");
        let views: Vec<DocumentView<'_>> =
            texts.iter().map(|text| DocumentView { text, rule: TokenRule::Prose, date: Date::Unknown }).collect();
        views.chunks(batch).for_each(|chunk| dedup.add(chunk));
        let candidates = dedup.candidates();
        let set = |d: &u32| (*d, dedup.shingle_set(&texts[*d as usize], TokenRule::Prose));
        candidates.decide(&dedup, &candidates.needed().iter().map(set).collect())
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
        let outcome = decide(&config, &texts, 7);
        let sets: Vec<HashSet<String>> = texts.iter().map(|text| grams(text, config.ngram)).collect();
        let (mut pairs, mut resolved, mut expected_misses) = (0u32, 0u32, 0.0);
        for a in 0..texts.len() {
            for b in a + 1..texts.len() {
                let jaccard = jaccard(&sets[a], &sets[b]);
                if jaccard >= config.threshold {
                    pairs += 1;
                    resolved += u32::from([a, b].iter().any(|d| outcome.removed.contains_key(&(*d as u32))));
                    expected_misses += 1.0 - super::super::probability(jaccard, config.bands, config.rows);
                }
            }
        }
        assert!(pairs > 100, "the test needs pairs: {pairs}");
        // Each pair is missed with probability 1 - P(s) at most; allow four standard deviations of a Poisson count.
        let allowed = expected_misses + 4.0 * f64::sqrt(expected_misses) + 1.0;
        assert!(f64::from(pairs - resolved) <= allowed, "{resolved} of {pairs}, allowed misses {allowed}");
        for (document, duplicate) in &outcome.removed {
            assert!(!outcome.removed.contains_key(&duplicate.of), "the duplicate of {document} must stay");
            let jaccard = jaccard(&sets[*document as usize], &sets[duplicate.of as usize]);
            assert!(
                (jaccard - duplicate.jaccard).abs() < 1e-12 && jaccard >= config.threshold,
                "{document}: {jaccard}"
            );
        }
    }

    #[test]
    fn the_outcome_depends_neither_on_batches_nor_on_threads() {
        let texts = planted(12, 120);
        let config = DedupConfig::default();
        let outcome = decide(&config, &texts, 1000);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            assert_eq!(pool.install(|| decide(&config, &texts, 5)), outcome);
        }
    }

    #[test]
    fn each_keep_rule_keeps_what_it_says() {
        let text = planted(1, 200).swap_remove(0);
        let longer = format!("{text} and more");
        let texts = [(&text, "2021-05-01"), (&longer, "2020-01-01"), (&text, "2019-01-01")];
        let kept = |keep: &str, dated: bool| {
            let config = DedupConfig { keep: keep.into(), ..DedupConfig::default() };
            let mut dedup = Deduplicator::new(&config).expect("valid settings");
            for (text, date) in texts {
                let date = if dated { Date::Text(date.into()) } else { Date::Unknown };
                dedup.add(&[DocumentView { text, rule: TokenRule::Prose, date }]);
            }
            let candidates = dedup.candidates();
            let set = |d: &u32| (*d, dedup.shingle_set(texts[*d as usize].0, TokenRule::Prose));
            let removed = candidates.decide(&dedup, &candidates.needed().iter().map(set).collect()).removed;
            (0..3u32).filter(|d| !removed.contains_key(d)).collect::<Vec<_>>()
        };
        assert_eq!(kept("first", true), [0]);
        assert_eq!(kept("longest", true), [1]);
        assert_eq!(kept("newest", true), [0]);
        assert_eq!(kept("newest", false), [2]);
    }

    #[test]
    fn texts_without_words_are_compared_by_their_bytes() {
        let texts = ["---", "***", "---", ""].map(str::to_owned);
        let outcome = decide(&DedupConfig { keep: "first".into(), ..DedupConfig::default() }, &texts, 4);
        assert_eq!(outcome.removed.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (config, key) in [
            (DedupConfig { keep: "best".into(), ..DedupConfig::default() }, "dedup.keep"),
            (DedupConfig { rows: 0, ..DedupConfig::default() }, "dedup.rows"),
            (DedupConfig { threshold: 1.5, ..DedupConfig::default() }, "dedup.threshold"),
        ] {
            let message = Deduplicator::new(&config).err().expect("refused").to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
