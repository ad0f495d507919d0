//! How often every n-gram of a corpus occurs, in bounded memory.

use std::path::PathBuf;

use rayon::prelude::*;

use super::{LmTokens, kenlm::word_hash, train::INTERRUPTED};
use crate::{
    DataError,
    document::for_documents,
    interner::Interner,
    spill::{Item, Scratch, Sorted, Sorter},
    stage::Progress,
};

/// Numbers of the special words.
pub(super) const BEGIN: u32 = 1;
pub(super) const END: u32 = 2;
/// Bytes of text that are cut into tokens at once.
const BATCH_BYTES: usize = 4 << 20;
/// Stands after a token and after a sentence; no token contains them.
const TOKEN_END: u8 = b' ';
const LINE_END: u8 = b'\n';

/// n-grams as numbers: the last word highest, then the words before it. In this order all n-grams that end alike stand together, and
/// cutting off low bits shortens an n-gram from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packing {
    bits: u32,
}

impl Packing {
    /// For n-grams of up to `order` words.
    pub fn new(order: usize) -> Self {
        Self { bits: (u128::BITS / order as u32).min(u32::BITS) }
    }

    /// How many words can be told apart.
    pub fn vocabulary(self) -> u64 {
        1 << self.bits
    }

    /// The last `words` words.
    pub fn suffix(self, key: u128, words: usize) -> u128 {
        key & u128::MAX.checked_shl(u128::BITS - self.bits * words as u32).unwrap_or(0)
    }

    /// The word at `place`, 0 being the last.
    pub fn word(self, key: u128, place: usize) -> u32 {
        (key << (self.bits * place as u32) >> (u128::BITS - self.bits)) as u32
    }

    /// How many words at the end of two n-grams are the same.
    pub fn common(self, a: u128, b: u128) -> usize {
        ((a ^ b).leading_zeros() / self.bits) as usize
    }

    /// The n-gram of `order` words whose last is `word`, after the words of `key`.
    pub fn push(self, key: u128, word: u32, order: usize) -> u128 {
        self.suffix(key >> self.bits | u128::from(word) << (u128::BITS - self.bits), order)
    }

    /// The same n-gram with its last word lowest: n-grams with the same context stand together, contexts in their own order.
    pub fn by_context(self, key: u128, order: usize) -> u128 {
        key << self.bits | u128::from(self.word(key, 0)) << (u128::BITS - self.bits * order as u32)
    }

    /// What [`Packing::by_context`] was made from.
    pub fn by_suffix(self, key: u128, order: usize) -> u128 {
        let last = self.word(key, order - 1);
        self.suffix(key, order - 1) >> self.bits | u128::from(last) << (u128::BITS - self.bits)
    }
}

/// An n-gram and what is known of it. Equal ones become one with the sum of their values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gram {
    /// A [`Packing`]'s number in two halves: 24 bytes instead of the 32 of an aligned one.
    key: [u64; 2],
    pub value: u64,
}

impl Gram {
    pub fn new(key: u128, value: u64) -> Self {
        Self { key: [(key >> 64) as u64, key as u64], value }
    }

    pub fn key(&self) -> u128 {
        u128::from(self.key[0]) << 64 | u128::from(self.key[1])
    }
}

impl PartialEq for Gram {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Gram {}

impl PartialOrd for Gram {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Gram {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Item for Gram {
    const BYTES: usize = 24;

    fn write(self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        [self.key[0], self.key[1], self.value].iter().try_for_each(|part| out.write_all(&part.to_le_bytes()))
    }

    fn read(bytes: &[u8]) -> Self {
        let part = |at: usize| u64::from_le_bytes(crate::model_file::word(&bytes[8 * at..]));
        Self { key: [part(0), part(1)], value: part(2) }
    }

    fn absorb(&mut self, equal: &Self) -> bool {
        self.value += equal.value;
        true
    }
}

/// What was counted.
pub(super) struct Counts {
    /// `<unk>`, `<s>`, `</s>`, then the words as they came.
    pub words: Interner,
    /// n-grams of the full order with their number of occurrences. Sentences begin with `<s>` as often as the order needs.
    pub grams: Sorted<Gram>,
    pub documents: u64,
    pub lines: u64,
    pub tokens: u64,
}

/// Counts the n-grams of `order` in `files`, with about `memory` bytes for n-grams.
pub(super) fn count(
    files: &[PathBuf],
    tokens: &LmTokens,
    order: usize,
    scratch: &Scratch,
    memory: usize,
    progress: &dyn Progress,
) -> Result<Counts, DataError> {
    let mut counter = Counter::new(order, scratch, memory);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for_documents(files, |document| {
        bytes += document.text.len();
        batch.push(document.text);
        if bytes < BATCH_BYTES {
            return Ok(());
        }
        counter.batch(&batch, tokens)?;
        progress.advance(bytes as u64, batch.len() as u64, batch.len() as u64);
        bytes = 0;
        batch.clear();
        if progress.cancelled() { Err(DataError::Interrupted { stage: INTERRUPTED.into() }) } else { Ok(()) }
    })?;
    counter.batch(&batch, tokens)?;
    let Counter { words, grams, documents, lines, tokens, .. } = counter;
    Ok(Counts { words, grams: grams.finish()?, documents, lines, tokens })
}

struct Counter<'s> {
    order: usize,
    packing: Packing,
    words: Interner,
    grams: Sorter<'s, Gram>,
    documents: u64,
    lines: u64,
    tokens: u64,
}

impl<'s> Counter<'s> {
    fn new(order: usize, scratch: &'s Scratch, memory: usize) -> Self {
        let mut words = Interner::new(word_hash);
        for special in ["<unk>", "<s>", "</s>"] {
            words.insert(special.as_bytes());
        }
        let grams = Sorter::new(scratch, memory);
        Self { order, packing: Packing::new(order), words, grams, documents: 0, lines: 0, tokens: 0 }
    }

    fn batch(&mut self, texts: &[String], tokens: &LmTokens) -> Result<(), DataError> {
        let cut: Vec<Vec<u8>> = texts.par_iter().map(|text| cut(text, tokens)).collect();
        for text in &cut {
            self.documents += 1;
            for line in text.split_inclusive(|byte| *byte == LINE_END) {
                self.line(&line[..line.len() - 1])?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), DataError> {
        self.lines += 1;
        let mut key = (0..self.order).fold(0, |key, _| self.packing.push(key, BEGIN, self.order));
        for token in line.split(|byte| *byte == TOKEN_END).filter(|token| !token.is_empty()) {
            let word = self.words.insert(token);
            if u64::from(word) >= self.packing.vocabulary() {
                let (order, limit) = (self.order, self.packing.vocabulary());
                let reason = format!(
                    "{order} leaves room for {limit} different words, and there are more; a lower order has room"
                );
                return Err(DataError::Setting { key: "order".into(), reason });
            }
            self.tokens += 1;
            key = self.packing.push(key, word, self.order);
            self.grams.push(Gram::new(key, 1))?;
        }
        self.grams.push(Gram::new(self.packing.push(key, END, self.order), 1))?;
        Ok(())
    }
}

/// The tokens of a text, each with [`TOKEN_END`], each line with [`LINE_END`].
fn cut(text: &str, tokens: &LmTokens) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    for line in LmTokens::lines(text) {
        tokens.for_each(line, |token| {
            // Only a tokenizer.json makes tokens with spaces in them; no text form of a model could hold those.
            out.extend(token.bytes().filter(|byte| !byte.is_ascii_whitespace()));
            out.push(TOKEN_END);
        });
        out.push(LINE_END);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_ngrams_give_their_words_back_in_both_orders() {
        for order in 1..=5 {
            let packing = Packing::new(order);
            let words: Vec<u32> = (0..order as u32).map(|i| (packing.vocabulary() - 1) as u32 - 7 * i).collect();
            let key = words.iter().fold(0, |key, word| packing.push(key, *word, order));
            for (place, word) in words.iter().rev().enumerate() {
                assert_eq!(packing.word(key, place), *word);
            }
            for shorter in 1..=order {
                let key = packing.suffix(key, shorter);
                assert_eq!(packing.by_suffix(packing.by_context(key, shorter), shorter), key);
                let context = packing.suffix(packing.by_context(key, shorter), shorter - 1);
                assert!((1..shorter).all(|place| packing.word(context, place - 1) == packing.word(key, place)));
            }
            assert_eq!(packing.common(key, packing.suffix(key, order - 1)), if order == 1 { 0 } else { order - 1 });
        }
    }
}
