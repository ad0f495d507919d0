//! What the quality signals of RedPajama-V2 measure, with the thresholds of its example for Gopher's rules.
//!
//! Words are those of the text without ASCII punctuation, in lower case and NFD; symbols and letters are counted over runs of word
//! characters or of others. Every occurrence of a repeated n-gram counts, no word twice. There are no signals for repeated lines
//! and paragraphs, and stop words are a share without a threshold: these rules never drop. Signals are rounded to eight digits.

use super::{Meaning, Quality, Shares, StopWords, datatrove::count, share};
use crate::features::{
    Features, FoldedWords,
    classes::{Class, Classes},
    python_trim_end, python_trim_start,
};

pub(super) struct Redpajama;

const BULLETS: [char; 10] = ['•', '‣', '▶', '◀', '◦', '■', '□', '▪', '▫', '–'];

fn rounded(value: f64) -> f64 {
    (value * 1e8).round() / 1e8
}

fn chars(words: &FoldedWords) -> usize {
    words.lengths.iter().map(|length| *length as usize).sum()
}

/// Number of runs of word characters (`\w+`) and of other visible ones, and of those with an ASCII letter.
fn runs(text: &str) -> (usize, usize) {
    let classes = Classes::get();
    let (mut all, mut lettered) = (0, 0);
    let (mut before, mut has_letter) = (None, false);
    for c in text.chars().map(Some).chain([None]) {
        let kind = c
            .filter(|c| !classes.of(*c).has(Class::SPACE))
            .map(|c| c == '_' || classes.of(c).has(Class::LETTER) || c.is_numeric());
        if kind != before {
            all += usize::from(before.is_some());
            lettered += usize::from(has_letter);
            (before, has_letter) = (kind, false);
        }
        has_letter |= c.is_some_and(|c| c.is_ascii_alphabetic());
    }
    (all, lettered)
}

impl Meaning for Redpajama {
    fn quality(&self, document: &Features<'_>, _: &StopWords) -> Quality {
        let (text, words) = (document.text(), document.folded_words());
        let (all, lettered) = runs(text);
        let (mut lines, mut bullets, mut ellipses) = (0, 0, 0);
        for line in text.split_inclusive('\n') {
            lines += 1;
            bullets += usize::from(python_trim_start(line).starts_with(BULLETS));
            let line = python_trim_end(line);
            ellipses += usize::from(line.ends_with("...") || line.ends_with('…'));
        }
        let symbols = count(text, "#") + count(text, "...") + count(text, "…");
        Quality {
            words: words.lengths.len(),
            word_length: rounded(share(chars(words), words.lengths.len())),
            symbols: rounded(share(symbols, all)),
            bullet_lines: share(bullets, lines),
            ellipsis_lines: rounded(share(ellipses, lines)),
            letter_words: rounded(share(lettered, all)),
            // No rule: as many as anybody may ask for.
            stop_words: usize::MAX,
            ..Quality::default()
        }
    }

    fn paragraphs(&self, _: &Features<'_>) -> Shares {
        Shares::default()
    }

    fn lines(&self, _: &Features<'_>) -> Shares {
        Shares::default()
    }

    fn top_ngram(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = document.folded_words();
        match words.repeats.top(n) {
            Some((place, times)) if times > 1 => {
                let length: u32 = words.lengths[place..place + n].iter().sum();
                rounded(share(length as usize * times, chars(words)))
            }
            _ => 0.0,
        }
    }

    fn duplicate_ngrams(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = document.folded_words();
        let (mut next, mut total) = (0, 0);
        for (place, _) in words.repeats.places(n) {
            total += words.lengths[place.max(next)..place + n].iter().sum::<u32>() as usize;
            next = place + n;
        }
        if total == 0 { 0.0 } else { rounded(share(total, chars(words))) }
    }
}
