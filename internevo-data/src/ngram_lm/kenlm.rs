//! What KenLM's binary files have in common: the header, the hash of a word, the words at the end.
//!
//! A file is: 88 bytes of magic and test values, the fixed settings, the number of n-grams of each order, all padded to 8 bytes; then
//! the vocabulary, the search structure of its kind (`probing.rs`, `trie.rs`), and the words with a zero after each.

use super::MAX_ORDER;
use crate::{DataError, model_file::Cursor};

/// What a file begins with, padded to 56 bytes.
const MAGIC: &[u8] = b"mmap lm http://kheafield.com/code format version 5\n\0";
const MAGIC_BYTES: usize = 56;
/// Magic, three floats, three numbers of 32 bits, one of 64.
const SANITY_BYTES: usize = MAGIC_BYTES + 32;
/// Order, multiplier, kind, whether words follow, version: 4 bytes each.
const FIXED_BYTES: usize = 20;

/// A kind of search structure, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Probing,
    Trie { quantised: bool, array: bool },
}

impl Kind {
    fn of(number: u32) -> Result<Self, String> {
        match number {
            0 => Ok(Self::Probing),
            1 => Err("hash tables with rest costs are not read: build the model without -r".into()),
            2..=5 => Ok(Self::Trie { quantised: matches!(number, 3 | 5), array: number >= 4 }),
            _ => Err(format!("unknown kind {number} of model")),
        }
    }

    /// Version of the search structure.
    fn version(self) -> u32 {
        u32::from(self != Self::Probing)
    }
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub kind: Kind,
    /// Buckets per entry of hash tables.
    pub multiplier: f32,
    /// n-grams of each order.
    pub counts: Vec<u64>,
}

impl Header {
    /// Is this one of KenLM's files?
    pub fn is_at(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC[..MAGIC.len() - 2])
    }

    /// Bytes of the header of a model of `order`.
    pub fn size(order: usize) -> usize {
        (SANITY_BYTES + FIXED_BYTES + 8 * order).next_multiple_of(8)
    }

    /// Reads the header and leaves the cursor behind it. KenLM knows no models of single words; `shortest` is 1 where one was just
    /// built in memory.
    pub fn read(file: &mut Cursor<'_>, shortest: usize) -> Result<Self, DataError> {
        if file.take(SANITY_BYTES, "the header")? != sanity() {
            return Err(
                file.fail("a model of another version or made on another kind of machine; build it from the ARPA file")
            );
        }
        let order = file.u32("the header")? as usize & 0xFF;
        let multiplier = file.f32("the header")?;
        let kind = Kind::of(file.u32("the header")?).map_err(|reason| file.fail(reason))?;
        let (_has_words, version) = (file.u32("the header")?, file.u32("the header")?);
        if version != kind.version() {
            return Err(file.fail(format!("version {version} of the search structure; {} is known", kind.version())));
        }
        if !(shortest..=MAX_ORDER).contains(&order) || !(1.0..=1e6).contains(&multiplier) {
            return Err(file.fail(format!("order {order}, {multiplier} buckets per entry")));
        }
        let counts = (0..order).map(|_| file.u64("the counts")).collect::<Result<Vec<_>, _>>()?;
        if counts[0] >= u64::from(u32::MAX) || counts.iter().any(|count| *count >= 1 << 48) {
            return Err(file.fail(format!("{counts:?} n-grams")));
        }
        file.take(Self::size(order) - file.offset(), "the header")?;
        Ok(Self { kind, multiplier, counts })
    }

    /// The header of a probing model.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert_eq!(self.kind, Kind::Probing, "only hash tables are written");
        let start = out.len();
        out.extend_from_slice(&sanity());
        out.extend_from_slice(&(self.counts.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.multiplier.to_le_bytes());
        // Kind 0; the words follow; version 0.
        [0u32, 1, 0].iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        self.counts.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        out.resize(start + Self::size(self.counts.len()), 0);
    }
}

/// The test values after the magic show byte order and number formats.
fn sanity() -> [u8; SANITY_BYTES] {
    let mut bytes = [0; SANITY_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    let numbers = [0f32.to_bits(), 1f32.to_bits(), (-0.5f32).to_bits(), 1, u32::MAX, 0, 1, 0];
    for (at, number) in numbers.into_iter().enumerate() {
        bytes[MAGIC_BYTES + 4 * at..][..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Hash of a word: MurmurHash64A (Austin Appleby, public domain) with seed 0.
pub(super) fn word_hash(word: &[u8]) -> u64 {
    const M: u64 = 0xC6A4_A793_5BD1_E995;
    const R: u32 = 47;
    let mut hash = (word.len() as u64).wrapping_mul(M);
    let mut chunks = word.chunks_exact(8);
    for chunk in &mut chunks {
        let k = u64::from_le_bytes(crate::model_file::word(chunk)).wrapping_mul(M);
        hash = (hash ^ (k ^ (k >> R)).wrapping_mul(M)).wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash = (hash ^ short(rest)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> R)).wrapping_mul(M);
    hash ^ (hash >> R)
}

/// One to seven bytes as a little-endian number, without a loop: the parts overlap.
fn short(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let at = |place: usize| u64::from(bytes[place]) << (8 * place);
    match bytes {
        [_, _, _, _, ..] => {
            let part = |from: usize| u64::from(u32::from_le_bytes(crate::model_file::word(&bytes[from..])));
            part(0) | part(length - 4) << (8 * (length - 4))
        }
        _ => at(0) | at(length / 2) | at(length - 1),
    }
}

/// Hash of an n-gram, word by word from its last to its first: `hash` is that of the words so far, for the last word its number.
pub(super) fn ngram_hash(hash: u64, earlier: u32) -> u64 {
    hash.wrapping_mul(8_978_948_897_894_561_157) ^ (1 + u64::from(earlier)).wrapping_mul(17_894_857_484_156_487_943)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_words_are_read_as_numbers() {
        for length in 1..8usize {
            let bytes: Vec<u8> = (1..=length as u8).map(|i| 31 * i).collect();
            let expected = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
            assert_eq!(short(&bytes), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_header_that_is_written_is_read() {
        let header = Header { kind: Kind::Probing, multiplier: 1.5, counts: vec![10, 20, 30] };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        assert!(Header::is_at(&bytes) && bytes.len() == Header::size(3));
        let path = std::path::Path::new("model");
        assert_eq!(Header::read(&mut Cursor::new(path, &bytes), 2).expect("whole"), header);
        for length in 0..bytes.len() {
            assert!(Header::read(&mut Cursor::new(path, &bytes[..length]), 2).is_err());
        }
    }
}
