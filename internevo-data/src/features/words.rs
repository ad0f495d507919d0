//! The split into words, the unit of most rules: by language, as datatrove chooses its tokenizers.

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    classes::{Class, Classes},
    repeats::Repeats,
    spacy::{self, Dialect},
    word::Word,
};
use crate::dedup::is_unspaced;

/// How a text is cut into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// spaCy's English rules, apostrophes and abbreviations included. Text of unknown language counts as English, as in datatrove.
    English,
    /// spaCy's language-neutral rules, for other languages with spaces between words.
    Neutral,
    /// jieba's segmentation where the feature `jieba` is on, else as [`Split::Characters`].
    Chinese,
    /// One word per character of scripts without spaces; what is between them by the neutral rules.
    Characters,
    /// What white space separates (Python's `str.split`).
    Spaces,
    /// Unicode's words (UAX 29): no punctuation.
    Unicode,
}

impl Split {
    /// How many there are.
    pub(super) const COUNT: usize = 6;

    /// The split for a language code; `None` is text of unknown language.
    pub fn of(lang: Option<&str>) -> Self {
        match lang {
            None | Some("en") => Self::English,
            Some("zh") => Self::Chinese,
            Some("ja" | "th" | "lo" | "my" | "km") => Self::Characters,
            Some(_) => Self::Neutral,
        }
    }
}

/// Splits `text`.
pub fn words(text: &str, split: Split) -> Vec<Word<'_>> {
    match split {
        Split::English => spacy::tokenize(text, Dialect::English),
        Split::Neutral => spacy::tokenize(text, Dialect::Neutral),
        Split::Chinese => chinese(text),
        Split::Characters => characters(text),
        Split::Spaces => spaced(text).map(Word::new).collect(),
        Split::Unicode => text.unicode_words().map(Word::new).collect(),
    }
}

fn spaced(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| Classes::get().of(c).has(Class::SPACE)).filter(|word| !word.is_empty())
}

/// The words of a text in lower case and NFD, without ASCII punctuation, as RedPajama has them.
pub struct FoldedWords {
    /// xxh3 of each word, in order.
    pub hashes: Vec<u64>,
    /// Their lengths, characters.
    pub lengths: Vec<u32>,
    /// Their repeated n-grams.
    pub repeats: Repeats,
}

impl FoldedWords {
    /// Folds and splits `text`.
    pub fn of(text: &str) -> Self {
        let plain: String = text.chars().filter(|c| !c.is_ascii_punctuation()).collect();
        let folded: String = plain.to_lowercase().nfd().collect();
        let (mut hashes, mut lengths) = (Vec::new(), Vec::new());
        for word in spaced(&folded) {
            hashes.push(xxh3_64(word.as_bytes()));
            lengths.push(word.chars().count() as u32);
        }
        let repeats = Repeats::find(hashes.iter().copied());
        Self { hashes, lengths, repeats }
    }
}

#[cfg(not(feature = "jieba"))]
fn chinese(text: &str) -> Vec<Word<'_>> {
    characters(text)
}

/// jieba with its hidden Markov model for words that its dictionary lacks, as spaCy calls it. jieba itself cuts names like
/// `into_iter` at their marks, jieba-rs does not.
#[cfg(feature = "jieba")]
fn chinese(text: &str) -> Vec<Word<'_>> {
    use std::sync::LazyLock;

    static JIEBA: LazyLock<jieba_rs::Jieba> = LazyLock::new(jieba_rs::Jieba::new);
    static LATIN: LazyLock<regex::Regex> = LazyLock::new(|| {
        regex::Regex::new(r"[a-zA-Z0-9]+(?:\.[0-9]+)?%?|[^a-zA-Z0-9]+").expect("the pattern is constant")
    });
    let mut found = Vec::with_capacity(text.len() / 4);
    for token in JIEBA.cut(text, true) {
        let word = token.word.trim_matches(|c| Classes::get().of(c).has(Class::SPACE));
        let is_name =
            word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+#&._%-".contains(&byte));
        if is_name && !JIEBA.has_word(word) {
            found.extend(LATIN.find_iter(word).map(|part| Word::new(part.as_str())));
        } else if !word.is_empty() {
            found.push(Word::new(word));
        }
    }
    found
}

fn characters(text: &str) -> Vec<Word<'_>> {
    let (mut found, mut start) = (Vec::with_capacity(text.len() / 3), 0);
    let push_between = |from: usize, to: usize, found: &mut Vec<_>| {
        if from < to {
            spacy::push_words(&text[from..to], Dialect::Neutral, found);
        }
    };
    for (at, c) in text.char_indices().filter(|(_, c)| is_unspaced(*c)) {
        let end = at + c.len_utf8();
        push_between(start, at, &mut found);
        found.push(Word::new(&text[at..end]));
        start = end;
    }
    push_between(start, text.len(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspaced_scripts_give_one_word_per_character() {
        let found = words("我用Rust写，かな 한국어", Split::Characters);
        let texts: Vec<&str> = found.iter().map(|word| word.text).collect();
        assert_eq!(texts, ["我", "用", "Rust", "写", "，", "か", "な", "한국어"]);
    }

    #[cfg(feature = "jieba")]
    #[test]
    fn chinese_words_are_jiebas() {
        let found = words("我来到北京清华大学。 使用Rust语言", Split::Chinese);
        let texts: Vec<&str> = found.iter().map(|word| word.text).collect();
        assert_eq!(texts, ["我", "来到", "北京", "清华大学", "。", "使用", "Rust", "语言"]);
    }

    #[test]
    fn a_word_knows_its_length_and_kind() {
        let found = words("naïve __ 42 → ——", Split::English);
        let facts: Vec<_> = found.iter().map(|w| (w.chars, w.has_letter, w.is_symbol)).collect();
        let mark = (1, false, true);
        assert_eq!(facts, [(5, true, false), mark, mark, (2, false, false), (1, false, false), mark, mark]);
    }
}
