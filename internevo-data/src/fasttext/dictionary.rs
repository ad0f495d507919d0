//! Words and labels of a fastText model, and which rows of its input matrix a text asks for.

use std::collections::HashMap;

use super::Settings;
use crate::{
    DataError,
    interner::Interner,
    model_file::{Cursor, word},
};

/// What labels begin with.
pub(super) const LABEL_PREFIX: &str = "__label__";
/// Stands at the end of every line, as a word of its own and without subwords.
const END_OF_LINE: &[u8] = b"</s>";
/// Marks the beginning and the end of a word when it is cut into subwords.
const WORD_BEGIN: u8 = b'<';
const WORD_END: u8 = b'>';
/// Multiplies the hash of a word n-gram before the next word's is added.
const NGRAM_FACTOR: u64 = 116_049_371;

/// A label of a classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name, `__label__` included.
    pub name: String,
    /// How often it occurred in the training.
    pub count: u64,
}

/// What became of the rows of n-grams.
#[derive(Debug)]
enum NgramRows {
    /// Bucket `b` is row `words + b`.
    All,
    /// Only these buckets have rows (a model quantised with a cut-off); empty: none has.
    Kept(HashMap<u32, u32>),
}

#[derive(Debug)]
pub(super) struct Dictionary {
    word_ngrams: usize,
    bucket: u32,
    subwords: [usize; 2],
    /// Words, then labels.
    entries: Interner,
    words: usize,
    labels: Vec<Label>,
    ngram_rows: NgramRows,
    /// Rows of every word, one after the other, and where each word's end.
    word_rows: Vec<u32>,
    word_row_ends: Vec<usize>,
}

impl Dictionary {
    pub fn read(file: &mut Cursor<'_>, settings: &Settings) -> Result<Self, DataError> {
        let mut count = |what| file.i32(what).map(i64::from);
        let (size, words, labels) = (count("the dictionary")?, count("the dictionary")?, count("the dictionary")?);
        let (_tokens, kept) = (file.i64("the dictionary")?, file.i64("the dictionary")?);
        let (size, words) = (file.count(size, "entries")?, file.count(words, "words")?);
        if file.count(labels, "labels")?.checked_add(words) != Some(size) || labels == 0 {
            return Err(file.fail(format!("{size} entries are not {words} words and {labels} labels")));
        }
        let mut dictionary = Self {
            word_ngrams: settings.word_ngrams,
            bucket: settings.bucket,
            subwords: settings.subwords,
            entries: Interner::new(|word| hash(word).into()),
            words,
            labels: Vec::new(),
            ngram_rows: NgramRows::All,
            word_rows: Vec::new(),
            word_row_ends: Vec::new(),
        };
        (0..size).try_for_each(|entry| dictionary.read_entry(file, entry < words))?;
        if kept >= 0 {
            dictionary.ngram_rows = NgramRows::Kept(read_kept(file, kept)?);
        }
        dictionary.fill_word_rows();
        Ok(dictionary)
    }

    fn read_entry(&mut self, file: &mut Cursor<'_>, is_word: bool) -> Result<(), DataError> {
        let name = file.until_zero("the dictionary")?;
        let (count, kind) = (file.i64("the dictionary")?, file.u8("the dictionary")?);
        if (kind == 0) != is_word {
            return Err(file.fail("words and labels are mixed"));
        }
        if self.entries.insert(name) as usize + 1 != self.entries.len() {
            return Err(file.fail(format!("`{}` is there twice", String::from_utf8_lossy(name))));
        }
        if !is_word {
            let name = String::from_utf8_lossy(name).into_owned();
            self.labels.push(Label { name, count: file.count(count, "occurrences of a label")? as u64 });
        }
        Ok(())
    }

    fn fill_word_rows(&mut self) {
        let mut rows = Vec::new();
        for word in 0..self.words as u32 {
            rows.push(word);
            if self.entries.word(word) != END_OF_LINE {
                self.push_subwords(self.entries.word(word), &mut rows);
            }
            self.word_row_ends.push(rows.len());
        }
        self.word_rows = rows;
    }

    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Rows that the input matrix must have.
    pub fn rows_needed(&self) -> usize {
        let ngrams = match &self.ngram_rows {
            NgramRows::All if self.subwords[1] > 0 || self.word_ngrams > 1 => self.bucket as usize,
            NgramRows::All => 0,
            NgramRows::Kept(kept) => kept.values().max().map_or(0, |row| *row as usize + 1),
        };
        self.words + ngrams
    }

    /// The rows of `text` as one line, repetitions included. Labels in the text count for nothing.
    pub fn rows(&self, text: &str) -> Vec<u32> {
        let (mut rows, mut hashes) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len() / 4));
        let words =
            text.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'..=b'\r' | 0)).filter(|word| !word.is_empty());
        for word in words.chain([END_OF_LINE]) {
            let hash = hash(word);
            match self.entries.find_hashed(word, hash.into()) {
                Some(entry) if entry as usize >= self.words => continue,
                Some(entry) => rows.extend_from_slice(self.rows_of_word(entry as usize)),
                None if word.starts_with(LABEL_PREFIX.as_bytes()) => continue,
                None if word == END_OF_LINE => {}
                None => self.push_subwords(word, &mut rows),
            }
            hashes.push(hash);
            if word == END_OF_LINE {
                break;
            }
        }
        self.push_word_ngrams(&hashes, &mut rows);
        rows
    }

    fn rows_of_word(&self, word: usize) -> &[u32] {
        let start = if word == 0 { 0 } else { self.word_row_ends[word - 1] };
        &self.word_rows[start..self.word_row_ends[word]]
    }

    /// Character n-grams of `<word>`; a mark of the word's edge alone is none.
    fn push_subwords(&self, word: &[u8], rows: &mut Vec<u32>) {
        let [shortest, longest] = self.subwords;
        if longest == 0 {
            return;
        }
        let length = word.len() + 2;
        let byte = |at: usize| match at {
            0 => WORD_BEGIN,
            _ if at == length - 1 => WORD_END,
            _ => word[at - 1],
        };
        let continues = |at: usize| at < length && byte(at) & 0xC0 == 0x80;
        for start in (0..length).filter(|start| !continues(*start)) {
            let (mut hash, mut end) = (HASH_BASIS, start);
            for characters in 1..=longest {
                if end == length {
                    break;
                }
                hash = hash_byte(hash, byte(end));
                end += 1;
                while continues(end) {
                    hash = hash_byte(hash, byte(end));
                    end += 1;
                }
                if characters >= shortest && !(characters == 1 && (start == 0 || end == length)) {
                    self.push_bucket(hash % self.bucket, rows);
                }
            }
        }
    }

    fn push_word_ngrams(&self, hashes: &[u32], rows: &mut Vec<u32>) {
        // fastText keeps hashes as signed numbers of 32 bits: large ones widen to negative ones.
        let widened = |hash: &u32| i64::from(*hash as i32) as u64;
        for (at, first) in hashes.iter().enumerate() {
            let mut ngram = widened(first);
            for next in hashes[at + 1..].iter().take(self.word_ngrams.saturating_sub(1)) {
                ngram = ngram.wrapping_mul(NGRAM_FACTOR).wrapping_add(widened(next));
                self.push_bucket((ngram % u64::from(self.bucket)) as u32, rows);
            }
        }
    }

    fn push_bucket(&self, bucket: u32, rows: &mut Vec<u32>) {
        match &self.ngram_rows {
            NgramRows::All => rows.push(self.words as u32 + bucket),
            NgramRows::Kept(kept) => rows.extend(kept.get(&bucket).map(|row| self.words as u32 + row)),
        }
    }
}

fn read_kept(file: &mut Cursor<'_>, kept: i64) -> Result<HashMap<u32, u32>, DataError> {
    let kept = file.count(kept, "kept n-grams")?;
    let pairs = file.array(kept, 8, "the kept n-grams")?;
    let number = |bytes: &[u8]| u32::from_le_bytes(word(bytes));
    let pairs: HashMap<u32, u32> = pairs.chunks_exact(8).map(|pair| (number(pair), number(&pair[4..]))).collect();
    match pairs.values().find(|row| **row as usize >= kept) {
        Some(row) => Err(file.fail(format!("an n-gram has row {row} of {kept}"))),
        None => Ok(pairs),
    }
}

/// Where the hash of a text begins.
const HASH_BASIS: u32 = 2_166_136_261;

/// FNV-1a, but that bytes from 128 widen to negative numbers: fastText's models were trained with that slip.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(HASH_BASIS, |hash, byte| hash_byte(hash, *byte))
}

fn hash_byte(hash: u32, byte: u8) -> u32 {
    (hash ^ (byte as i8 as u32)).wrapping_mul(16_777_619)
}
