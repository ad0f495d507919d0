//! Hash tables from an ARPA file, in one pass; the bytes are those of a file of KenLM's kind `probing`.
//!
//! Signs carry facts: a probability is stored positive when a longer n-gram ends in this one, and a backoff of zero is negative when
//! no longer n-gram begins with it.

use std::path::{Path, PathBuf};

use internevo_core::storage::{StorageError, write_atomic};

use super::{
    UNKNOWN, Weights,
    arpa::Arpa,
    kenlm::{Header, Kind, ngram_hash, word_hash},
    probing::{Layout, UNIGRAM_BYTES, negative},
};
use crate::{DataError, model_file::word};

/// What a model without `<unk>` says about unknown words, log10.
const MISSING_UNKNOWN: f32 = -100.0;

/// Hash tables in memory.
pub(super) struct Built {
    pub bytes: Vec<u8>,
    order: usize,
}

/// Builds the tables of an ARPA file.
pub(super) fn probing(arpa: Arpa, multiplier: f32) -> Result<Built, DataError> {
    let header = Header { kind: Kind::Probing, multiplier: multiplier.max(1.0), counts: arpa.counts().to_vec() };
    let layout = Layout::new(&header);
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    bytes.resize(layout.end, 0);
    let order = header.counts.len();
    let mut builder = Builder { bytes, layout, order, words: 1, names: b"<unk>\0".to_vec(), saw_unknown: false };
    arpa.for_each(|order, words, weights| match order {
        1 => builder.word(words, weights),
        _ => builder.ngram(order, words, weights),
    })?;
    Ok(builder.finish())
}

struct Builder {
    bytes: Vec<u8>,
    layout: Layout,
    order: usize,
    /// Words so far, `<unk>` included.
    words: u32,
    /// Their text, with a zero after each.
    names: Vec<u8>,
    saw_unknown: bool,
}

impl Builder {
    fn word(&mut self, text: &str, weights: Weights) -> Result<(), String> {
        let index = if matches!(text, "<unk>" | "<UNK>") {
            self.saw_unknown = true;
            UNKNOWN
        } else {
            let free = match self.layout.words.find(&self.bytes, word_hash(text.as_bytes())) {
                Ok(_) => return Err(format!("the word `{text}` is there twice")),
                Err(free) => free.ok_or("more words than the header says")?,
            };
            self.write(free, &word_hash(text.as_bytes()).to_le_bytes());
            self.write(free + 8, &self.words.to_le_bytes());
            self.names.extend_from_slice(text.as_bytes());
            self.names.push(0);
            self.words += 1;
            self.words - 1
        };
        let at = self.unigram(index);
        self.write_weights(at, weights);
        // A word's probability keeps its sign: that of `<s>` is a positive zero.
        self.write(at, &weights.log10.to_le_bytes());
        Ok(())
    }

    fn ngram(&mut self, order: usize, text: &str, weights: Weights) -> Result<(), String> {
        let mut words = [UNKNOWN; super::MAX_ORDER];
        let mut count = 0;
        // Last word first, as hashes are made.
        for name in text.split([' ', '\t']).filter(|name| !name.is_empty()).rev() {
            *words.get_mut(count).filter(|_| count < order).ok_or_else(|| format!("`{text}` is no {order}-gram"))? =
                self.index(name).ok_or_else(|| format!("`{name}` is not among the words of the model"))?;
            count += 1;
        }
        if count != order {
            return Err(format!("`{text}` is no {order}-gram"));
        }
        let key = hash(&words[..order]);
        let table = if order == self.order {
            self.layout.longest.expect("an order of 2")
        } else {
            self.layout.middles[order - 2]
        };
        let free = match table.find(&self.bytes, key) {
            Ok(_) => return Err(format!("`{text}` is there twice")),
            Err(free) => free.ok_or_else(|| format!("more {order}-grams than the header says"))?,
        };
        self.write(free, &key.to_le_bytes());
        if order == self.order {
            self.write(free + 8, &negative(weights.log10).to_le_bytes());
        } else {
            self.write_weights(free + 8, weights);
        }
        self.mark(&words[..order]).ok_or_else(|| {
            format!(
                "`{text}` has no {}-gram at its end or its beginning; models pruned like that are not read",
                order - 1
            )
        })
    }

    /// Notes in the n-gram without its first word that it extends to the left, in the one without its last that it is a context.
    fn mark(&mut self, words: &[u32]) -> Option<()> {
        let suffix = self.find(&words[..words.len() - 1])?;
        let log10 = self.read(suffix).abs();
        self.write(suffix, &log10.to_le_bytes());
        let context = self.find(&words[1..])?;
        if self.read(context + 4) == 0.0 {
            self.write(context + 4, &0f32.to_le_bytes());
        }
        Some(())
    }

    /// Where the weights of an n-gram below the longest are; its last word comes first.
    fn find(&self, words: &[u32]) -> Option<usize> {
        match words {
            [word] => Some(self.unigram(*word)),
            _ => self.layout.middles[words.len() - 2].find(&self.bytes, hash(words)).ok(),
        }
    }

    fn index(&self, name: &str) -> Option<u32> {
        if matches!(name, "<unk>" | "<UNK>") {
            return Some(UNKNOWN);
        }
        let found = self.layout.words.find(&self.bytes, word_hash(name.as_bytes())).ok()?;
        Some(u32::from_le_bytes(word(&self.bytes[found..])))
    }

    fn unigram(&self, index: u32) -> usize {
        self.layout.unigrams + index as usize * UNIGRAM_BYTES
    }

    fn write_weights(&mut self, at: usize, weights: Weights) {
        let backoff = if weights.backoff == 0.0 { -0.0 } else { weights.backoff };
        self.write(at, &negative(weights.log10).to_le_bytes());
        self.write(at + 4, &backoff.to_le_bytes());
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn read(&self, at: usize) -> f32 {
        f32::from_le_bytes(word(&self.bytes[at..]))
    }

    fn finish(mut self) -> Built {
        if !self.saw_unknown {
            self.write_weights(self.unigram(UNKNOWN), Weights { log10: MISSING_UNKNOWN, backoff: 0.0 });
        }
        // Version 0 of the vocabulary.
        let at = self.layout.vocabulary_header();
        self.write(at + 4, &self.words.to_le_bytes());
        self.bytes.append(&mut self.names);
        Built { bytes: self.bytes, order: self.order }
    }
}

/// Key of an n-gram; its last word comes first.
fn hash(words: &[u32]) -> u64 {
    words[1..].iter().fold(u64::from(words[0]), |hash, earlier| ngram_hash(hash, *earlier))
}

impl Built {
    pub fn order(&self) -> usize {
        self.order
    }

    /// Writes the file as a whole.
    pub fn save(&self, path: &Path) -> Result<(), StorageError> {
        write_atomic(PathBuf::from(path), &self.bytes)
    }
}
