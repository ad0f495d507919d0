//! Text to ids. A byte-level tokenizer whose stages are known (those trained here, GPT-2's, LLaMA 3's) takes a short cut: words are cut
//! by hand, and a word that was met lately costs one look-up. Any other tokenizer runs its own stages.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::Model;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::{
    Tokenizer, TokenizerError,
    bytes::ByteAlphabet,
    merges::{Merges, WordBuffers},
    split::Splitter,
};

/// Short words a cache has room for: 1 MiB, so that it stays in the processor's caches.
const SLOTS: usize = 1 << 15;
/// Bytes of a short word.
const SHORT_BYTES: usize = 15;
/// Tokens of a short word.
const SHORT_TOKENS: usize = 4;
/// Longer words a cache holds before it starts anew: a bound on memory (about 10 MB).
const LONG_WORDS: usize = 1 << 16;
/// Words longer than this hardly come twice.
const LONG_BYTES: usize = 64;
/// Words longer than this (a line of base64, a page without spaces) are left to the tokenizer itself, which needs no square of time.
const HUGE_BYTES: usize = 512;

/// The short cut.
#[derive(Debug)]
pub(super) struct Encoder {
    splitter: Splitter,
    alphabet: ByteAlphabet,
    merges: Merges,
    /// Caches at rest. A text takes one and brings it back, so there are as many as threads that encode at once.
    caches: Mutex<Vec<Cache>>,
}

impl Encoder {
    /// `None` when the tokenizer has any stage that the short cut would leave out.
    pub(super) fn for_document(document: &Value, inner: &tokenizers::Tokenizer) -> Option<Self> {
        // Special tokens are not looked for in text, but other added tokens are.
        let only_special = inner.get_added_tokens_decoder().values().all(|token| token.special);
        if !only_special || !document["normalizer"].is_null() || !document["truncation"].is_null() {
            return None;
        }
        let splitter = splitter(&document["pre_tokenizer"])?;
        let alphabet = ByteAlphabet::new();
        let merges = Merges::of_model(&document["model"], &alphabet)?;
        Some(Self { splitter, alphabet, merges, caches: Mutex::default() })
    }

    fn encode(&self, inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let at_rest = || self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cache = at_rest().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut place = 0;
        let encoded = self.splitter.words(text).try_for_each(|word| {
            let start = place;
            place += word.len();
            if word.len() > HUGE_BYTES {
                let tokens = inner.get_model().tokenize(&self.alphabet.spell(word.as_bytes()));
                ids.extend(tokens.map_err(|e| failed(&e))?.into_iter().map(|token| token.id));
            } else {
                cache.word(&self.merges, word.as_bytes(), &text.as_bytes()[start..], &mut ids);
            }
            Ok(())
        });
        at_rest().push(cache);
        encoded.map(|()| ids)
    }
}

/// The splitter that does what these pre-tokenizers do.
fn splitter(pre_tokenizer: &Value) -> Option<Splitter> {
    let byte_level = |stage: &Value, splits: bool| {
        stage["type"] == "ByteLevel"
            && stage["add_prefix_space"] == false
            && stage["use_regex"].as_bool().unwrap_or(true) == splits
    };
    let stages = match pre_tokenizer["type"].as_str()? {
        "Sequence" => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    match stages {
        [only] if byte_level(only, true) => Some(Splitter::Gpt2),
        [split, bytes] if split["type"] == "Split" && byte_level(bytes, false) => {
            let isolated = split["behavior"] == "Isolated" && split["invert"] == false;
            Splitter::of_pattern(split["pattern"]["Regex"].as_str()?).filter(|_| isolated)
        }
        _ => None,
    }
}

/// Tokens of words that were met lately.
#[derive(Debug)]
struct Cache {
    /// Short words, each in the one place that its hash names.
    slots: Box<[Slot]>,
    long: HashMap<Box<[u8]>, Box<[u32]>, Xxh3DefaultBuilder>,
    buffers: WordBuffers,
}

/// A short word and its tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// From the lowest bit: 15 bytes of the word, its length (four bits), the number of its tokens (four bits).
    word: u128,
    ids: [u32; SHORT_TOKENS],
}

impl Default for Cache {
    fn default() -> Self {
        let slots = vec![Slot::default(); SLOTS].into_boxed_slice();
        Self { slots, long: HashMap::default(), buffers: WordBuffers::default() }
    }
}

impl Cache {
    /// Appends the tokens of `word`; `rest` is the text from the word on.
    #[inline]
    fn word(&mut self, merges: &Merges, word: &[u8], rest: &[u8], ids: &mut Vec<u32>) {
        if word.len() > SHORT_BYTES {
            return self.long_word(merges, word, ids);
        }
        let key = short_key(word, rest);
        let slot = &mut self.slots[slot_of(key)];
        if slot.word << 4 == key << 4 {
            ids.extend_from_slice(&slot.ids[..(slot.word >> 124) as usize]);
            return;
        }
        let tokens = merges.apply(word, &mut self.buffers);
        if tokens.len() <= SHORT_TOKENS {
            slot.word = key | (tokens.len() as u128) << 124;
            slot.ids[..tokens.len()].copy_from_slice(tokens);
        }
        ids.extend_from_slice(tokens);
    }

    fn long_word(&mut self, merges: &Merges, word: &[u8], ids: &mut Vec<u32>) {
        if let Some(known) = self.long.get(word) {
            ids.extend_from_slice(known);
            return;
        }
        let tokens = merges.apply(word, &mut self.buffers);
        ids.extend_from_slice(tokens);
        if word.len() <= LONG_BYTES {
            if self.long.len() >= LONG_WORDS {
                self.long.clear();
            }
            self.long.insert(word.into(), tokens.into());
        }
    }
}

/// [`Slot::word`] without the number of tokens.
#[inline]
fn short_key(word: &[u8], rest: &[u8]) -> u128 {
    let length = word.len();
    let bytes = match rest.first_chunk::<16>() {
        Some(bytes) => u128::from_le_bytes(*bytes) & ((1 << (8 * length)) - 1),
        None => word.iter().rev().fold(0, |bytes, byte| bytes << 8 | u128::from(*byte)),
    };
    bytes | (length as u128) << 120
}

#[inline]
fn slot_of(key: u128) -> usize {
    // Odd constants of xxHash.
    let low = (key as u64).wrapping_mul(0x9E37_79B1_85EB_CA87);
    let high = ((key >> 64) as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    let mixed = (low ^ high.rotate_left(31)).wrapping_mul(0x9E37_79B1_85EB_CA87);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}

pub(super) fn encode_batch<T: AsRef<str> + Sync>(
    tokenizer: &Tokenizer,
    texts: &[T],
) -> Result<Vec<Vec<u32>>, TokenizerError> {
    let encoded: Vec<_> = texts.par_iter().map(|text| encode_one(tokenizer, text.as_ref())).collect();
    // Collected in order first, so that the error is always that of the first text.
    encoded.into_iter().collect()
}

pub(super) fn encode_one(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    match &tokenizer.encoder {
        Some(encoder) => encoder.encode(&tokenizer.inner, text),
        None => {
            let encoding = tokenizer.inner.encode_fast(text, false).map_err(|e| failed(&e))?;
            Ok(encoding.get_ids().to_vec())
        }
    }
}

fn failed(error: &tokenizers::Error) -> TokenizerError {
    TokenizerError::Text { action: "encode", reason: error.to_string() }
}
