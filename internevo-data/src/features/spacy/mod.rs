//! spaCy's rule tokenizer, the split into words that datatrove's filters are defined on.
//!
//! White space separates. What is between is looked up among the special cases (`don't` is `do`, `n't`); if it is none, one prefix
//! and one suffix at a time are cut off, with a look-up after each cut; what remains is one word if it is a URL, else it is split at
//! infixes (`well-known`). In the end, special cases that the cuts tore apart (`:)`) are put together again. Rules of spaCy 3.8's
//! blank pipelines `en` and `xx`.
//!
//! | file | holds |
//! |---|---|
//! | `affixes.rs` | prefixes, suffixes, infixes |
//! | `special.rs` | special cases, and the search for torn ones |
//! | `url.rs` | what counts as a URL |
//! | `*.tsv` | spaCy's tables; made by `xtask/peers/data/spacy_tables.py` |
//!
//! Not here: languages for which datatrove asks another tokenizer (`words.rs`).

mod affixes;
mod special;
mod url;

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

use self::{
    affixes::{infixes, prefix_length, suffix_length},
    special::SpecialCases,
};
use super::{
    classes::{Class, Classes},
    word::Word,
};

/// Which special cases and infixes apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Contractions, abbreviations, times of day; hyphens after digits.
    English,
    /// Emoticons and initials.
    Neutral,
}

/// The rules of one dialect, ready to be used.
struct Rules {
    dialect: Dialect,
    special: SpecialCases,
}

static ENGLISH: LazyLock<Rules> = LazyLock::new(|| Rules::new(Dialect::English));
static NEUTRAL: LazyLock<Rules> = LazyLock::new(|| Rules::new(Dialect::Neutral));

/// The words of `text`.
pub(super) fn tokenize(text: &str, dialect: Dialect) -> Vec<Word<'_>> {
    let mut words = Vec::with_capacity(text.len() / 5 + 4);
    push_words(text, dialect, &mut words);
    words
}

/// Appends the words of `text`.
pub(super) fn push_words<'a>(text: &'a str, dialect: Dialect, words: &mut Vec<Word<'a>>) {
    let rules: &Rules = match dialect {
        Dialect::English => &ENGLISH,
        Dialect::Neutral => &NEUTRAL,
    };
    let (first, mut torn) = (words.len(), false);
    stretches(text, |stretch, kind| match kind {
        Kind::Letters | Kind::Digits => rules.push_plain(stretch, kind == Kind::Letters, words),
        Kind::Sentence => rules.push_with_mark(stretch, words),
        Kind::Other => {
            let first = words.len();
            rules.push_general(stretch, words);
            torn |= rules.special.tears(&words[first..]);
        }
    });
    if torn {
        rules.special.mend(text, words, first);
    }
}

/// What a stretch between white space is made of. All but the last are short cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ASCII letters.
    Letters,
    /// ASCII digits.
    Digits,
    /// ASCII letters, the last of them small, and one of the marks `. , ; : ! ? )`.
    Sentence,
    Other,
}

/// What an ASCII byte is for [`stretches`].
const LETTER: u8 = 1;
const SMALL: u8 = 2;
const DIGIT: u8 = 4;
const MARK: u8 = 8;
const SPACE: u8 = 16;
const REST: u8 = 32;

static BYTES: [u8; 256] = byte_table();

const fn byte_table() -> [u8; 256] {
    let mut table = [REST; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' => LETTER | SMALL,
            b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            b'.' | b',' | b';' | b':' | b'!' | b'?' | b')' => MARK,
            0x09..=0x0d | 0x1c..=b' ' => SPACE,
            _ => REST,
        };
        byte += 1;
    }
    table
}

/// Calls `found` with every stretch of `text` that white space separates.
#[inline]
fn stretches<'a>(text: &'a str, mut found: impl FnMut(&'a str, Kind)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let (start, mut seen, mut last) = (at, 0, 0);
        while at < bytes.len() {
            let kind = BYTES[usize::from(bytes[at])];
            if kind & SPACE != 0 {
                break;
            }
            if bytes[at] >= 0x80 {
                let c = text[at..].chars().next().expect("a character starts at a UTF-8 boundary");
                if Classes::get().of(c).has(Class::SPACE) {
                    break;
                }
                at += c.len_utf8() - 1;
            }
            seen |= last;
            last = kind;
            at += 1;
        }
        if at > start {
            let stretch = &text[start..at];
            found(stretch, kind_of(stretch, seen, last));
        }
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
}

/// `seen` of all bytes but the last, `last` of that.
fn kind_of(stretch: &str, seen: u8, last: u8) -> Kind {
    match seen | last {
        all if all & !(LETTER | SMALL) == 0 => Kind::Letters,
        DIGIT => Kind::Digits,
        _ if last == MARK && seen & !(LETTER | SMALL) == 0 => {
            let before = stretch.as_bytes().get(stretch.len().wrapping_sub(2));
            if before.is_some_and(u8::is_ascii_lowercase) { Kind::Sentence } else { Kind::Other }
        }
        _ => Kind::Other,
    }
}

impl Rules {
    fn new(dialect: Dialect) -> Self {
        let empty = Self { dialect, special: SpecialCases::default() };
        let split = |text: &'static str| {
            let mut words = Vec::new();
            empty.push_general(text, &mut words);
            words.iter().map(|word| word.hash).collect()
        };
        Self { dialect, special: SpecialCases::load(dialect, split) }
    }

    fn push_plain<'a>(&self, text: &'a str, has_letter: bool, words: &mut Vec<Word<'a>>) {
        let hash = xxh3_64(text.as_bytes());
        match self.special.find(text, hash) {
            Some(case) => case.push(text, words),
            None => words.push(Word::plain(text, hash, has_letter)),
        }
    }

    /// Letters and a mark: unless a special case (`etc.`), two words.
    fn push_with_mark<'a>(&self, text: &'a str, words: &mut Vec<Word<'a>>) {
        if let Some(case) = self.special.find(text, xxh3_64(text.as_bytes())) {
            return case.push(text, words);
        }
        let (letters, mark) = text.split_at(text.len() - 1);
        self.push_plain(letters, true, words);
        words.push(Word::new(mark));
    }

    fn push_general<'a>(&self, stretch: &'a str, words: &mut Vec<Word<'a>>) {
        let (mut from, mut to) = (0, stretch.len());
        let mut suffixes: Vec<&str> = Vec::new();
        let is_special = |text: &str| self.special.find_text(text).is_some();
        while from < to && !is_special(&stretch[from..to]) {
            let core = &stretch[from..to];
            let prefix = prefix_length(core);
            if prefix > 0 && is_special(&core[prefix..]) {
                words.push(Word::new(&core[..prefix]));
                from += prefix;
                break;
            }
            let suffix = suffix_length(&core[prefix..]);
            let before_suffix = core.len() - suffix;
            if suffix > 0 && is_special(&core[..before_suffix]) {
                suffixes.push(&core[before_suffix..]);
                to -= suffix;
                break;
            }
            if prefix + suffix == 0 {
                break;
            }
            if prefix > 0 {
                words.push(Word::new(&core[..prefix]));
            }
            if suffix > 0 {
                suffixes.push(&core[before_suffix..]);
            }
            from += prefix;
            to -= suffix;
        }
        self.push_core(&stretch[from..to], words);
        words.extend(suffixes.into_iter().rev().map(Word::new));
    }

    fn push_core<'a>(&self, core: &'a str, words: &mut Vec<Word<'a>>) {
        if core.is_empty() {
            return;
        }
        if let Some(case) = self.special.find_text(core) {
            return case.push(core, words);
        }
        // Neither a URL nor an infix is made of these alone.
        if core.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return words.push(Word::new(core));
        }
        if url::is_url(core) {
            return words.push(Word::new(core));
        }
        let mut start = 0;
        for (from, to) in infixes(core, self.dialect).filter(|(from, _)| *from > 0) {
            if from > start {
                words.push(Word::new(&core[start..from]));
            }
            words.push(Word::new(&core[from..to]));
            start = to;
        }
        if start < core.len() {
            words.push(Word::new(&core[start..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        tokenize(text, Dialect::English).iter().map(|word| word.text).collect()
    }

    /// By spaCy 3.8.18, `spacy.blank("en")`.
    #[test]
    fn words_are_split_as_spacy_splits_them() {
        for (text, words) in [
            ("Don't pay 3.14, 1,000 or v1.2...", "Do|n't|pay|3.14|,|1,000|or|v1.2|..."),
            ("(\"quoted,\" a.b); **x**", "(|\"|quoted|,|\"|a.b|)|;|*|*|x|*|*"),
            ("well-known a/b end.Next key=value x::y", "well|-|known|a|/|b|end|.|Next|key|=|value|x::y"),
            ("see (https://a.org/c?d=e). U.S. e.g. 10km 5pm", "see|(|https://a.org/c?d=e|)|.|U.S.|e.g.|10|km|5|pm"),
            ("smile:) ok", "smile|:)|ok"),
        ] {
            assert_eq!(split(text).join("|"), words);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_visible_character_is_lost_and_none_counted_twice(text in "([ a-zA-Z0-9.,:;'\"()*/-]|\\PC){0,60}") {
            for dialect in [Dialect::English, Dialect::Neutral] {
                let joined: String = tokenize(&text, dialect).iter().map(|word| word.text).collect();
                let is_space = |c: &char| Classes::get().of(*c).has(Class::SPACE);
                let visible: String = text.chars().filter(|c| !is_space(c)).collect();
                proptest::prop_assert_eq!(joined, visible);
            }
        }
    }
}
