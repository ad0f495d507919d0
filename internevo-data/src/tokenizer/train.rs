//! Training of byte-pair merges (Sennrich et al. 2016): count the words, then merge the most frequent pair again and again.
//!
//! The result is a function of the text alone. The trainer of the `tokenizers` crate breaks some ties by the order of a
//! randomly seeded hash map, so two runs may disagree; here a tie goes to the pair of smaller ids, whichever way the
//! words were counted. Not here: the file format (`assemble.rs`).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
};

use internevo_core::config::TokenizerConfig;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::{
    SPECIAL_TOKENS, Tokenizer, TokenizerError, TrainProgress, assemble,
    bytes::ByteAlphabet,
    merges::{Pair, PairMap},
    split::Splitter,
};

/// Documents are counted in batches of about this many bytes, so that a stream never sits in memory as a whole.
const BATCH_BYTES: usize = 8 << 20;
/// Merges between two progress reports.
const REPORT_EVERY: usize = 64;

/// Trains a byte-level BPE of `config.vocab_size` tokens (fewer when the text has no pair left that occurs
/// `config.min_frequency` times). Documents beyond `config.max_train_bytes` are not looked at.
///
/// The same documents in any order give the same `tokenizer.json`, byte for byte (with a byte cap: in the same order).
///
/// # Errors
/// [`TokenizerError::VocabTooSmall`] when the special tokens and the 256 bytes do not fit;
/// [`TokenizerError::NoText`] when the documents hold no text.
pub fn train(
    documents: impl Iterator<Item = String>,
    config: &TokenizerConfig,
    progress: &dyn Fn(TrainProgress),
) -> Result<Tokenizer, TokenizerError> {
    let base = SPECIAL_TOKENS.len() + 256;
    if config.vocab_size < base {
        return Err(TokenizerError::VocabTooSmall { asked: config.vocab_size, least: base });
    }
    let words = count_words(documents, config.max_train_bytes, progress);
    if words.is_empty() {
        return Err(TokenizerError::NoText);
    }
    let alphabet = ByteAlphabet::new();
    let mut trainer = Trainer::new(&alphabet, words);
    let wanted = config.vocab_size - base;
    while trainer.vocabulary.len() < config.vocab_size && trainer.merge_next(config.min_frequency.max(1)) {
        if trainer.merges.len().is_multiple_of(REPORT_EVERY) {
            progress(TrainProgress::Merging { done: trainer.vocabulary.len() - base, wanted });
        }
    }
    progress(TrainProgress::Merging { done: trainer.vocabulary.len() - base, wanted });
    assemble::tokenizer(&alphabet, &trainer.vocabulary, &trainer.merges)
}

/// How often each word occurs, sorted by word.
fn count_words(
    mut documents: impl Iterator<Item = String>,
    max_bytes: u64,
    progress: &dyn Fn(TrainProgress),
) -> Vec<(Box<str>, u64)> {
    let mut counts: WordCounts<Box<str>> = WordCounts::default();
    let mut bytes = 0u64;
    let limit = if max_bytes == 0 { u64::MAX } else { max_bytes };
    loop {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES && bytes + (batch_bytes as u64) < limit {
            let Some(document) = documents.next() else { break };
            batch_bytes += document.len();
            batch.push(document);
        }
        if batch.is_empty() {
            break;
        }
        bytes += batch_bytes as u64;
        // Sums of integers do not depend on how rayon cuts the batch.
        let parts: Vec<WordCounts<&str>> =
            batch.par_iter().fold(WordCounts::default, |counts, text| add_words(text, counts)).collect();
        for (word, count) in parts.into_iter().flatten() {
            match counts.get_mut(word) {
                Some(sum) => *sum += count,
                None => drop(counts.insert(word.into(), count)),
            }
        }
        progress(TrainProgress::Counting { bytes });
    }
    let mut words: Vec<_> = counts.into_iter().collect();
    words.par_sort_unstable();
    words
}

/// Words and how often they occur.
type WordCounts<W> = HashMap<W, u64, Xxh3DefaultBuilder>;

fn add_words<'a>(text: &'a str, mut counts: WordCounts<&'a str>) -> WordCounts<&'a str> {
    for word in Splitter::OURS.words(text) {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// A distinct word as the tokens it is made of so far.
struct Word {
    tokens: Vec<u32>,
    count: i64,
}

/// What is known about a pair.
#[derive(Default)]
struct PairState {
    /// Occurrences in the text.
    count: i64,
    /// Words that hold it, or held it: may name a word twice or one that lost the pair since.
    words: Vec<u32>,
}

struct Trainer {
    /// Bytes of each token, by id; empty for the special tokens.
    vocabulary: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    merges: Vec<Pair>,
    merged: HashSet<Pair>,
    words: Vec<Word>,
    pairs: PairMap<PairState>,
    /// Candidates by count, then by smaller pair. A count here may be outdated, but never below the true one.
    queue: BinaryHeap<(i64, Reverse<Pair>)>,
}

impl Trainer {
    fn new(alphabet: &ByteAlphabet, words: Vec<(Box<str>, u64)>) -> Self {
        let mut vocabulary = vec![Vec::new(); SPECIAL_TOKENS.len()];
        vocabulary.extend(alphabet.bytes_by_char().into_iter().map(|b| vec![b]));
        let ids: HashMap<Vec<u8>, u32> =
            (0u32..).zip(&vocabulary).filter(|(_, t)| !t.is_empty()).map(|(i, t)| (t.clone(), i)).collect();
        let id_of_byte: Vec<u32> = (0..=255u8).map(|b| ids[[b].as_slice()]).collect();
        let words: Vec<Word> = words
            .into_iter()
            .map(|(word, count)| Word {
                tokens: word.bytes().map(|b| id_of_byte[usize::from(b)]).collect(),
                count: count as i64,
            })
            .collect();
        let mut pairs: PairMap<PairState> = HashMap::default();
        for (index, word) in (0u32..).zip(&words) {
            for pair in word.tokens.windows(2) {
                let state = pairs.entry((pair[0], pair[1])).or_default();
                state.count += word.count;
                if state.words.last() != Some(&index) {
                    state.words.push(index);
                }
            }
        }
        let queue = pairs.iter().map(|(pair, state)| (state.count, Reverse(*pair))).collect();
        Self { vocabulary, ids, merges: Vec::new(), merged: HashSet::new(), words, pairs, queue }
    }

    /// Merges the most frequent pair everywhere; false when none occurs `min_frequency` times.
    fn merge_next(&mut self, min_frequency: u64) -> bool {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let actual = self.pairs[&pair].count;
            if actual < count {
                if actual > 0 {
                    self.queue.push((actual, Reverse(pair)));
                }
                continue;
            }
            if (count as u64) < min_frequency {
                return false;
            }
            self.merge(pair);
            return true;
        }
        false
    }

    fn merge(&mut self, pair: Pair) {
        let new = self.token_of(pair);
        // A pair comes back when one of its tokens is spelled a second way; its first rank is the one that encoding uses.
        if self.merged.insert(pair) {
            self.merges.push(pair);
        }
        let mut indices = std::mem::take(&mut self.pairs.get_mut(&pair).expect("a candidate is a known pair").words);
        indices.sort_unstable();
        indices.dedup();
        let mut changes: PairMap<i64> = HashMap::default();
        for index in indices {
            let word = &mut self.words[index as usize];
            let merged = replace_pair(&word.tokens, pair, new);
            if merged.len() == word.tokens.len() {
                continue;
            }
            for old in word.tokens.windows(2) {
                *changes.entry((old[0], old[1])).or_default() -= word.count;
            }
            for now in merged.windows(2) {
                *changes.entry((now[0], now[1])).or_default() += word.count;
                if now.contains(&new) {
                    self.pairs.entry((now[0], now[1])).or_default().words.push(index);
                }
            }
            word.tokens = merged;
        }
        for (pair, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
            let state = self.pairs.entry(pair).or_default();
            state.count += change;
            if change > 0 {
                self.queue.push((state.count, Reverse(pair)));
            }
        }
    }

    /// The token that `pair` becomes: a new one, unless another pair already spelled the same bytes.
    fn token_of(&mut self, (left, right): Pair) -> u32 {
        let bytes = [self.vocabulary[left as usize].as_slice(), &self.vocabulary[right as usize]].concat();
        match self.ids.entry(bytes) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let id = self.vocabulary.len() as u32;
                self.vocabulary.push(vacant.key().clone());
                *vacant.insert(id)
            }
        }
    }
}

/// `tokens` with every `pair`, from the left, replaced by `new`.
fn replace_pair(tokens: &[u32], pair: Pair, new: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        if tokens.get(i + 1) == Some(&pair.1) && tokens[i] == pair.0 {
            merged.push(new);
            i += 2;
        } else {
            merged.push(tokens[i]);
            i += 1;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::tokenizer::Trainer as _;

    use super::*;

    const TEXT: &str = "the thin thread that they threw there is thicker than the other thing; \
                        nothing but the thermal cloth then bathed them in the northern weather \
                        where another brother gathered feathers and leather rather than the broken lantern \
                        which the stranger brought along the narrow path towards the harbour in winter";

    fn config(vocab_size: usize) -> TokenizerConfig {
        TokenizerConfig { vocab_size, ..TokenizerConfig::default() }
    }

    #[test]
    fn the_merges_are_those_of_the_reference_trainer() {
        let alphabet = ByteAlphabet::new();
        let words = count_words([TEXT.to_owned()].into_iter(), 0, &|_| ());
        let mut ours = Trainer::new(&alphabet, words);
        while ours.merge_next(1) {}
        let spelled: Vec<String> = ours.vocabulary[SPECIAL_TOKENS.len()..].iter().map(|t| alphabet.spell(t)).collect();

        let mut reference = BpeTrainer::builder()
            .show_progress(false)
            .min_frequency(1)
            .initial_alphabet(tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect())
            .build();
        reference
            .feed([TEXT].into_iter(), |text| {
                Ok(Splitter::OURS.words(text).map(|w| alphabet.spell(w.as_bytes())).collect())
            })
            .unwrap();
        let mut model = BPE::default();
        reference.train(&mut model).unwrap();
        let expected: HashMap<String, u32> = model.get_vocab();
        assert!(expected.len() > 256 + 100, "too few merges to compare: {}", expected.len() - 256);
        assert_eq!((0u32..).zip(spelled).map(|(i, t)| (t, i)).collect::<HashMap<_, _>>(), expected);
    }

    #[test]
    fn the_order_of_documents_and_threads_does_not_change_a_byte() {
        let rng = internevo_core::rng::CounterRng::new(3, "documents");
        let documents: Vec<String> = (0..60)
            .map(|d| (0..80).map(|w| format!("w{:x} ", rng.below(d * 80 + w, 300))).collect::<String>())
            .collect();
        let once = train(documents.iter().cloned(), &config(420), &|_| ()).unwrap().to_json();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = pool.install(|| train(documents.into_iter().rev(), &config(420), &|_| ()).unwrap().to_json());
        assert_eq!(once, again);
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        let error = train([TEXT.to_owned()].into_iter(), &config(200), &|_| ()).unwrap_err().to_string();
        assert!(error.contains("200") && error.contains("261"), "{error}");
    }

    #[test]
    fn the_byte_cap_ends_the_text_that_is_looked_at() {
        let capped = TokenizerConfig { max_train_bytes: 10, ..config(300) };
        let documents = [TEXT.to_owned(), "zzzz zzzz zzzz zzzz zzzz".repeat(50)];
        let with_cap = train(documents.into_iter(), &capped, &|_| ()).unwrap().to_json();
        assert_eq!(with_cap, train([TEXT.to_owned()].into_iter(), &config(300), &|_| ()).unwrap().to_json());
    }
}
