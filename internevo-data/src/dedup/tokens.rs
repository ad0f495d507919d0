//! Normalisation and tokenisation for duplicate detection: one pass that yields a canonical byte string and one 64-bit
//! hash per token.
//!
//! Prose is folded hard (lower case, digits to `0`, punctuation to space, NFD without marks, one space), so that a copy
//! with another date or other typography is still a copy. Code is split into identifiers and literals only: case and
//! digits carry meaning there. Scripts written without spaces (Chinese, Japanese, Thai, …) give one token per
//! character: there one edited character would otherwise change a whole segmented word and five shingles around it.
//!
//! Not here: shingles and sets (`shingle.rs`).

use unicode_normalization::char::{canonical_combining_class, decompose_canonical};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How a document is cut into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRule {
    /// Natural language: folded words, single characters for scripts without spaces.
    Prose,
    /// Source code: runs of alphanumerics (so `snake_case` is two tokens), case and digits kept.
    Code,
}

/// The tokens of one document. Reuse one value for many documents: its buffers keep their capacity.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    canonical: Vec<u8>,
    hashes: Vec<u64>,
    token_start: usize,
}

impl Tokens {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the content by the tokens of `text`.
    pub fn read(&mut self, text: &str, rule: TokenRule) {
        self.canonical.clear();
        self.hashes.clear();
        self.token_start = 0;
        let fold = match rule {
            TokenRule::Prose => &PROSE_ASCII,
            TokenRule::Code => &CODE_ASCII,
        };
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte < 0x80 {
                match fold[usize::from(byte)] {
                    SEPARATOR => self.end_token(),
                    folded => self.canonical.push(folded),
                }
                at += 1;
            } else {
                let c = text[at..].chars().next().expect("a character starts at a UTF-8 boundary");
                at += c.len_utf8();
                match rule {
                    TokenRule::Prose => decompose_canonical(c, |part| self.push_prose(part)),
                    TokenRule::Code => self.push_code(c),
                }
            }
        }
        self.end_token();
        self.canonical.pop_if(|last| *last == b' ');
    }

    /// One hash (xxh3) per token, in order.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The tokens joined by single spaces.
    pub fn canonical(&self) -> &str {
        std::str::from_utf8(&self.canonical).expect("built from whole characters")
    }

    /// Identity of the document under `rule`: equal for documents that count as exact copies of each other.
    ///
    /// Prose compares its canonical form; code compares the source with white space collapsed, because `a + b` and `a -
    /// b` have the same tokens. A document without any token compares its bytes.
    pub fn identity(&self, text: &str, rule: TokenRule) -> u128 {
        match rule {
            TokenRule::Prose if !self.hashes.is_empty() => xxh3_128(&self.canonical),
            _ => {
                let mut collapsed = String::with_capacity(text.len());
                for word in text.split_ascii_whitespace() {
                    collapsed.push_str(word);
                    collapsed.push(' ');
                }
                // The leading byte keeps code and prose apart: a canonical form never starts with one.
                collapsed.insert(0, '\u{1}');
                xxh3_128(collapsed.as_bytes())
            }
        }
    }

    fn end_token(&mut self) {
        if self.canonical.len() > self.token_start {
            self.hashes.push(xxh3_64(&self.canonical[self.token_start..]));
            self.canonical.push(b' ');
            self.token_start = self.canonical.len();
        }
    }

    fn push_prose(&mut self, c: char) {
        if canonical_combining_class(c) != 0 {
            return; // an accent, a nukta, a voicing mark
        }
        if c.is_ascii() {
            match PROSE_ASCII[c as usize] {
                SEPARATOR => self.end_token(),
                folded => self.canonical.push(folded),
            }
        } else if is_unspaced(c) {
            self.end_token();
            self.push_char(c);
            self.end_token();
        } else if c.is_numeric() {
            self.canonical.push(b'0');
        } else if c.is_alphanumeric() {
            c.to_lowercase().for_each(|lower| self.push_char(lower));
        } else {
            self.end_token();
        }
    }

    fn push_code(&mut self, c: char) {
        if is_unspaced(c) {
            self.end_token();
            self.push_char(c);
            self.end_token();
        } else if c.is_alphanumeric() {
            self.push_char(c);
        } else {
            self.end_token();
        }
    }

    fn push_char(&mut self, c: char) {
        self.canonical.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Identity of a text by its bytes alone.
pub fn text_identity(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

/// Is `c` of a script that is written without spaces between words?
#[inline]
pub fn is_unspaced(c: char) -> bool {
    // All of them letters: nearly every character of Chinese.
    matches!(c, '\u{4E00}'..='\u{9FFF}') || is_rarer_unspaced(c)
}

fn is_rarer_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF       // Thai, Lao
        | 0x1000..=0x109F     // Myanmar
        | 0x1780..=0x17FF     // Khmer
        | 0x3041..=0x30FF     // Hiragana, Katakana
        | 0x31F0..=0x31FF     // Katakana extensions
        | 0x3400..=0x4DBF     // CJK extension A
        | 0xF900..=0xFAFF     // CJK compatibility
        | 0x20000..=0x3134F)  // CJK extensions B to G
        && c.is_alphanumeric()
}

const SEPARATOR: u8 = 0;
const PROSE_ASCII: [u8; 128] = ascii_table(true);
const CODE_ASCII: [u8; 128] = ascii_table(false);

const fn ascii_table(fold: bool) -> [u8; 128] {
    let mut table = [SEPARATOR; 128];
    let mut byte = 0u8;
    while byte < 128 {
        if byte.is_ascii_digit() {
            table[byte as usize] = if fold { b'0' } else { byte };
        } else if byte.is_ascii_alphabetic() {
            table[byte as usize] = if fold { byte.to_ascii_lowercase() } else { byte };
        }
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str, rule: TokenRule) -> String {
        let mut tokens = Tokens::new();
        tokens.read(text, rule);
        assert_eq!(tokens.hashes().len(), tokens.canonical().split(' ').filter(|t| !t.is_empty()).count());
        tokens.canonical().to_owned()
    }

    #[test]
    fn prose_loses_case_digits_punctuation_and_accents() {
        assert_eq!(canonical("  Été 2024:\n\tNaïve—test, v1.2!", TokenRule::Prose), "ete 0000 naive test v0 0");
        assert_eq!(canonical("...", TokenRule::Prose), "");
    }

    #[test]
    fn chinese_is_split_into_characters_and_latin_into_words() {
        assert_eq!(canonical("使用Rust语言。", TokenRule::Prose), "使 用 rust 语 言");
    }

    #[test]
    fn every_unified_ideograph_is_a_letter() {
        assert!(('\u{4E00}'..='\u{9FFF}').all(char::is_alphanumeric));
    }

    #[test]
    fn code_keeps_case_and_digits_and_splits_snake_case() {
        assert_eq!(canonical("let max_len2 = HashMap::new();", TokenRule::Code), "let max len2 HashMap new");
    }

    #[test]
    fn code_that_differs_in_an_operator_is_not_identical_but_reindented_code_is() {
        let identity = |text: &str| {
            let mut tokens = Tokens::new();
            tokens.read(text, TokenRule::Code);
            tokens.identity(text, TokenRule::Code)
        };
        assert_ne!(identity("a + b"), identity("a - b"));
        assert_eq!(identity("fn f() {\n    x\n}"), identity("fn f() {\n\tx\n}\n"));
    }
}
