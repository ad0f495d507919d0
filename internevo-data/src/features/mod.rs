//! What filters look at: words, lines, paragraphs and n-grams of one document, each computed once, when first asked for.
//!
//! | file | holds |
//! |---|---|
//! | `words.rs` | the split into words |
//! | `lines.rs` | lines and paragraphs as Python and datatrove split them |
//! | `repeats.rs` | repeated n-grams |

mod lines;
mod repeats;
mod words;

use std::cell::OnceCell;

pub use self::{
    lines::{Blocks, line_blocks, paragraphs, python_lines, without_fences},
    repeats::Repeats,
    words::{Word, is_punctuation, words},
};
use crate::document::Document;

/// A document and what is derived from it. One value per document and thread; filters share it.
pub struct Features<'a> {
    document: &'a Document,
    chars: OnceCell<usize>,
    words: OnceCell<Vec<Word<'a>>>,
    word_hashes: OnceCell<Vec<u64>>,
    lines: OnceCell<Vec<&'a str>>,
    repeats: OnceCell<Repeats>,
}

impl<'a> Features<'a> {
    /// Nothing is computed yet.
    pub fn new(document: &'a Document) -> Self {
        Self {
            document,
            chars: OnceCell::new(),
            words: OnceCell::new(),
            word_hashes: OnceCell::new(),
            lines: OnceCell::new(),
            repeats: OnceCell::new(),
        }
    }

    /// The document itself, with id and fields.
    pub fn document(&self) -> &'a Document {
        self.document
    }

    /// The text.
    pub fn text(&self) -> &'a str {
        &self.document.text
    }

    /// The document's language; see [`Document::lang`].
    pub fn lang(&self) -> Option<&'a str> {
        self.document.lang()
    }

    /// Is it source code? See [`Document::is_code`].
    pub fn is_code(&self) -> bool {
        self.document.is_code()
    }

    /// Characters of the text.
    pub fn chars(&self) -> usize {
        *self.chars.get_or_init(|| self.text().chars().count())
    }

    /// Words and punctuation, in order; see [`words()`].
    pub fn words(&self) -> &[Word<'a>] {
        self.words.get_or_init(|| words(self.text()))
    }

    /// xxh3 of each word, in order.
    pub fn word_hashes(&self) -> &[u64] {
        self.word_hashes
            .get_or_init(|| self.words().iter().map(|word| xxhash_rust::xxh3::xxh3_64(word.text.as_bytes())).collect())
    }

    /// Lines as Python's `str.splitlines` gives them.
    pub fn lines(&self) -> &[&'a str] {
        self.lines.get_or_init(|| python_lines(self.text()))
    }

    /// Which n-grams of words occur more than once.
    pub fn repeats(&self) -> &Repeats {
        self.repeats.get_or_init(|| Repeats::find(self.words(), self.word_hashes()))
    }
}
