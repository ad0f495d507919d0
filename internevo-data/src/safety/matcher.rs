//! Finds the entries of a word list in a text, in one pass whatever the length of the list.

use aho_corasick::{AhoCorasick, BuildError};

use crate::{dedup::is_unspaced, features::fold::fold};

/// A compiled list of phrases. Case and width do not matter.
#[derive(Debug)]
pub struct WordMatcher {
    automaton: AhoCorasick,
}

/// An entry in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordMatch {
    /// Its number in the list.
    pub entry: usize,
    /// Its first byte in the folded text.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

/// A text as [`WordMatcher`] compares it: lower case, half width, every white space a space, without invisible characters.
pub fn folded(text: &str) -> String {
    let is_invisible = |c: char| matches!(c, '\u{AD}' | '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}');
    let visible = text.chars().filter(|c| !is_invisible(*c)).map(fold);
    visible.map(|c| if c.is_whitespace() { ' ' } else { c }).collect()
}

impl WordMatcher {
    /// Compiles a list.
    ///
    /// # Errors
    /// When the list is too large for the automaton (hundreds of megabytes).
    pub fn new<'a>(phrases: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        Ok(Self { automaton: AhoCorasick::new(phrases.into_iter().map(folded))? })
    }

    /// The entries in a text that [`folded`] gave, in order. Of entries that begin at one place the longest counts, of equal ones the
    /// first of the list, and none within another.
    ///
    /// Letters and digits at the ends of an entry must not continue outside it, except in scripts without spaces (C4's rule for
    /// Chinese, Japanese and Thai): `sex` is not in `Sussex`, but in `看sex片`.
    pub fn matches(&self, folded: &str) -> Vec<WordMatch> {
        let overlapping = self.automaton.find_overlapping_iter(folded);
        let mut found: Vec<WordMatch> = overlapping
            .map(|found| WordMatch { entry: found.pattern().as_usize(), start: found.start(), end: found.end() })
            .filter(|found| found.start < found.end && stands_alone(folded, found))
            .collect();
        found.sort_unstable_by_key(|found| (found.start, std::cmp::Reverse(found.end), found.entry));
        let mut end = 0;
        found.retain(|found| {
            let free = found.start >= end;
            end = if free { found.end } else { end };
            free
        });
        found
    }
}

fn stands_alone(text: &str, found: &WordMatch) -> bool {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !is_unspaced(c));
    let (before, inside, after) = (&text[..found.start], &text[found.start..found.end], &text[found.end..]);
    let joined = |left: &str, right: &str| in_word(left.chars().next_back()) && in_word(right.chars().next());
    !joined(before, inside) && !joined(inside, after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(phrases: &[&str], text: &str) -> Vec<usize> {
        let matcher = WordMatcher::new(phrases.iter().copied()).expect("a short list");
        matcher.matches(&folded(text)).into_iter().map(|found| found.entry).collect()
    }

    #[test]
    fn a_latin_word_counts_alone_and_not_inside_another() {
        let towns = "Sussex, Essex, Scunthorpe, Penistone, cocktail, assassin, class, Dickens, éscasino, casino2";
        assert_eq!(found(&["sex", "cunt", "penis", "cock", "ass", "dick", "casino"], towns), [0; 0]);
        assert_eq!(found(&["sex", "casino"], "SEX, casino! casinos"), [0, 1]);
        assert_eq!(found(&["c++"], "c++11 and xc++ and C++"), [0, 0]);
    }

    #[test]
    fn a_chinese_word_counts_inside_a_sentence_and_a_latin_one_between_chinese() {
        assert_eq!(found(&["赌博"], "禁止网上赌博活动"), [0]);
        assert_eq!(found(&["sex"], "看sex片"), [0]);
    }

    #[test]
    fn case_width_white_space_and_invisible_characters_do_not_matter() {
        assert_eq!(found(&["casino bonus"], "ＣＡＳＩＮＯ\u{3000}ＢＯＮＵＳ, ca\u{200B}sino\nbo\u{AD}nus"), [0, 0]);
    }

    #[test]
    fn the_longest_entry_counts_and_one_that_does_not_stand_alone_hides_none() {
        assert_eq!(found(&["casino", "casino bonus"], "a casino bonus today"), [1]);
        assert_eq!(found(&["casino", "casino bo"], "a casino bonus today"), [0]);
        assert_eq!(found(&["a", "a"], "a"), [0]);
    }
}
