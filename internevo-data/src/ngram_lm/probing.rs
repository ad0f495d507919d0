//! Hash tables of n-grams, in the layout of KenLM's `probing` models: one table a word, one for each order.
//!
//! All of it is one slice of bytes, mapped from a file or built from an ARPA file (`build.rs`).

use super::{
    UNKNOWN, Weights,
    kenlm::{Header, ngram_hash},
    model::Lookup,
    prefetch::prefetch,
};
use crate::{
    DataError,
    model_file::{Cursor, word},
};

/// Sizes of entries: words are key and number, the longest n-grams key and probability, others have a backoff too.
const WORD_ENTRY: usize = 12;
const MIDDLE_ENTRY: usize = 16;
const LONGEST_ENTRY: usize = 12;
/// Version and number of words before the table of words.
const VOCABULARY_HEADER: usize = 8;
/// Probability and backoff of a word.
pub(super) const UNIGRAM_BYTES: usize = 8;

/// Where a table is. Key 0 is a free bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub start: usize,
    buckets: usize,
    /// 2^64 / `buckets`, rounded down.
    reciprocal: u64,
    entry: usize,
}

impl Table {
    /// A table for `entries` at `start`, and where it ends.
    fn new(start: usize, entries: u64, multiplier: f32, entry: usize) -> (Self, usize) {
        let buckets = (entries + 1).max((multiplier * entries as f32) as u64) as usize;
        let reciprocal = u64::MAX / buckets as u64;
        (Self { start, buckets, reciprocal, entry }, start.saturating_add(buckets.saturating_mul(entry)))
    }

    /// The bucket in which the search for `key` begins: `key % buckets`, without a division.
    #[inline]
    fn bucket(&self, key: u64) -> usize {
        // The quotient is right or one too small: the reciprocal lacks at most 1, which is key / 2^64 < 1 of the quotient.
        let quotient = ((u128::from(key) * u128::from(self.reciprocal)) >> 64) as u64;
        let rest = key - quotient * self.buckets as u64;
        rest.checked_sub(self.buckets as u64).unwrap_or(rest) as usize
    }

    /// Asks for the memory in which the search for `key` begins.
    #[inline]
    fn prefetch(&self, bytes: &[u8], key: u64) {
        prefetch(bytes, self.start + self.bucket(key) * self.entry);
    }

    /// Where the value of `key` is, or `Err` with the free bucket where it would be (`None` in a full table).
    #[inline]
    pub fn find(&self, bytes: &[u8], key: u64) -> Result<usize, Option<usize>> {
        let mut bucket = self.bucket(key);
        for _ in 0..self.buckets {
            let at = self.start + bucket * self.entry;
            match u64::from_le_bytes(word(&bytes[at..])) {
                0 => return Err(Some(at)),
                found if found == key => return Ok(at + 8),
                _ => bucket = if bucket + 1 == self.buckets { 0 } else { bucket + 1 },
            }
        }
        Err(None)
    }
}

/// Where everything is in the bytes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub words: Table,
    pub unigrams: usize,
    /// Orders 2 to the last but one.
    pub middles: Vec<Table>,
    /// The longest; `None` in a model of single words.
    pub longest: Option<Table>,
    /// Where the words' text begins.
    pub end: usize,
}

impl Layout {
    pub fn new(header: &Header) -> Self {
        let multiplier = header.multiplier;
        let start = Header::size(header.counts.len()) + VOCABULARY_HEADER;
        let (words, unigrams) = Table::new(start, header.counts[0], multiplier, WORD_ENTRY);
        // One more word than counted: `<unk>`, in case the ARPA file lacks it.
        let mut end = unigrams.saturating_add((header.counts[0] as usize + 1).saturating_mul(UNIGRAM_BYTES));
        let mut next = |count: u64, entry: usize| {
            let table;
            (table, end) = Table::new(end, count, multiplier, entry);
            table
        };
        let (longest, middles) = match header.counts.as_slice() {
            [_, middles @ .., longest] => (Some(*longest), middles),
            _ => (None, [].as_slice()),
        };
        let middles = middles.iter().map(|count| next(*count, MIDDLE_ENTRY)).collect();
        let longest = longest.map(|count| next(count, LONGEST_ENTRY));
        Self { words, unigrams, middles, longest, end }
    }

    pub fn vocabulary_header(&self) -> usize {
        self.words.start - VOCABULARY_HEADER
    }
}

/// The tables of a model; the bytes are the caller's.
#[derive(Debug)]
pub(super) struct Probing {
    layout: Layout,
    /// Words, `<unk>` included.
    bound: u32,
}

impl Probing {
    /// The tables behind `header`, where the cursor is.
    pub fn read(file: &mut Cursor<'_>, header: &Header) -> Result<Self, DataError> {
        let layout = Layout::new(header);
        let (version, bound) = (file.u32("the vocabulary")?, file.u32("the vocabulary")?);
        if version != 0 || u64::from(bound) > header.counts[0] + 1 {
            return Err(file.fail(format!("version {version} of a vocabulary of {bound} words")));
        }
        file.take(layout.end - file.offset(), "the tables")?;
        Ok(Self { layout, bound })
    }
}

impl Lookup for Probing {
    /// Hash of the n-gram; `None` when no longer one ends in it, which saves the look-up.
    type Node = Option<u64>;

    fn word(&self, bytes: &[u8], hash: u64) -> u32 {
        let found = self.layout.words.find(bytes, hash).map(|at| u32::from_le_bytes(word(&bytes[at..])));
        found.ok().filter(|word| *word < self.bound).unwrap_or(UNKNOWN)
    }

    fn expect_word(&self, bytes: &[u8], hash: u64) {
        self.layout.words.prefetch(bytes, hash);
    }

    #[inline]
    fn expect_longer(&self, bytes: &[u8], place: usize, earlier: u32, node: Option<u64>) {
        if let Some((hash, table)) = node.zip(self.layout.middles.get(place).or(self.layout.longest.as_ref())) {
            table.prefetch(bytes, ngram_hash(hash, earlier));
        }
    }

    fn unigram(&self, bytes: &[u8], index: u32) -> (Weights, Option<u64>) {
        let at = self.layout.unigrams + index as usize * UNIGRAM_BYTES;
        (weights(&bytes[at..]), extensible(&bytes[at..], u64::from(index)))
    }

    #[inline]
    fn middle(&self, bytes: &[u8], place: usize, earlier: u32, node: &mut Option<u64>) -> Option<Weights> {
        let key = ngram_hash((*node)?, earlier);
        let at = self.layout.middles[place].find(bytes, key).ok()?;
        *node = extensible(&bytes[at..], key);
        Some(weights(&bytes[at..]))
    }

    #[inline]
    fn longest(&self, bytes: &[u8], earlier: u32, node: Option<u64>) -> Option<f32> {
        let at = self.layout.longest?.find(bytes, ngram_hash(node?, earlier)).ok()?;
        Some(negative(f32::from_le_bytes(word(&bytes[at..]))))
    }
}

/// `key`, if the sign of the probability at the beginning of `weights` says that a longer n-gram ends in this one.
fn extensible(weights: &[u8], key: u64) -> Option<u64> {
    f32::from_le_bytes(word(weights)).is_sign_positive().then_some(key)
}

/// A probability without the fact in its sign: it is always negative or 0.
pub(super) fn negative(log10: f32) -> f32 {
    -log10.abs()
}

fn weights(bytes: &[u8]) -> Weights {
    Weights { log10: negative(f32::from_le_bytes(word(bytes))), backoff: f32::from_le_bytes(word(&bytes[4..])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_bucket_is_the_remainder(entries in 0u64..1 << 40, key in 0..=u64::MAX, near in 0u64..3) {
            let (table, _) = Table::new(0, entries, 1.5, 16);
            let buckets = table.buckets as u64;
            for key in [key, (key / buckets * buckets).wrapping_sub(near), u64::MAX - near] {
                proptest::prop_assert_eq!(table.bucket(key) as u64, key % buckets);
            }
        }
    }
}
