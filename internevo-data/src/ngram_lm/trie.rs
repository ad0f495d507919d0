//! KenLM's packed tries: for each order one sorted array of bit fields, whose entries point to their extensions in the next.
//!
//! The root are the words; below a word stand the words before it. Probabilities and backoffs are floats or, quantised, places in
//! tables of floats. Pointers are stored whole, or with their upper bits in an array of their own (Raj and Whittaker, 2003).

use std::ops::Range;

use super::{
    UNKNOWN, Weights, bits,
    kenlm::{Header, Kind},
    model::Lookup,
};
use crate::{
    DataError,
    model_file::{Cursor, word},
};

/// Probability, backoff and pointer of a word.
const UNIGRAM_BYTES: usize = 16;
/// A probability without its sign, which is always negative.
const LOG10_BITS: u32 = 31;
const BACKOFF_BITS: u32 = 32;
/// Versions of what stands before quantised tables and pointer arrays.
const QUANTISED_VERSION: u8 = 2;
const ARRAY_VERSION: u8 = 0;

/// The arrays of a model; the bytes are the caller's.
#[derive(Debug)]
pub(super) struct Trie {
    /// Hashes of the words without `<unk>`, ascending; word `i` of them has number `i + 1`.
    words: Range<usize>,
    unigrams: usize,
    /// Words, `<unk>` included.
    bound: u32,
    middles: Vec<Middle>,
    longest: Packed,
    longest_values: Values,
}

/// An array of entries: the bits of a word, then values and pointer.
#[derive(Debug)]
struct Packed {
    start: usize,
    entries: u64,
    word_bits: u32,
    total_bits: u32,
}

#[derive(Debug)]
struct Middle {
    packed: Packed,
    values: Values,
    pointers: Pointers,
    /// Entries of the next order: no pointer may exceed it.
    next_entries: u64,
}

/// How probability and backoff are stored.
#[derive(Debug)]
enum Values {
    Floats,
    /// Tables by number; the longest n-grams have no backoff.
    Quantised {
        log10: Vec<f32>,
        backoff: Vec<f32>,
    },
}

#[derive(Debug)]
struct Pointers {
    inline_bits: u32,
    /// Entry numbers at which the upper bits of the pointer go up by one.
    steps: Option<Vec<u64>>,
}

impl Trie {
    /// The arrays behind `header`, where the cursor is.
    pub fn read(file: &mut Cursor<'_>, header: &Header) -> Result<Self, DataError> {
        let counts = &header.counts;
        let Kind::Trie { quantised, array } = header.kind else { unreachable!("the caller looks at the kind") };
        let words = file.u64("the vocabulary")?;
        if words > counts[0] {
            return Err(file.fail(format!("{words} words besides <unk> of {}", counts[0])));
        }
        let start = file.offset();
        file.array(counts[0] as usize, 8, "the vocabulary")?;
        let mut values = read_values(file, quantised, counts.len())?;
        let unigrams = file.offset();
        // One more for `<unk>`, one for the last pointer.
        file.array(counts[0] as usize + 2, UNIGRAM_BYTES, "the words")?;
        let longest_values = values.pop().expect("one for each order from 2");
        let mut longest_of_pointers = None;
        let mut middles = Vec::new();
        for (values, pair) in values.into_iter().zip(counts[1..].windows(2)) {
            let pointers = Pointers::read(file, pair[0] + 1, pair[1], array, &mut longest_of_pointers)?;
            let packed = Packed::read(file, pair[0], counts[0], values.middle_bits() + pointers.inline_bits)?;
            middles.push(Middle { packed, values, pointers, next_entries: pair[1] });
        }
        let longest = Packed::read(file, counts[counts.len() - 1], counts[0], longest_values.longest_bits())?;
        Ok(Self {
            words: start..start + 8 * words as usize,
            unigrams,
            bound: words as u32 + 1,
            middles,
            longest,
            longest_values,
        })
    }

    /// Where the pointer of word `index` leads.
    fn unigram_pointer(&self, bytes: &[u8], index: u32) -> u64 {
        u64::from_le_bytes(word(&bytes[self.unigrams + index as usize * UNIGRAM_BYTES + 8..]))
    }
}

/// The values of orders 2 to the longest.
fn read_values(file: &mut Cursor<'_>, quantised: bool, order: usize) -> Result<Vec<Values>, DataError> {
    if !quantised {
        return Ok((2..=order).map(|_| Values::Floats).collect());
    }
    let head = file.take(8, "the quantisation")?;
    let (version, log10_bits, backoff_bits) = (head[0], head[1], head[2]);
    if version != QUANTISED_VERSION || !(1..=25).contains(&log10_bits) || !(1..=25).contains(&backoff_bits) {
        return Err(file.fail(format!("quantisation of version {version} to {log10_bits} and {backoff_bits} bits")));
    }
    let mut table = |bits: u8| file.f32s(1 << bits, "the quantisation");
    let values = (2..=order).map(|own| {
        let log10 = table(log10_bits)?;
        Ok(Values::Quantised { log10, backoff: if own < order { table(backoff_bits)? } else { Vec::new() } })
    });
    values.collect()
}

impl Values {
    fn middle_bits(&self) -> u32 {
        match self {
            Self::Floats => LOG10_BITS + BACKOFF_BITS,
            Self::Quantised { log10, backoff } => log10.len().ilog2() + backoff.len().ilog2(),
        }
    }

    fn longest_bits(&self) -> u32 {
        match self {
            Self::Floats => LOG10_BITS,
            Self::Quantised { log10, .. } => log10.len().ilog2(),
        }
    }

    fn middle(&self, bytes: &[u8], offset: u64) -> Weights {
        match self {
            Self::Floats => {
                let backoff = bits::read(bytes, offset + u64::from(LOG10_BITS), BACKOFF_BITS);
                Weights { log10: self.log10(bytes, offset), backoff: f32::from_bits(backoff as u32) }
            }
            Self::Quantised { backoff, .. } => {
                let width = backoff.len().ilog2();
                let own = backoff[bits::read(bytes, offset, width) as usize];
                Weights { log10: self.log10(bytes, offset + u64::from(width)), backoff: own }
            }
        }
    }

    fn log10(&self, bytes: &[u8], offset: u64) -> f32 {
        match self {
            Self::Floats => -f32::from_bits(bits::read(bytes, offset, LOG10_BITS) as u32),
            Self::Quantised { log10, .. } => log10[bits::read(bytes, offset, log10.len().ilog2()) as usize],
        }
    }
}

impl Packed {
    fn read(file: &mut Cursor<'_>, entries: u64, words: u64, other_bits: u32) -> Result<Self, DataError> {
        let start = file.offset();
        let word_bits = bits::needed(words);
        let total_bits = word_bits + other_bits;
        // One more entry for the last pointer, 8 bytes so that every field can be read as a word of 64 bits.
        let bytes = ((1 + entries) * u64::from(total_bits)).div_ceil(8) + 8;
        file.take(bytes as usize, "the n-grams")?;
        Ok(Self { start, entries, word_bits, total_bits })
    }

    /// Bit of entry `index` after its word.
    fn values(&self, index: u64) -> u64 {
        8 * self.start as u64 + index * u64::from(self.total_bits) + u64::from(self.word_bits)
    }

    /// The entry of `earlier` in a range.
    fn find(&self, bytes: &[u8], earlier: u32, range: Range<u64>) -> Option<u64> {
        let (mut low, mut high) = (range.start, range.end.min(self.entries));
        while low < high {
            let middle = low + (high - low) / 2;
            let found = bits::read(bytes, self.values(middle) - u64::from(self.word_bits), self.word_bits);
            match found.cmp(&u64::from(earlier)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl Pointers {
    /// The upper bits of `entries` pointers, none above `largest`. `longest`: how many upper bits may be taken away, which the first
    /// array of a file says for all.
    fn read(
        file: &mut Cursor<'_>,
        entries: u64,
        largest: u64,
        array: bool,
        longest: &mut Option<u32>,
    ) -> Result<Self, DataError> {
        let whole = bits::needed(largest);
        if !array {
            return Ok(Self { inline_bits: whole, steps: None });
        }
        let start = file.offset();
        let head = file.take(2, "the pointers")?;
        if head[0] != ARRAY_VERSION {
            return Err(file.fail(format!("version {} of pointer arrays", head[0])));
        }
        let longest = *longest.get_or_insert(head[1].into());
        let chopped = (0..=whole.min(longest)).min_by_key(|bits| chopping_cost(entries, largest, whole, *bits));
        let inline_bits = whole - chopped.expect("the range holds 0");
        let count = (largest >> inline_bits) as usize + 1;
        // The array is aligned in the file; what the alignment leaves over stands after it.
        file.take(start.next_multiple_of(8) + 8 - file.offset(), "the pointers")?;
        let steps = file.array(count, 8, "the pointers")?;
        let steps = steps.chunks_exact(8).map(|step| u64::from_le_bytes(word(step))).collect();
        file.take(start + 8 * (1 + count) + 7 - file.offset(), "the pointers")?;
        Ok(Self { inline_bits, steps: Some(steps) })
    }

    fn upper(&self, entry: u64) -> u64 {
        let step = |steps: &Vec<u64>| steps.partition_point(|step| *step <= entry).saturating_sub(1) as u64;
        self.steps.as_ref().map_or(0, step) << self.inline_bits
    }
}

/// Bits that an array costs, less what it saves.
fn chopping_cost(entries: u64, largest: u64, whole: u32, chopped: u32) -> i64 {
    (largest.checked_shr(whole - chopped).unwrap_or(0) * 64) as i64 - (entries * u64::from(chopped)) as i64
}

impl Middle {
    fn next(&self, bytes: &[u8], entry: u64) -> u64 {
        let offset = self.packed.values(entry) + u64::from(self.values.middle_bits());
        (self.pointers.upper(entry) | bits::read(bytes, offset, self.pointers.inline_bits)).min(self.next_entries)
    }
}

impl Lookup for Trie {
    type Node = (u64, u64);

    fn word(&self, bytes: &[u8], wanted: u64) -> u32 {
        let hashes = &bytes[self.words.clone()];
        let hash = |index: usize| u64::from_le_bytes(word(&hashes[8 * index..]));
        let (mut low, mut high) = (0, hashes.len() / 8);
        while low < high {
            let middle = low + (high - low) / 2;
            if hash(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        let is_known = 8 * low < hashes.len() && hash(low) == wanted && low as u32 + 1 < self.bound;
        if is_known { low as u32 + 1 } else { UNKNOWN }
    }

    fn unigram(&self, bytes: &[u8], index: u32) -> (Weights, Self::Node) {
        let own = &bytes[self.unigrams + index as usize * UNIGRAM_BYTES..];
        let weights = Weights { log10: f32::from_le_bytes(word(own)), backoff: f32::from_le_bytes(word(&own[4..])) };
        (weights, (self.unigram_pointer(bytes, index), self.unigram_pointer(bytes, index + 1)))
    }

    fn middle(&self, bytes: &[u8], place: usize, earlier: u32, node: &mut Self::Node) -> Option<Weights> {
        let middle = &self.middles[place];
        let entry = middle.packed.find(bytes, earlier, node.0..node.1)?;
        *node = (middle.next(bytes, entry), middle.next(bytes, entry + 1));
        Some(middle.values.middle(bytes, middle.packed.values(entry)))
    }

    fn longest(&self, bytes: &[u8], earlier: u32, node: Self::Node) -> Option<f32> {
        let entry = self.longest.find(bytes, earlier, node.0..node.1)?;
        Some(self.longest_values.log10(bytes, self.longest.values(entry)))
    }
}
