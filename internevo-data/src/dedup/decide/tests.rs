//! Against all-pairs comparison, and with hardly any memory.

use std::collections::{BTreeMap, HashSet};

use internevo_core::{config::DedupConfig, rng::CounterRng};

use rayon::prelude::*;

use super::{
    super::{catalog::Rank, settings::Settings, tokens::TokenRule},
    *,
};
use crate::spill::Scratch;

/// Who goes, with all of the memory or with hardly any.
fn decide(config: &DedupConfig, texts: &[String], memory: usize) -> (BTreeMap<u32, Duplicate>, Outcome, u32) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
    let settings = Settings { memory, ..Settings::new(config).expect("valid settings") };
    let hasher = Hasher::new(&settings);
    let mut dedup = Deduplicator::new(&settings, &scratch);
    let view = |text| DocumentView { text, rule: TokenRule::Prose, rank: Rank::UNKNOWN, named: true };
    let hashed: Vec<Hashed> =
        texts.par_iter().map_init(HashBuffers::default, |buffers, text| hasher.hash(buffers, &view(text))).collect();
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
                expected_misses += 1.0 - crate::dedup::probability(jaccard, config.bands, config.rows);
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
        assert!((jaccard - duplicate.jaccard).abs() < 1e-12 && jaccard >= config.threshold, "{document}: {jaccard}");
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
