//! What dolma's tagger `gopher_v2` measures.
//!
//! Words are what white space separates; their length is the median; a word with `#` or `…` is a symbol; stop words count each
//! time; bullets are `*` and `-` at the very beginning of a line. Every occurrence of a repeated line or n-gram counts, overlapping
//! n-grams several times; paragraphs are not looked at.

use super::{Meaning, Quality, Shares, StopWords, share};
use crate::features::{Blocks, Features, Repeats, Split, Word, line_blocks};

pub(super) struct Dolma;

fn words<'a, 'b>(document: &'b Features<'a>) -> &'b [Word<'a>] {
    document.words_by(Split::Spaces)
}

fn chars(words: &[Word<'_>]) -> usize {
    words.iter().map(|word| word.chars as usize).sum()
}

fn repeats<'b>(document: &'b Features<'_>) -> &'b Repeats {
    document.repeats(Split::Spaces)
}

/// The middle value, or the mean of the two in the middle; 0 of none.
fn median(mut values: Vec<u32>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let (half, is_even) = (values.len() / 2, values.len().is_multiple_of(2));
    let (below, upper, _) = values.select_nth_unstable(half);
    let upper = f64::from(*upper);
    match below.iter().max() {
        Some(lower) if is_even => (f64::from(*lower) + upper) / 2.0,
        _ => upper,
    }
}

impl Meaning for Dolma {
    fn quality(&self, document: &Features<'_>, stop_words: &StopWords) -> Quality {
        let words = words(document);
        let number = |wanted: &dyn Fn(&Word<'_>) -> bool| words.iter().filter(|word| wanted(word)).count();
        let (mut lines, mut bullets, mut ellipses) = (0, 0, 0);
        for line in line_blocks(document.text()) {
            lines += 1;
            bullets += usize::from(line.starts_with(['*', '-']));
            ellipses += usize::from(line.ends_with('…'));
        }
        Quality {
            words: words.len(),
            word_length: median(words.iter().map(|word| word.chars).collect()),
            symbols: share(number(&|word| word.text.contains(['#', '…'])), words.len()),
            bullet_lines: share(bullets, lines),
            ellipsis_lines: share(ellipses, lines),
            letter_words: share(number(&|word| word.has_letter), words.len()),
            stop_words: number(&|word| stop_words.position(word.hash).is_some()),
            ..Quality::default()
        }
    }

    fn paragraphs(&self, _: &Features<'_>) -> Shares {
        Shares::default()
    }

    fn lines(&self, document: &Features<'_>) -> Shares {
        let found = Blocks::count(line_blocks(document.text()), |line| line.chars().count());
        let whole = chars(words(document)).max(1);
        Shares { blocks: share(found.repeated, found.count), chars: share(found.repeated_length, whole) }
    }

    fn top_ngram(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = words(document);
        let Some((place, count)) = repeats(document).top(n) else { return 0.0 };
        share(chars(&words[place..place + n]) * count, chars(words).max(1))
    }

    fn duplicate_ngrams(&self, document: &Features<'_>, n: usize) -> f64 {
        let words = words(document);
        let repeated: usize = repeats(document).places(n).map(|(place, _)| chars(&words[place..place + n])).sum();
        if repeated == 0 {
            return 0.0;
        }
        share(repeated, words.windows(n).map(chars).sum::<usize>().max(1))
    }
}
