//! What filters look at: words, lines, paragraphs and n-grams of one document, each computed once, when first asked for.
//!
//! | file | holds |
//! |---|---|
//! | `words.rs`, `word.rs` | the split into words by language, and what a word is |
//! | `spacy/` | spaCy's tokenizer, the split for languages with spaces |
//! | `classes.rs`, `fold.rs` | classes of characters, their case and width |
//! | `lines.rs` | lines and paragraphs as Python and datatrove split them |
//! | `repeats.rs` | repeated n-grams |

pub(crate) mod classes;
pub(crate) mod fold;
mod lines;
mod repeats;
mod spacy;
mod word;
mod words;

use std::cell::OnceCell;

pub use self::{
    lines::{
        Blocks, line_blocks, newline_split, paragraphs, python_lines, python_trim_end, python_trim_start,
        without_fences,
    },
    repeats::Repeats,
    word::{Word, is_punctuation},
    words::{FoldedWords, Split, words},
};
use crate::document::Document;

/// A document and what is derived from it. One value per document and thread; filters share it.
pub struct Features<'a> {
    document: &'a Document,
    chars: OnceCell<usize>,
    /// By [`Split`].
    words: [OnceCell<Vec<Word<'a>>>; Split::COUNT],
    /// By [`Split`].
    repeats: [OnceCell<Repeats>; Split::COUNT],
    folded: OnceCell<FoldedWords>,
    lines: OnceCell<Vec<&'a str>>,
}

impl<'a> Features<'a> {
    /// Nothing is computed yet.
    pub fn new(document: &'a Document) -> Self {
        Self {
            document,
            chars: OnceCell::new(),
            words: Default::default(),
            repeats: Default::default(),
            folded: OnceCell::new(),
            lines: OnceCell::new(),
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

    /// Words and punctuation in order, split for the document's language.
    pub fn words(&self) -> &[Word<'a>] {
        self.words_by(Split::of(self.lang()))
    }

    /// Words and punctuation in order, by a split of the caller's choice.
    pub fn words_by(&self, split: Split) -> &[Word<'a>] {
        self.words[split as usize].get_or_init(|| words(self.text(), split))
    }

    /// Words in lower case without punctuation; see [`FoldedWords`].
    pub fn folded_words(&self) -> &FoldedWords {
        self.folded.get_or_init(|| FoldedWords::of(self.text()))
    }

    /// Lines as Python's `str.splitlines` gives them.
    pub fn lines(&self) -> &[&'a str] {
        self.lines.get_or_init(|| python_lines(self.text()))
    }

    /// Which n-grams of [`Features::words_by`] occur more than once.
    pub fn repeats(&self, split: Split) -> &Repeats {
        let hashes = || self.words_by(split).iter().map(|word| word.hash);
        self.repeats[split as usize].get_or_init(|| Repeats::find(hashes()))
    }
}
