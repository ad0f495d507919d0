//! What the classifier sees of a passage: hashed token bigrams and trigrams, character trigrams of its words, and how
//! much it repeats itself.
//!
//! Token n-grams carry fluency (a shuffled sentence has the words but not their neighbours), character trigrams carry
//! spelling. Single words are left out on purpose: they carry the topic, which says nothing about quality.

use crate::dedup::is_unspaced;

/// Tokens of one passage: enough for a stable score, small enough that a bad part of a long document shows.
pub const PASSAGE_TOKENS: usize = 200;

/// A token of the classifier: a folded word, one character of a script without spaces, one punctuation mark or a line
/// end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A run of letters and digits.
    Word(&'a str),
    /// Any other visible character, or `\n`.
    Mark(char),
}

/// Splits text into tokens. White space other than line ends separates; several line ends in a row count once.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::with_capacity(text.len() / 4);
    found.extend(each_token(text));
    found
}

/// [`tokens`], one after the other.
pub fn each_token(text: &str) -> EachToken<'_> {
    EachToken { text, at: 0, after_line_end: false }
}

/// See [`each_token`].
#[derive(Clone, Debug)]
pub struct EachToken<'a> {
    text: &'a str,
    at: usize,
    /// Was the last token a line end?
    after_line_end: bool,
}

impl<'a> Iterator for EachToken<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let start = self.at;
            let byte = *self.text.as_bytes().get(start)?;
            if byte.is_ascii_alphanumeric() {
                return Some(self.word());
            }
            let c = if byte.is_ascii() { char::from(byte) } else { self.text[start..].chars().next()? };
            if is_in_word(c) {
                return Some(self.word());
            }
            self.at += c.len_utf8();
            let counts = if c == '\n' { !self.after_line_end } else { !c.is_whitespace() };
            if counts {
                self.after_line_end = c == '\n';
                return Some(Token::Mark(c));
            }
        }
    }
}

impl<'a> EachToken<'a> {
    /// The word that begins here.
    fn word(&mut self) -> Token<'a> {
        let (bytes, start) = (self.text.as_bytes(), self.at);
        self.after_line_end = false;
        loop {
            self.at += bytes[self.at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            match self.text[self.at..].chars().next() {
                Some(c) if is_in_word(c) => self.at += c.len_utf8(),
                _ => return Token::Word(&self.text[start..self.at]),
            }
        }
    }
}

/// Is `c` part of a word of several characters?
fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() && !is_unspaced(c)
}

/// Indices into the weight table (`0..2^bits`) of all features of a passage, in the order of the text. Repetitions
/// count.
pub fn features(passage: &[Token<'_>], bits: u32) -> Vec<u32> {
    let mut found = Vec::with_capacity(passage.len() * 6);
    let index = |hash: u64| (mix(hash) >> (64 - bits)) as u32;
    let mut push = |hash: u64| found.push(index(hash));
    let mut bigrams = Vec::with_capacity(passage.len());
    let (mut before, mut last) = (0u64, 0u64);
    for token in passage {
        let hash = match token {
            Token::Word(word) => {
                character_trigrams(word, &mut push);
                word_hash(word)
            }
            Token::Mark(mark) => u64::from(*mark) | 1 << 40,
        };
        bigrams.push(chain(last, hash));
        push(chain(last, hash));
        push(chain(chain(before, last), hash));
        (before, last) = (last, hash);
    }
    let level = index(chain(REPETITION, repetition_level(&mut bigrams)));
    found.extend(std::iter::repeat_n(level, passage.len().div_ceil(REPETITION_SHARE)));
    found
}

/// Marks the feature of the repetition level.
const REPETITION: u64 = 4 << 40;
/// One occurrence of the repetition level per this many tokens: enough to weigh against what it is about.
const REPETITION_SHARE: usize = 10;

/// How much of a passage repeats itself, 0 (nothing new) to 10 (nothing twice): the share of distinct bigrams in
/// tenths. A linear model could otherwise tell a repetitive list only by its bullets, and would take every list for
/// one.
fn repetition_level(bigrams: &mut Vec<u64>) -> u64 {
    let all = bigrams.len().max(1);
    bigrams.sort_unstable();
    bigrams.dedup();
    (10 * bigrams.len() / all) as u64
}

/// Hash of a word in lower case with digits folded to `0`: numbers are alike, their length is not.
fn word_hash(word: &str) -> u64 {
    folded(word).fold(2 << 40, |hash, c| chain(hash, u64::from(c)))
}

fn character_trigrams(word: &str, push: &mut impl FnMut(u64)) {
    const EDGE: u64 = u32::MAX as u64;
    let (mut a, mut b) = (EDGE, EDGE);
    for c in folded(word).map(u64::from).chain([EDGE]) {
        if a != EDGE || b != EDGE {
            push(chain(chain(chain(3 << 40, a), b), c));
        }
        (a, b) = (b, c);
    }
}

fn folded(word: &str) -> impl Iterator<Item = u32> + '_ {
    word.chars().map(|c| match c {
        'A'..='Z' => u32::from(c) | 0x20,
        _ if c.is_ascii() || !c.is_uppercase() => u32::from(if c.is_numeric() { '0' } else { c }),
        _ => c.to_lowercase().next().map_or(0, u32::from),
    })
}

fn chain(hash: u64, next: u64) -> u64 {
    (hash.rotate_left(23) ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_marks_and_characters_of_scripts_without_spaces_are_tokens() {
        use Token::{Mark, Word};
        assert_eq!(
            tokens("Use it,\n\n 使用 v2"),
            [Word("Use"), Word("it"), Mark(','), Mark('\n'), Mark('使'), Mark('用'), Word("v2")]
        );
    }

    #[test]
    fn case_and_digits_do_not_matter_but_order_does() {
        let of = |text: &str| features(&tokens(text), 18);
        assert_eq!(of("Version 12 is OUT"), of("version 90 is out"));
        assert_ne!(of("is out version"), of("version is out"));
    }
}
