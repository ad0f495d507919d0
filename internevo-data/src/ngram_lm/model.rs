//! A model that is asked: words, states, probabilities of texts.

use std::{fs::File, io::Read, iter, path::Path};

use internevo_core::storage::StorageError;

use super::{
    LmTokens, MAX_ORDER, Weights,
    arpa::Arpa,
    batch::{Batch, FULL},
    build,
    kenlm::{Header, Kind, word_hash},
    probing::Probing,
    trie::Trie,
};
use crate::{
    DataError,
    model_file::{Cursor, ModelBytes},
};

/// What stands before the first word of a line, and after the last.
const ENDS: [&str; 2] = ["<s>", "</s>"];

/// Buckets per entry where an ARPA file is brought into memory.
const MULTIPLIER: f32 = 1.5;

/// How a search structure answers. `bytes` are the model's.
pub(super) trait Lookup {
    /// An n-gram that was found, to be extended to the left.
    type Node: Copy;
    /// The number of the word with this hash.
    fn word(&self, bytes: &[u8], hash: u64) -> u32;
    /// The word itself.
    fn unigram(&self, bytes: &[u8], index: u32) -> (Weights, Self::Node);
    /// The n-gram of order `place + 2` that has `earlier` before `node`; moves the node there.
    fn middle(&self, bytes: &[u8], place: usize, earlier: u32, node: &mut Self::Node) -> Option<Weights>;
    /// log10 of the longest n-gram that has `earlier` before `node`.
    fn longest(&self, bytes: &[u8], earlier: u32, node: Self::Node) -> Option<f32>;
    /// [`Lookup::word`] will be asked for this hash.
    fn expect_word(&self, _bytes: &[u8], _hash: u64) {}
    /// [`Lookup::middle`], or [`Lookup::longest`] behind the last place, will be asked for this.
    fn expect_longer(&self, _bytes: &[u8], _place: usize, _earlier: u32, _node: Self::Node) {}
}

#[derive(Debug)]
enum Search {
    Probing(Probing),
    Trie(Trie),
}

/// An n-gram language model, read from an ARPA file or from a binary file of KenLM's (which is mapped where it is large).
#[derive(Debug)]
pub struct NgramModel {
    bytes: ModelBytes,
    search: Search,
    order: usize,
    fingerprint: String,
}

/// What stands before a word: the words that the model can use, the last one first, with their backoffs.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    words: [u32; MAX_ORDER],
    /// Backoff of the context of the last `i + 1` words.
    backoffs: [f32; MAX_ORDER],
    length: usize,
}

/// How probable a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// log10 of its probability.
    pub log10: f64,
    /// Tokens, the end of each line counted.
    pub tokens: u64,
}

impl Score {
    /// 10^(-log10 / tokens); `None` for a text without tokens.
    pub fn perplexity(&self) -> Option<f64> {
        (self.tokens > 0).then(|| 10f64.powf(-self.log10 / self.tokens as f64))
    }
}

impl NgramModel {
    /// Reads a model: KenLM's binary kinds by their header, all else as ARPA (plain, `.gz`, `.zst`).
    ///
    /// # Errors
    /// A file that cannot be read, is no model, or is damaged; the error names the place.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let mut head = Vec::new();
        let file = File::open(path).map_err(StorageError::at("read", path))?;
        file.take(Header::size(MAX_ORDER) as u64).read_to_end(&mut head).map_err(StorageError::at("read", path))?;
        let bytes = if Header::is_at(&head) {
            ModelBytes::read(path)?
        } else {
            ModelBytes::Owned(build::probing(Arpa::open(path)?, MULTIPLIER)?.bytes)
        };
        let mut file = Cursor::new(path, &bytes);
        let header = Header::read(&mut file, if Header::is_at(&head) { 2 } else { 1 })?;
        let search = match header.kind {
            Kind::Probing => Search::Probing(Probing::read(&mut file, &header)?),
            Kind::Trie { .. } => Search::Trie(Trie::read(&mut file, &header)?),
        };
        let fingerprint = blake3::hash(&bytes).to_hex()[..16].to_owned();
        Ok(Self { order: header.counts.len(), bytes, search, fingerprint })
    }

    /// Words of the longest n-gram.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Hash of the model.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Bytes of memory, or of the mapped file.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing before the next word, not even the beginning of a sentence.
    pub fn nothing(&self) -> State {
        State { words: [0; MAX_ORDER], backoffs: [0.0; MAX_ORDER], length: 0 }
    }

    /// Number of a word; 0 when it is unknown.
    pub fn word(&self, text: &str) -> u32 {
        let hash = word_hash(text.as_bytes());
        match &self.search {
            Search::Probing(search) => search.word(&self.bytes, hash),
            Search::Trie(search) => search.word(&self.bytes, hash),
        }
    }

    /// log10 of the probability of word number `index` after `state`, which moves behind it.
    pub fn advance(&self, state: &mut State, index: u32) -> f32 {
        match &self.search {
            Search::Probing(search) => self.advance_in(search, state, index),
            Search::Trie(search) => self.advance_in(search, state, index),
        }
    }

    /// log10 of every token of a line in turn, and of its end.
    pub fn line(&self, line: &str, tokens: &LmTokens) -> Vec<f32> {
        let mut found = Vec::new();
        self.lines(iter::once(line), tokens, |log10| found.push(log10));
        found
    }

    /// How probable the lines of `text` are, one sentence each.
    pub fn score(&self, text: &str, tokens: &LmTokens) -> Score {
        let mut score = Score::default();
        self.lines(LmTokens::lines(text), tokens, |log10| {
            score.log10 += f64::from(log10);
            score.tokens += 1;
        });
        score
    }

    fn lines<'t>(&self, lines: impl Iterator<Item = &'t str>, tokens: &LmTokens, take: impl FnMut(f32)) {
        match &self.search {
            Search::Probing(search) => self.lines_in(search, lines, tokens, take),
            Search::Trie(search) => self.lines_in(search, lines, tokens, take),
        }
    }

    fn lines_in<'t, L: Lookup>(
        &self,
        search: &L,
        lines: impl Iterator<Item = &'t str>,
        tokens: &LmTokens,
        mut take: impl FnMut(f32),
    ) {
        let [start, end] = ENDS.map(|text| word_hash(text.as_bytes()));
        let mut batch = Batch::new();
        for line in lines {
            batch.begin(start);
            tokens.for_each(line, |token| batch.push(word_hash(token.as_bytes()), search, &self.bytes));
            batch.end(end);
            if batch.len() >= FULL {
                batch.score(search, &self.bytes, self.order, &mut take);
            }
        }
        batch.score(search, &self.bytes, self.order, take);
    }

    /// Looks for the longest n-gram that ends in the word, and pays the backoffs of the longer contexts.
    fn advance_in<L: Lookup>(&self, search: &L, state: &mut State, index: u32) -> f32 {
        let (weights, mut node) = search.unigram(&self.bytes, index);
        let mut next = self.nothing();
        (next.words[0], next.backoffs[0]) = (index, weights.backoff);
        let (mut log10, mut matched) = (weights.log10, 1);
        for (place, &earlier) in state.words[..state.length].iter().enumerate() {
            if place + 2 == self.order {
                if let Some(found) = search.longest(&self.bytes, earlier, node) {
                    (log10, matched) = (found, self.order);
                }
                break;
            }
            let Some(weights) = search.middle(&self.bytes, place, earlier, &mut node) else { break };
            (log10, matched) = (weights.log10, place + 2);
            (next.words[place + 1], next.backoffs[place + 1]) = (earlier, weights.backoff);
        }
        next.length = matched.min(self.order - 1);
        log10 += state.backoffs[..state.length].iter().skip(matched - 1).sum::<f32>();
        *state = next;
        log10
    }
}
