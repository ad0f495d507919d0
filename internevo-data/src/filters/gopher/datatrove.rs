//! What datatrove measures.
//!
//! Words are spaCy's tokens, punctuation included, but lengths are counted over words that are not punctuation alone; a hyphen
//! counts as a bullet; stop words are counted once each. A first occurrence is no duplicate; after a duplicated n-gram the next n
//! words are passed over; all shares are of the characters of the whole text, spaces included; an n-gram of the top rule counts its
//! spaces, one of the duplicate rule does not.
//!
//! Documents of type `markdown`, which datatrove's texts are not, differ: their marks are markup, so the share of words with a
//! letter is taken over what white space separates, as in the paper; and the rules for lines and paragraphs leave out fenced code:
//! programs repeat `}` by nature, and a chapter about them is no worse for it.

use std::borrow::Cow;

use memchr::memmem;

use super::{Meaning, Quality, Shares, StopWords, share};
use crate::features::{
    Blocks, Features, Split, line_blocks, paragraphs, python_trim_end, python_trim_start, without_fences,
};

pub(super) struct Datatrove {
    pub(super) split: Split,
    pub(super) is_markdown: bool,
}

impl Datatrove {
    /// What the rules for lines and paragraphs look at.
    fn blocks<'a>(&self, document: &Features<'a>) -> Cow<'a, str> {
        if self.is_markdown { without_fences(document.text()) } else { document.text().into() }
    }

    fn shares<'b>(&self, document: &Features<'_>, blocks: impl Iterator<Item = &'b str>) -> Shares {
        let found = Blocks::count(blocks, |block| block.chars().count());
        Shares { blocks: share(found.duplicates, found.count), chars: share(found.duplicate_length, document.chars()) }
    }
}

impl Meaning for Datatrove {
    fn quality(&self, document: &Features<'_>, stop_words: &StopWords) -> Quality {
        let (text, words, lines) = (document.text(), document.words_by(self.split), document.lines());
        let (mut real, mut chars, mut lettered) = (0, 0, 0);
        let mut seen = vec![false; stop_words.len()];
        for word in words {
            if !word.is_symbol {
                real += 1;
                chars += word.chars as usize;
            }
            lettered += usize::from(word.has_letter);
            if let Some(index) = stop_words.position(word.hash) {
                seen[index] = true;
            }
        }
        let letter_words = if self.is_markdown && matches!(self.split, Split::English | Split::Neutral) {
            let spaced = document.words_by(Split::Spaces);
            share(spaced.iter().filter(|word| word.has_letter).count(), spaced.len())
        } else {
            share(lettered, words.len())
        };
        let lines_with =
            |wanted: fn(&str) -> bool| share(lines.iter().filter(|line| wanted(line)).count(), lines.len());
        Quality {
            words: real,
            word_length: share(chars, real),
            hashes: share(memchr::memchr_iter(b'#', text.as_bytes()).count(), words.len()),
            ellipses: share(count(text, "...") + count(text, "…"), words.len()),
            bullet_lines: lines_with(|line| python_trim_start(line).starts_with(['•', '-'])),
            ellipsis_lines: lines_with(|line| {
                let line = python_trim_end(line);
                line.ends_with("...") || line.ends_with('…')
            }),
            letter_words,
            stop_words: seen.into_iter().filter(|seen| *seen).count(),
            symbols: 0.0,
        }
    }

    fn paragraphs(&self, document: &Features<'_>) -> Shares {
        self.shares(document, paragraphs(&self.blocks(document)))
    }

    fn lines(&self, document: &Features<'_>) -> Shares {
        self.shares(document, line_blocks(&self.blocks(document)))
    }

    fn top_ngram(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = document.words_by(self.split);
        let Some((place, count)) = document.repeats(self.split).top(n) else { return 0.0 };
        let chars: usize = words[place..place + n].iter().map(|word| word.chars as usize).sum();
        share((chars + n - 1) * count, document.chars())
    }

    fn duplicate_ngrams(&self, document: &Features<'_>, n: usize) -> f64 {
        let (words, repeats) = (document.words_by(self.split), document.repeats(self.split));
        let mut seen = vec![false; repeats.numbers(n)];
        let (mut next, mut total) = (0, 0);
        for (place, number) in repeats.places(n) {
            if place >= next && std::mem::replace(&mut seen[number], true) {
                total += words[place..place + n].iter().map(|word| word.chars as usize).sum::<usize>();
                next = place + n;
            }
        }
        share(total, document.chars())
    }
}

/// Occurrences of `mark` in `text` that do not overlap.
pub(super) fn count(text: &str, mark: &str) -> usize {
    memmem::find_iter(text.as_bytes(), mark).count()
}
