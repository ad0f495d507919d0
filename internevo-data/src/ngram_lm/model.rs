//! A model that is asked: words, states, probabilities of texts.

use std::{fs::File, io::Read, path::Path};

use internevo_core::storage::StorageError;

use super::{
    LmTokens, MAX_ORDER, UNKNOWN, Weights,
    arpa::Arpa,
    build,
    kenlm::{Header, Kind},
    probing::Probing,
    trie::Trie,
};
use crate::{
    DataError,
    model_file::{Cursor, ModelBytes},
};

/// Buckets per entry where an ARPA file is brought into memory.
const MULTIPLIER: f32 = 1.5;

/// How a search structure answers. `bytes` are the model's.
pub(super) trait Lookup {
    /// An n-gram that was found, to be extended to the left.
    type Node: Copy;
    /// The number of a word.
    fn word(&self, bytes: &[u8], text: &[u8]) -> u32;
    /// The word itself.
    fn unigram(&self, bytes: &[u8], index: u32) -> (Weights, Self::Node);
    /// The n-gram of order `place + 2` that has `earlier` before `node`; moves the node there.
    fn middle(&self, bytes: &[u8], place: usize, earlier: u32, node: &mut Self::Node) -> Option<Weights>;
    /// log10 of the longest n-gram that has `earlier` before `node`.
    fn longest(&self, bytes: &[u8], earlier: u32, node: Self::Node) -> Option<f32>;
}

#[derive(Debug)]
enum Search {
    Probing(Probing),
    Trie(Trie),
}

/// An n-gram language model, read from an ARPA file or from a binary file of KenLM's (which is mapped, not read).
#[derive(Debug)]
pub struct NgramModel {
    bytes: ModelBytes,
    search: Search,
    order: usize,
    /// Numbers of `<s>` and `</s>`.
    ends: [u32; 2],
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
            ModelBytes::map(path)?
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
        let mut model = Self { order: header.counts.len(), bytes, search, ends: [UNKNOWN; 2], fingerprint };
        model.ends = ["<s>", "</s>"].map(|text| model.word(text));
        Ok(model)
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
        match &self.search {
            Search::Probing(search) => search.word(&self.bytes, text.as_bytes()),
            Search::Trie(search) => search.word(&self.bytes, text.as_bytes()),
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
        match &self.search {
            Search::Probing(search) => self.line_in(search, line, tokens, &mut |log10| found.push(log10)),
            Search::Trie(search) => self.line_in(search, line, tokens, &mut |log10| found.push(log10)),
        }
        found
    }

    /// How probable the lines of `text` are, one sentence each.
    pub fn score(&self, text: &str, tokens: &LmTokens) -> Score {
        let mut score = Score::default();
        for line in LmTokens::lines(text) {
            let mut add = |log10: f32| {
                score.log10 += f64::from(log10);
                score.tokens += 1;
            };
            match &self.search {
                Search::Probing(search) => self.line_in(search, line, tokens, &mut add),
                Search::Trie(search) => self.line_in(search, line, tokens, &mut add),
            }
        }
        score
    }

    fn line_in<L: Lookup>(&self, search: &L, line: &str, tokens: &LmTokens, take: &mut impl FnMut(f32)) {
        let mut state = self.nothing();
        self.advance_in(search, &mut state, self.ends[0]);
        tokens.for_each(line, |token| {
            let index = search.word(&self.bytes, token.as_bytes());
            take(self.advance_in(search, &mut state, index));
        });
        take(self.advance_in(search, &mut state, self.ends[1]));
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
