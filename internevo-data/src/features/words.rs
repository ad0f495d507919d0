//! The split into words, the unit of the Gopher rules.
//!
//! datatrove asks spaCy (English) or jieba (Chinese); what its rules need of them is kept here, at the speed of one pass:
//! * a run of letters, digits, combining marks and `_` is a word; an apostrophe between letters and a `.` or `,` between digits
//!   belong to it (`don't`, `3.14`);
//! * scripts written without spaces give one word per character;
//! * any other visible character is a word of its own, and a run of the same one is one word (`...`, `----`).
//!
//! Where spaCy differs: it cuts `don't` into `do` and `n't`, and keeps some abbreviations and URLs whole.

use crate::dedup::is_unspaced;

/// A word or a run of punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// As it stands in the text.
    pub text: &'a str,
    /// Its length in characters.
    pub chars: u32,
    /// Has it a letter?
    pub has_letter: bool,
    /// Is every character punctuation?
    pub is_symbol: bool,
}

/// ASCII classes: what a word is made of.
const OTHER: u8 = 0;
const SPACE: u8 = 1;
const DIGIT: u8 = 2;
const LETTER: u8 = 3;
const UNDERSCORE: u8 = 4;

static ASCII: [u8; 128] = ascii_classes();

const fn ascii_classes() -> [u8; 128] {
    let mut table = [OTHER; 128];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = match c {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            b'_' => UNDERSCORE,
            0..=b' ' | 0x7f => SPACE,
            _ => OTHER,
        };
        byte += 1;
    }
    table
}

/// Splits `text` by the rules above.
pub fn words(text: &str) -> Vec<Word<'_>> {
    let mut found = Vec::with_capacity(text.len() / 5);
    let mut at = 0;
    while let Some((class, width, c)) = class_at(text, at) {
        match class {
            SPACE => at += width,
            OTHER => at = push_symbol(text, at, c, &mut found),
            _ if width > 1 && is_unspaced(c) => {
                let has_letter = c.is_alphabetic();
                found.push(Word { text: &text[at..at + width], chars: 1, has_letter, is_symbol: false });
                at += width;
            }
            _ => at = push_word(text, at, &mut found),
        }
    }
    found
}

/// Class, width in bytes and character at `at`; `None` at the end.
#[inline]
fn class_at(text: &str, at: usize) -> Option<(u8, usize, char)> {
    let byte = *text.as_bytes().get(at)?;
    if byte < 128 {
        return Some((ASCII[usize::from(byte)], 1, char::from(byte)));
    }
    let c = text[at..].chars().next().expect("a character starts at a UTF-8 boundary");
    let class = if c.is_alphabetic() || is_mark(c) {
        LETTER
    } else if c.is_numeric() {
        DIGIT
    } else if c.is_whitespace() || c.is_control() {
        SPACE
    } else {
        OTHER
    };
    Some((class, c.len_utf8(), c))
}

/// Combining marks that are not alphabetic continue a word (vowel signs, accents, variation selectors, joiners).
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x200C | 0x200D | 0xFE00..=0xFE0F) || unicode_normalization::char::is_combining_mark(c)
}

#[inline]
fn push_word<'a>(text: &'a str, start: usize, found: &mut Vec<Word<'a>>) -> usize {
    let (mut at, mut chars) = (start, 0);
    let (mut has_letter, mut only_underscores, mut last) = (false, true, OTHER);
    while let Some((class, width, c)) = class_at(text, at) {
        match class {
            LETTER if width > 1 && is_unspaced(c) => break,
            LETTER | DIGIT | UNDERSCORE => {
                has_letter |= class == LETTER;
                only_underscores &= class == UNDERSCORE;
                last = class;
            }
            OTHER if !joins(text, at, width, c, last) => break,
            OTHER => {}
            _ => break,
        }
        at += width;
        chars += 1;
    }
    found.push(Word { text: &text[start..at], chars, has_letter, is_symbol: only_underscores });
    at
}

/// Does `c`, after a character of class `last`, continue the word?
fn joins(text: &str, at: usize, width: usize, c: char, last: u8) -> bool {
    let wanted = match c {
        '\'' | '\u{2019}' => LETTER,
        '.' | ',' => DIGIT,
        _ => return false,
    };
    last == wanted
        && matches!(class_at(text, at + width), Some((class, w, c)) if class == wanted && !(w > 1 && is_unspaced(c)))
}

fn push_symbol<'a>(text: &'a str, start: usize, c: char, found: &mut Vec<Word<'a>>) -> usize {
    let chars = text[start..].chars().take_while(|next| *next == c).count();
    let end = start + chars * c.len_utf8();
    found.push(Word { text: &text[start..end], chars: chars as u32, has_letter: false, is_symbol: is_punctuation(c) });
    end
}

/// datatrove's punctuation set: what a "symbol word" may consist of. Emoji, arrows and `€` are not in it.
pub fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
        || c.is_control()
        || "—”:％１〈&(、━\\【#%「」，】；+^]~“《„’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        words(text).iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_numbers_and_runs_of_punctuation_are_told_apart() {
        assert_eq!(
            split("Don’t pay 3.14, 1,000 or v1.2..."),
            ["Don’t", "pay", "3.14", ",", "1,000", "or", "v1.2", "..."]
        );
        assert_eq!(
            split("end.Next 'quoted' a-b foo_bar"),
            ["end", ".", "Next", "'", "quoted", "'", "a", "-", "b", "foo_bar"]
        );
        assert_eq!(split(" \t\n\u{a0}"), [""; 0]);
    }

    #[test]
    fn unspaced_scripts_give_one_word_per_character() {
        assert_eq!(split("我用Rust写，かな 한국어"), ["我", "用", "Rust", "写", "，", "か", "な", "한국어"]);
    }

    #[test]
    fn a_word_knows_its_length_and_kind() {
        let found = words("naïve __ 42 → ——");
        let facts: Vec<_> = found.iter().map(|w| (w.chars, w.has_letter, w.is_symbol)).collect();
        assert_eq!(facts, [(5, true, false), (2, false, true), (2, false, false), (1, false, false), (2, false, true)]);
    }

    proptest::proptest! {
        #[test]
        fn no_visible_character_is_lost_and_none_counted_twice(text in "\\PC{0,60}") {
            let joined: String = words(&text).iter().map(|word| word.text).collect();
            let visible: String = text.chars().filter(|c| !(c.is_whitespace() || c.is_control())).collect();
            proptest::prop_assert_eq!(joined, visible);
            for word in words(&text) {
                proptest::prop_assert_eq!(word.chars as usize, word.text.chars().count());
                proptest::prop_assert_eq!(word.has_letter, word.text.chars().any(|c| c.is_alphabetic() || is_mark(c)));
            }
        }
    }
}
