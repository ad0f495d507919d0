//! Many tokens scored at once.
//!
//! Whether an n-gram is looked up depends on the shorter n-grams that end in its last word and in the word before, on nothing else. So
//! a batch of lines is looked up order by order: look-ups of the same order are independent and their memory is asked for in
//! advance, while those of one token would wait for each other. The numbers are those of [`NgramModel::advance`], to the bit.
//!
//! [`NgramModel::advance`]: super::NgramModel::advance

use std::ops::Range;

use super::{MAX_ORDER, model::Lookup};

/// Tokens after which a batch is looked up: enough to hide the waits, few enough for the processor's first cache.
pub(super) const FULL: usize = 256;

/// Lines on their way through a model, and what is known of each of their words.
pub(super) struct Batch<N> {
    /// Hash of each word, `<s>` and `</s>` of every line included.
    hashes: Vec<u64>,
    lines: Vec<Range<usize>>,
    words: Vec<Word<N>>,
}

/// A word of a batch and the longest n-gram found so far that ends in it.
#[derive(Clone, Copy)]
struct Word<N> {
    index: u32,
    /// Words of the n-gram.
    length: usize,
    /// log10 of the word after the others.
    log10: f32,
    /// Backoff of the context of the last `i + 1` words.
    backoffs: [f32; MAX_ORDER],
    node: N,
}

impl<N: Copy> Batch<N> {
    pub fn new() -> Self {
        Self { hashes: Vec::new(), lines: Vec::new(), words: Vec::new() }
    }

    /// Words so far.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Begins a line with the hash of `<s>`.
    pub fn begin(&mut self, start: u64) {
        self.lines.push(self.hashes.len()..self.hashes.len());
        self.hashes.push(start);
    }

    /// Adds a word to the line.
    pub fn push<L: Lookup<Node = N>>(&mut self, hash: u64, search: &L, bytes: &[u8]) {
        search.expect_word(bytes, hash);
        self.hashes.push(hash);
    }

    /// Ends the line with the hash of `</s>`.
    pub fn end(&mut self, end: u64) {
        self.hashes.push(end);
        self.lines.last_mut().expect("a line was begun").end = self.hashes.len();
    }

    /// Looks everything up, hands over log10 of each word and line end in order, and empties the batch.
    pub fn score<L: Lookup<Node = N>>(&mut self, search: &L, bytes: &[u8], order: usize, mut take: impl FnMut(f32)) {
        self.words.clear();
        self.words.extend(self.hashes.iter().map(|hash| {
            let index = search.word(bytes, *hash);
            let (weights, node) = search.unigram(bytes, index);
            let mut backoffs = [0.0; MAX_ORDER];
            backoffs[0] = weights.backoff;
            Word { index, length: 1, log10: weights.log10, backoffs, node }
        }));
        // Nothing stands before the beginning of a line.
        let mut growing: Vec<usize> = self.lines.iter().flat_map(|line| line.start + 1..line.end).collect();
        for &at in &growing {
            search.expect_longer(bytes, 0, self.words[at - 1].index, self.words[at].node);
        }
        for length in 2..=order {
            growing.retain(|at| self.grow(*at, length, search, bytes, order));
        }
        for line in &self.lines {
            for pair in self.words[line.clone()].windows(2) {
                let (before, word) = (&pair[0], &pair[1]);
                let context = &before.backoffs[..before.length.min(order - 1)];
                take(word.log10 + context.iter().skip(word.length - 1).sum::<f32>());
            }
        }
        self.hashes.clear();
        self.lines.clear();
    }

    /// Looks for the n-gram of `length` words that ends at `at`, where one word less was found; is it there?
    #[inline]
    fn grow<L: Lookup<Node = N>>(&mut self, at: usize, length: usize, search: &L, bytes: &[u8], order: usize) -> bool {
        // The context is an n-gram that ends in the word before.
        if self.words[at - 1].length < length - 1 {
            return false;
        }
        let earlier = self.words[at + 1 - length].index;
        let earliest = self.words.get(at.wrapping_sub(length)).map_or(0, |word| word.index);
        let word = &mut self.words[at];
        if length == order {
            if let Some(log10) = search.longest(bytes, earlier, word.node) {
                (word.log10, word.length) = (log10, length);
            }
            return false;
        }
        let Some(weights) = search.middle(bytes, length - 2, earlier, &mut word.node) else { return false };
        (word.log10, word.length, word.backoffs[length - 1]) = (weights.log10, length, weights.backoff);
        search.expect_longer(bytes, length - 1, earliest, word.node);
        true
    }
}
