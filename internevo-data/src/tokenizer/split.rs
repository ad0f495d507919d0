//! Cutting text into words before the merges: the split of cl100k (GPT-4) with single digits, as Qwen2 uses it.
//!
//! The pattern needs a look-ahead, which a linear-time regex engine does not have. [`Splitter`] runs the pattern without it
//! and mends the one case where it matters (a whitespace run before a word gives its last character away), so it is fast
//! and yet equal to what Hugging Face tokenizers do with [`PATTERN`]; a test holds it to that.

use regex::Regex;

/// The split as it stands in `tokenizer.json`.
pub const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// [`PATTERN`] without its look-ahead alternative.
const LINEAR: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Cuts text into words by [`PATTERN`].
#[derive(Clone, Debug)]
pub(crate) struct Splitter {
    linear: Regex,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        Self { linear: Regex::new(LINEAR).expect("the pattern is a constant and compiles") }
    }

    /// The words of `text`, in order; joined they are `text` again.
    pub(crate) fn words<'a>(&'a self, text: &'a str) -> Words<'a> {
        Words { linear: &self.linear, text, start: 0 }
    }
}

/// Iterator over the words of a text.
pub(crate) struct Words<'a> {
    linear: &'a Regex,
    text: &'a str,
    start: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.start == self.text.len() {
            return None;
        }
        let found = self.linear.find_at(self.text, self.start).expect("every character is in some alternative");
        debug_assert_eq!(found.start(), self.start, "the alternatives leave no gap");
        let mut end = found.end();
        if end < self.text.len() {
            end -= given_away(found.as_str());
        }
        let word = &self.text[self.start..end];
        self.start = end;
        Some(word)
    }
}

/// Bytes at the end of `word` that belong to the next word: `\s+(?!\S)` leaves the last character of a whitespace run to
/// the word behind it, unless the run is that one character or ends a line.
fn given_away(word: &str) -> usize {
    let last = word.chars().next_back().expect("a word is not empty");
    let is_run = last.is_whitespace() && !matches!(last, '\r' | '\n');
    if is_run && last.len_utf8() < word.len() { last.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
        pre_tokenizers::split::{Split, SplitPattern},
    };

    use super::*;

    fn by_hugging_face(text: &str) -> Vec<String> {
        let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false).unwrap();
        let mut text = PreTokenizedString::from(text);
        split.pre_tokenize(&mut text).unwrap();
        let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words.into_iter().map(|(word, _, _)| word.to_owned()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn words_are_those_of_hugging_face(text in r"([ \t\n\r\u{a0}\u{85}\u{3000}]{0,3}([a-zA-Zé语ſ]{0,4}|'(s|RE|ll)|[0-9²]{1,3}|[.,<|>_#/'-]{1,3}|\PC)){0,12}[ \n\t]{0,3}") {
            let words: Vec<String> = Splitter::new().words(&text).map(str::to_owned).collect();
            prop_assert_eq!(words, by_hugging_face(&text));
        }
    }
}
