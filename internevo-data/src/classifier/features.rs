//! What the classifier sees of a text: hashed n-grams of words and of characters, passage by passage, in one pass over the
//! characters and without storing any of them.
//!
//! A token is a run of letters and digits, one character of a script without spaces, or one mark; case and width are folded, digits
//! are alike. Tokens give n-grams of words; characters of a word (its edges included) or of a run without spaces give n-grams of
//! characters, which carry spelling, inflection and, in Chinese, words.

use std::ops::Range;

use super::ClassifierSettings;
use crate::{dedup::is_unspaced, features::fold::fold};

/// Longest n-gram of characters: as many have room in [`Passage::history`].
pub const MAX_CHARS: usize = 6;
/// Bits of a character.
const CHAR_BITS: usize = 21;
/// Stands before and after a word; no character.
const EDGE: u32 = 0x1F_FFFF;

/// Hears of the features of a text.
pub trait Sink {
    /// A feature of the current passage: an index below `2^bits`. Repetitions count.
    fn feature(&mut self, index: u32);

    /// The passage, these bytes of the text, has `tokens` tokens and ends.
    fn end_of_passage(&mut self, tokens: usize, bytes: Range<usize>);
}

/// Collects the features of one passage.
#[derive(Debug, Default)]
pub struct Collector {
    /// In the order of the text.
    pub indices: Vec<u32>,
}

impl Sink for Collector {
    #[inline]
    fn feature(&mut self, index: u32) {
        self.indices.push(index);
    }
    fn end_of_passage(&mut self, _: usize, _: Range<usize>) {}
}

/// Collects where passages are.
#[derive(Default)]
struct Cutter(Vec<Range<usize>>);

impl Sink for Cutter {
    #[inline]
    fn feature(&mut self, _: u32) {}
    fn end_of_passage(&mut self, _: usize, bytes: Range<usize>) {
        self.0.push(bytes);
    }
}

/// Finds features.
#[derive(Clone, Debug)]
pub struct Extractor {
    bits: u32,
    bigrams: bool,
    /// Shortest and longest; an empty range is none.
    chars: Range<usize>,
    passage_tokens: usize,
}

/// What a character is to the features.
#[derive(Clone, Copy)]
enum Kind {
    Space,
    /// Of a word; folded.
    Letter(char),
    /// A token of its own, and part of a run.
    Unspaced(char),
    Mark(char),
}

impl Kind {
    #[inline]
    fn of(c: char) -> Self {
        match c {
            'a'..='z' => Self::Letter(c),
            '0'..='9' => Self::Letter('0'),
            'A'..='Z' => Self::Letter(c.to_ascii_lowercase()),
            _ if c.is_ascii() => {
                if c > ' ' && c != '\x7F' {
                    Self::Mark(c)
                } else {
                    Self::Space
                }
            }
            _ => Self::of_wide(fold(c)),
        }
    }

    fn of_wide(c: char) -> Self {
        if c.is_ascii() {
            return Self::of(c);
        }
        match c {
            _ if is_unspaced(c) => Self::Unspaced(c),
            _ if c.is_numeric() => Self::Letter('0'),
            _ if c.is_alphanumeric() => Self::Letter(c),
            _ if c.is_whitespace() || c.is_control() => Self::Space,
            _ => Self::Mark(c),
        }
    }
}

/// The passage being read.
struct Passage<'a, S> {
    extractor: &'a Extractor,
    sink: &'a mut S,
    /// Last characters of the word or run, newest in the lowest bits.
    history: u128,
    /// How many, up to [`MAX_CHARS`].
    depth: usize,
    /// Hash of the word so far; `None` outside words.
    word: Option<u64>,
    /// Hash of the token before.
    last: u64,
    tokens: usize,
    start: usize,
}

impl Extractor {
    /// Features by these settings, which are valid.
    pub fn new(settings: &ClassifierSettings) -> Self {
        let [shortest, longest] = settings.char_ngrams;
        Self {
            bits: settings.bits,
            bigrams: settings.word_ngrams > 1,
            chars: shortest..longest + 1,
            passage_tokens: settings.passage_tokens,
        }
    }

    /// All features of all passages of `text`. A passage has the same features when it is read alone.
    pub fn passages(&self, text: &str, sink: &mut impl Sink) {
        let mut passage =
            Passage { extractor: self, sink, history: 0, depth: 0, word: None, last: 0, tokens: 0, start: 0 };
        for (at, c) in text.char_indices() {
            match Kind::of(c) {
                Kind::Letter(letter) => passage.letter(letter, at),
                Kind::Unspaced(character) => passage.unspaced(character, at),
                Kind::Space => passage.gap(at),
                Kind::Mark(mark) => {
                    passage.gap(at);
                    passage.token(hash(MARK, u64::from(mark)), at + c.len_utf8());
                }
            }
        }
        passage.gap(text.len());
        passage.end(text.len());
    }

    /// Where the passages of `text` are.
    pub fn cut(&self, text: &str) -> Vec<Range<usize>> {
        let mut cutter = Cutter::default();
        self.passages(text, &mut cutter);
        cutter.0
    }
}

/// Marks the kinds of hashes.
const WORD: u64 = 1 << 40;
const MARK: u64 = 2 << 40;
const CHARS: u64 = 3 << 40;

impl<S: Sink> Passage<'_, S> {
    #[inline]
    fn letter(&mut self, c: char, at: usize) {
        let before = match self.word {
            Some(hash) => hash,
            None => {
                self.gap(at);
                self.character(EDGE);
                WORD
            }
        };
        self.word = Some(hash(before, u64::from(c)));
        self.character(u32::from(c));
    }

    fn unspaced(&mut self, c: char, at: usize) {
        if self.word.is_some() {
            self.gap(at);
        }
        self.character(u32::from(c));
        self.token(hash(WORD, u64::from(c)), at + c.len_utf8());
    }

    /// Ends the word or the run before byte `at`.
    #[inline]
    fn gap(&mut self, at: usize) {
        if let Some(word) = self.word.take() {
            self.character(EDGE);
            self.token(word, at);
        }
        self.depth = 0;
    }

    /// The n-grams that end with `c`.
    #[inline]
    fn character(&mut self, c: u32) {
        self.history = self.history << CHAR_BITS | u128::from(c);
        self.depth = (self.depth + 1).min(MAX_CHARS);
        let chars = &self.extractor.chars;
        for length in chars.start..chars.end.min(self.depth + 1) {
            let own = self.history & ((1 << (CHAR_BITS * length)) - 1);
            self.push(hash(CHARS | length as u64, own as u64 ^ ((own >> 64) as u64).rotate_left(43)));
        }
    }

    /// A token that ends at byte `end`.
    #[inline]
    fn token(&mut self, token: u64, end: usize) {
        self.push(token);
        if self.extractor.bigrams {
            self.push(hash(self.last, token));
        }
        self.last = token;
        self.tokens += 1;
        if self.tokens == self.extractor.passage_tokens {
            self.end(end);
        }
    }

    fn end(&mut self, at: usize) {
        if self.tokens > 0 {
            self.sink.end_of_passage(self.tokens, self.start..at);
        }
        (self.start, self.tokens, self.last, self.depth) = (at, 0, 0, 0);
    }

    #[inline]
    fn push(&mut self, hash: u64) {
        self.sink.feature((hash >> (64 - self.extractor.bits)) as u32);
    }
}

/// A hash whose upper bits are its best ones.
#[inline]
fn hash(before: u64, next: u64) -> u64 {
    let mixed = (before.rotate_left(23) ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extractor(passage_tokens: usize) -> Extractor {
        Extractor::new(&ClassifierSettings { bits: 20, passage_tokens, ..ClassifierSettings::default() })
    }

    fn features(text: &str) -> Vec<u32> {
        let mut collector = Collector::default();
        extractor(1000).passages(text, &mut collector);
        collector.indices
    }

    #[test]
    fn case_width_and_digits_do_not_matter_but_order_does() {
        assert_eq!(features("Version 12 ＩＳ OUT!"), features("version  90 is out！"));
        assert_ne!(features("is out version"), features("version is out"));
        assert_ne!(features("赌博网站"), features("网站赌博"));
    }

    #[test]
    fn the_number_of_features_can_be_counted_by_hand() {
        // Token and bigram; <ab, ab>, <ab>.
        assert_eq!(features("ab").len(), 2 + 3);
        // Four tokens and bigrams; two 3-grams and one 4-gram of the run.
        assert_eq!(features("赌博网站").len(), 8 + 3);
        assert_eq!(features(" \n\t").len(), 0);
    }

    #[test]
    fn a_passage_read_alone_has_the_same_features() {
        let text = "One two, three 赌博网站 four. Five-six 第七 eight";
        for length in 1..12 {
            let extractor = extractor(length);
            let (mut all, mut alone) = (Collector::default(), Collector::default());
            extractor.passages(text, &mut all);
            let cuts = extractor.cut(text);
            cuts.iter().for_each(|range| extractor.passages(&text[range.clone()], &mut alone));
            assert_eq!(all.indices, alone.indices, "passages of {length}");
            assert_eq!(cuts.len(), 16usize.div_ceil(length), "passages of {length}");
        }
    }
}
