//! The split into words, the unit of the Gopher rules.
//!
//! datatrove asks spaCy (English) or jieba (Chinese). Kept here, in one pass, is what its rules depend on:
//! * white space separates; marks at the beginning and the end of what is between are words of their own, a run of the same mark
//!   is one (`...`, `**`). Not cut off: `- / \\ | @ ^ ~ +`, and a single `.` at the beginning (`--flag`, `/usr`, `.md`);
//! * inside, `- – — ~` between letters and `: < > = /` before a letter separate and are words (`well-known` is three), a comma
//!   between letters and a `.` between a small and a capital letter too; everything else stays (`don't`, `3.14`, `a.b`, `x::y`);
//! * what holds `://` stays whole;
//! * scripts written without spaces give one word per character.
//!
//! Where spaCy differs: it cuts `don't` into `do` and `n't`, `man's` into `man` and `'s`, and knows abbreviations and units.

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

/// The first byte of a character beyond ASCII, or one inside of it.
const BEYOND: u8 = 4;

static CLASSES: [u8; 256] = byte_classes();

const fn byte_classes() -> [u8; 256] {
    let mut table = [BEYOND; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = match c {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
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
        if class == SPACE {
            at += width;
        } else if is_single(width, c) {
            found.push(Word { text: &text[at..at + width], chars: 1, has_letter: c.is_alphabetic(), is_symbol: false });
            at += width;
        } else {
            at = push_stretch(text, at, &mut found);
        }
    }
    found
}

/// Is `c` a word by itself, being of a script without spaces?
#[inline]
fn is_single(width: usize, c: char) -> bool {
    width > 1 && is_unspaced(c)
}

/// Class, width in bytes and character at `at`; `None` at the end.
#[inline]
fn class_at(text: &str, at: usize) -> Option<(u8, usize, char)> {
    let byte = *text.as_bytes().get(at)?;
    if byte < 128 {
        return Some((CLASSES[usize::from(byte)], 1, char::from(byte)));
    }
    let c = text[at..].chars().next().expect("a character starts at a UTF-8 boundary");
    Some((class_of(c), c.len_utf8(), c))
}

fn class_of(c: char) -> u8 {
    match c {
        '\0'..='\x7f' => CLASSES[c as usize],
        _ if c.is_alphabetic() || is_mark(c) => LETTER,
        _ if c.is_numeric() => DIGIT,
        _ if c.is_whitespace() || c.is_control() => SPACE,
        _ => OTHER,
    }
}

/// Combining marks that are not alphabetic continue a word (vowel signs, accents, variation selectors, joiners).
fn is_mark(c: char) -> bool {
    matches!(u32::from(c), 0x200C | 0x200D | 0xFE00..=0xFE0F) || unicode_normalization::char::is_combining_mark(c)
}

/// Splits what is between two spaces (or characters that are words by themselves); returns its end.
#[inline]
fn push_stretch<'a>(text: &'a str, start: usize, found: &mut Vec<Word<'a>>) -> usize {
    let (mut at, mut has_letter, mut plain) = (start, false, true);
    let class_of_byte = |at: usize| text.as_bytes().get(at).map_or(SPACE, |byte| CLASSES[usize::from(*byte)]);
    loop {
        let class = class_of_byte(at);
        if class == SPACE || class == BEYOND {
            break;
        }
        has_letter |= class == LETTER;
        plain &= class != OTHER;
        at += 1;
    }
    let mut chars = (at - start) as u32;
    while let Some((class, width, c)) = class_at(text, at) {
        if class == SPACE || is_single(width, c) {
            break;
        }
        has_letter |= class == LETTER;
        plain &= class != OTHER;
        at += width;
        chars += 1;
    }
    let stretch = &text[start..at];
    if plain {
        found.push(Word { text: stretch, chars, has_letter, is_symbol: false });
    } else {
        push_with_marks(stretch, found);
    }
    at
}

/// Cuts marks off both ends and splits the rest.
fn push_with_marks<'a>(stretch: &'a str, found: &mut Vec<Word<'a>>) {
    let is_mark_at_start =
        |c: char| (class_of(c) == OTHER || c == '_') && !matches!(c, '-' | '/' | '\\' | '|' | '@' | '^' | '~' | '+');
    let mut core = stretch.trim_start_matches(is_mark_at_start);
    let head = &stretch[..stretch.len() - core.len()];
    // A single dot at the beginning belongs to the word (`.md`), several do not.
    let lone_dot = head.ends_with('.') && !head.ends_with("..") && core.starts_with(|c| class_of(c) != OTHER);
    let head = if lone_dot { &head[..head.len() - 1] } else { head };
    core = &stretch[head.len()..];
    let inner = core.trim_end_matches(is_mark_at_start);
    let tail = &core[inner.len()..];
    push_runs(head, found);
    if !inner.is_empty() {
        if inner.as_bytes().windows(3).any(|bytes| bytes == b"://") {
            push_whole(inner, found)
        } else {
            push_inner(inner, found)
        }
    }
    push_runs(tail, found);
}

/// One word per run of the same mark.
fn push_runs<'a>(mut marks: &'a str, found: &mut Vec<Word<'a>>) {
    while let Some(c) = marks.chars().next() {
        let rest = marks.trim_start_matches(c);
        push_whole(&marks[..marks.len() - rest.len()], found);
        marks = rest;
    }
}

/// Splits at marks that separate words inside of a stretch.
fn push_inner<'a>(inner: &'a str, found: &mut Vec<Word<'a>>) {
    let (mut start, mut before) = (0, ' ');
    for (at, c) in inner.char_indices() {
        let after = || inner[at + c.len_utf8()..].chars().next().unwrap_or(' ');
        let separates = match c {
            '-' | '–' | '—' | '~' | ',' => before.is_alphabetic() && after().is_alphabetic(),
            ':' | '<' | '>' | '=' | '/' => before.is_alphanumeric() && after().is_alphabetic(),
            '.' => before.is_lowercase() && after().is_uppercase(),
            _ => false,
        };
        if separates {
            let end = at + c.len_utf8();
            push_whole(&inner[start..at], found);
            push_whole(&inner[at..end], found);
            start = end;
        }
        before = c;
    }
    push_whole(&inner[start..], found);
}

fn push_whole<'a>(text: &'a str, found: &mut Vec<Word<'a>>) {
    let mut word = Word { text, chars: 0, has_letter: false, is_symbol: true };
    for c in text.chars() {
        word.chars += 1;
        word.has_letter |= class_of(c) == LETTER;
        word.is_symbol &= is_punctuation(c);
    }
    found.push(word);
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
    fn marks_at_the_ends_are_words_and_most_marks_inside_are_not() {
        assert_eq!(
            split("Don’t pay 3.14, 1,000 or v1.2..."),
            ["Don’t", "pay", "3.14", ",", "1,000", "or", "v1.2", "..."]
        );
        assert_eq!(
            split("(\"quoted,\" a.b); **x**"),
            ["(", "\"", "quoted", ",", "\"", "a.b", ")", ";", "**", "x", "**"]
        );
        assert_eq!(
            split("well-known a/b end.Next key=value x::y"),
            ["well", "-", "known", "a", "/", "b", "end", ".", "Next", "key", "=", "value", "x::y"]
        );
        assert_eq!(
            split("--flag /usr .md ..x |---| #tag _it_"),
            ["--flag", "/usr", ".md", "..", "x", "|---|", "#", "tag", "_", "it", "_"]
        );
        assert_eq!(split("see (https://a.b/c?d=e)."), ["see", "(", "https://a.b/c?d=e", ")", "."]);
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
