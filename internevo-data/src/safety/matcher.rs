//! Counts the entries of a word list in a text, in one pass whatever the length of the list.

use aho_corasick::{AhoCorasick, BuildError, MatchKind};

use crate::dedup::is_unspaced;

/// A compiled word list. ASCII case does not matter.
#[derive(Debug)]
pub struct WordMatcher {
    automaton: AhoCorasick,
    /// Per entry: must it stand alone? False for scripts written without spaces (C4's rule for Chinese, Japanese and
    /// Thai).
    flanked: Vec<bool>,
}

impl WordMatcher {
    /// Compiles a list.
    ///
    /// # Errors
    /// When the list is too large for the automaton (hundreds of megabytes).
    pub fn new(words: &[String]) -> Result<Self, BuildError> {
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            // Of entries that begin at the same place the longest counts, and none is counted inside another.
            .match_kind(MatchKind::LeftmostLongest)
            .build(words)?;
        let flanked = words.iter().map(|word| !word.chars().any(is_unspaced)).collect();
        Ok(Self { automaton, flanked })
    }

    /// Indices of the entries found, in the order of the text. An entry of letters counts only where no letter or digit
    /// touches it.
    pub fn matches<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.automaton.find_iter(text).filter_map(move |found| {
            let entry = found.pattern().as_usize();
            let alone = || {
                let before = text[..found.start()].chars().next_back();
                let after = text[found.end()..].chars().next();
                !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
            };
            (!self.flanked[entry] || alone()).then_some(entry)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[&str], text: &str) -> Vec<usize> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        WordMatcher::new(&words).expect("a short list").matches(text).collect()
    }

    #[test]
    fn a_latin_word_counts_alone_and_not_inside_another() {
        assert_eq!(found(&["sex", "casino"], "Sussex and Essex; SEX, casino! casinos éscasino"), [0, 1]);
    }

    #[test]
    fn a_chinese_word_counts_inside_a_sentence() {
        assert_eq!(found(&["赌博"], "禁止网上赌博活动"), [0]);
    }

    #[test]
    fn the_longest_of_two_entries_counts() {
        assert_eq!(found(&["casino", "casino bonus"], "a casino bonus today"), [1]);
    }
}
