//! FineWeb-2's thresholds and stop words by language (Penedo et al. 2025), compiled in from `fineweb2.tsv`.
//!
//! The file says which revision it is of and what made it: `xtask/peers/data/fineweb2_table.py`.

use std::{collections::HashMap, sync::LazyLock};

/// The rules of one language.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageTable {
    /// FineWeb-2's name of language and script: `deu_Latn`.
    pub subset: &'static str,
    /// Least score of the language identifier (GlotLID).
    pub language_score: f64,
    /// Least mean length of words, characters.
    pub min_mean_word_length: f64,
    /// Largest mean length of words, characters.
    pub max_mean_word_length: f64,
    /// Least share of words with a letter.
    pub min_letter_words: f64,
    /// Largest share of lines that repeat an earlier one.
    pub duplicate_lines: f64,
    /// Least share of lines that end with a terminal mark.
    pub min_terminal_lines: f64,
    /// Most line ends per word.
    pub max_line_ends: f64,
    /// Largest share of characters in the most frequent 2-, 3- and 4-gram.
    pub top_ngram_chars: [f64; 3],
    /// Largest share of characters in repeated 5- to 10-grams.
    pub duplicate_ngram_chars: [f64; 6],
    /// The most frequent words.
    pub stop_words: Vec<&'static str>,
}

static TABLES: LazyLock<HashMap<&'static str, LanguageTable>> = LazyLock::new(|| {
    let lines = include_str!("fineweb2.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.map(parse).collect()
});

impl LanguageTable {
    /// The table of a language, by its ISO 639-1 code. None for English, which has the rules of FineWeb.
    pub fn of(lang: &str) -> Option<&'static Self> {
        TABLES.get(if lang == "no" { "nb" } else { lang })
    }

    /// Codes of all languages with a table, and `no`, which has the one of `nb`.
    pub fn languages() -> impl Iterator<Item = &'static str> {
        TABLES.keys().copied().chain(["no"])
    }
}

fn parse(line: &'static str) -> (&'static str, LanguageTable) {
    let cells: Vec<&str> = line.split('\t').collect();
    let number = |cell: &str| cell.parse::<f64>().expect("a number of the table");
    let numbers = |cell: &str| cell.split(' ').map(number).collect::<Vec<_>>();
    let table = LanguageTable {
        subset: cells[1],
        language_score: number(cells[2]),
        min_mean_word_length: number(cells[3]),
        max_mean_word_length: number(cells[4]),
        min_letter_words: number(cells[5]),
        duplicate_lines: number(cells[6]),
        min_terminal_lines: number(cells[7]),
        max_line_ends: number(cells[8]),
        top_ngram_chars: numbers(cells[9]).try_into().expect("three shares"),
        duplicate_ngram_chars: numbers(cells[10]).try_into().expect("six shares"),
        stop_words: cells[11].split(' ').collect(),
    };
    (cells[0], table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_of_the_table_is_whole_and_english_has_none() {
        assert!(TABLES.len() > 150 && LanguageTable::of("en").is_none());
        assert!(TABLES.values().all(|table| table.stop_words.len() > 1 && table.max_mean_word_length > 1.0));
        let zh = LanguageTable::of("zh").expect("Chinese");
        assert_eq!((zh.subset, zh.duplicate_ngram_chars[5], zh.stop_words.len()), ("cmn_Hani", 0.127, 22));
        assert_eq!(LanguageTable::of("no").map(|table| table.subset), Some("nob_Latn"));
    }
}
