//! A word, and what the rules ask of it.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

use super::classes::{Class, Classes};

/// A word or a run of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// As it stands in the text.
    pub text: &'a str,
    /// xxh3 of `text`.
    pub hash: u64,
    /// Its length in characters.
    pub chars: u32,
    /// Has it a letter (Python's `str.isalpha`)?
    pub has_letter: bool,
    /// Is every character in datatrove's punctuation set?
    pub is_symbol: bool,
    /// Is every character of Unicode's categories P*?
    pub is_punctuation: bool,
    /// Is it one mark that ends a sentence?
    pub ends_sentence: bool,
}

static ASCII: [u8; 128] = {
    let (mut all, mut byte) = ([0; 128], 0);
    while byte < 128 {
        all[byte] = byte as u8;
        byte += 1;
    }
    all
};

/// The words of one ASCII character: most marks.
static SINGLE: LazyLock<[Word<'static>; 128]> = LazyLock::new(|| {
    std::array::from_fn(|byte| Word::read(std::str::from_utf8(&ASCII[byte..=byte]).expect("ASCII is UTF-8")))
});

impl<'a> Word<'a> {
    /// Looks at every character of `text`.
    pub fn new(text: &'a str) -> Self {
        match SINGLE.get(usize::from(text.as_bytes().first().copied().unwrap_or(0))) {
            Some(known) if text.len() == 1 => Self { text, ..*known },
            _ => Self::read(text),
        }
    }

    fn read(text: &'a str) -> Self {
        let classes = Classes::get();
        let (mut chars, mut any, mut all) =
            (0, Class::default(), Class::SYMBOL.or(Class::PUNCTUATION).or(Class::SENTENCE_END));
        let mut add = |c: char| {
            let class = classes.of(c);
            chars += 1;
            any = any.or(class);
            all = all.and(class);
        };
        if text.is_ascii() {
            text.bytes().for_each(|byte| add(char::from(byte)));
        } else {
            text.chars().for_each(add);
        }
        Self {
            text,
            hash: xxh3_64(text.as_bytes()),
            chars,
            has_letter: any.has(Class::LETTER),
            is_symbol: all.has(Class::SYMBOL),
            is_punctuation: all.has(Class::PUNCTUATION),
            ends_sentence: chars == 1 && all.has(Class::SENTENCE_END),
        }
    }

    /// `text` consists of ASCII letters only, or of ASCII digits only; `hash` is its hash.
    pub(crate) fn plain(text: &'a str, hash: u64, has_letter: bool) -> Self {
        let chars = text.len() as u32;
        Self { text, hash, chars, has_letter, is_symbol: false, is_punctuation: false, ends_sentence: false }
    }

    /// Its first byte's place in `whole`, of which it is a part.
    pub(crate) fn start(&self, whole: &str) -> usize {
        self.text.as_ptr() as usize - whole.as_ptr() as usize
    }
}

/// Is `c` in datatrove's punctuation set?
pub fn is_punctuation(c: char) -> bool {
    Classes::get().of(c).has(Class::SYMBOL)
}
