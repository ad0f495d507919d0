//! What datamap-rs measures, with the settings of its DCLM pipeline.
//!
//! Lengths are bytes. Words are counted as runs of letters and digits, their length and letters over what white space separates,
//! n-grams over Unicode's words. Every occurrence of a repetition counts, no word twice; the most frequent n-gram counts only if it
//! occurs twice.

use unicode_segmentation::UnicodeSegmentation;

use super::{Meaning, Quality, Shares, StopWords, datatrove::count, share};
use crate::features::{Blocks, Features, Repeats, Split, Word};

pub(super) struct Datamap;

/// White space here is Unicode's `White_Space`, without the four separators that Python adds.
fn spaced(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn words<'a, 'b>(document: &'b Features<'a>) -> &'b [Word<'a>] {
    document.words_by(Split::Unicode)
}

fn repeats<'b>(document: &'b Features<'_>) -> &'b Repeats {
    document.repeats(Split::Unicode)
}

fn bytes(words: &[Word<'_>]) -> usize {
    words.iter().map(|word| word.text.len()).sum()
}

/// Bytes of the words of n-grams at `places` (ascending), each word once.
fn covered(words: &[Word<'_>], places: impl Iterator<Item = usize>, n: usize) -> usize {
    let (mut next, mut total) = (0, 0);
    for place in places {
        total += bytes(&words[place.max(next)..place + n]);
        next = place + n;
    }
    total
}

fn word_count(text: &str) -> usize {
    if text.is_ascii() {
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).count()
    } else {
        text.unicode_words().count()
    }
}

/// A text that is one block has no repetition; one without any counts as nothing else.
fn blocks<'a>(blocks: impl Iterator<Item = &'a str>) -> Shares {
    let mut all = 0;
    let found = Blocks::count(blocks.filter(|block| !block.is_empty()).inspect(|block| all += block.len()), str::len);
    match found.count {
        0 => Shares { blocks: 1.0, chars: 1.0 },
        count => Shares { blocks: share(found.repeated, count), chars: share(found.repeated_length, all) },
    }
}

impl Meaning for Datamap {
    fn quality(&self, document: &Features<'_>, stop_words: &StopWords) -> Quality {
        let text = document.text();
        let (mut count_spaced, mut length, mut letters, mut stops) = (0, 0, 0, 0);
        for word in spaced(text) {
            count_spaced += 1;
            length += word.len();
            letters += usize::from(word.contains(char::is_alphabetic));
            stops += usize::from(stop_words.has(&word.to_lowercase()));
        }
        let symbols: usize = ["#", "...", ". . .", "…"].map(|symbol| count(text, symbol)).iter().sum();
        // `. . .` is one word for this ratio.
        let words_for_symbols = count_spaced - 2 * loose_ellipses(text);
        let mut lines = (0, 0);
        text.split('\n').for_each(|line| {
            lines = (lines.0 + 1, lines.1 + usize::from(line.starts_with(['●', '•', '*', '-'])));
        });
        let mut full_lines = (0, 0);
        text.lines().filter(|line| !line.is_empty()).for_each(|line| {
            let ends = ["...", ". . .", "…"].iter().any(|mark| line.ends_with(mark));
            full_lines = (full_lines.0 + 1, full_lines.1 + usize::from(ends));
        });
        Quality {
            words: word_count(text),
            word_length: share(length, count_spaced),
            symbols: share(symbols, words_for_symbols.max(1)),
            bullet_lines: share(lines.1, lines.0),
            ellipsis_lines: share(full_lines.1, full_lines.0.max(1)),
            // A single word is no text.
            letter_words: if count_spaced == 1 { 0.0 } else { share(letters, count_spaced) },
            stop_words: stops,
            ..Quality::default()
        }
    }

    fn paragraphs(&self, document: &Features<'_>) -> Shares {
        blocks(document.text().split("\n\n"))
    }

    fn lines(&self, document: &Features<'_>) -> Shares {
        blocks(document.text().split('\n'))
    }

    fn top_ngram(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = words(document);
        if words.len() <= n {
            return 0.0;
        }
        let size = |place: usize| bytes(&words[place..place + n]);
        share(covered(words, repeats(document).top_places(n, size), n), bytes(words))
    }

    fn duplicate_ngrams(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = words(document);
        if words.len() <= n {
            return 0.0;
        }
        share(covered(words, repeats(document).places(n).map(|(place, _)| place), n), bytes(words))
    }
}

/// Occurrences of `. . .`; as `...` each is one word instead of three.
fn loose_ellipses(text: &str) -> usize {
    count(text, ". . .")
}
