//! Text to ids. A tokenizer trained here takes a short cut: the words are cut by the linear-time splitter and each
//! distinct word goes through the merges once. Any other tokenizer runs its own stages.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;
use tokenizers::{Model, ModelWrapper};

use super::{Tokenizer, TokenizerError, assemble, bytes::ByteAlphabet, split::Splitter};

/// Words a cache holds before it starts anew: a bound on memory (about 10 MB), far above what a text repeats often.
const CACHE_WORDS: usize = 1 << 17;

/// Ids of words seen before.
type Cache = HashMap<Box<str>, Vec<u32>>;

/// The short cut, for tokenizers that cut words as ours do.
#[derive(Debug)]
pub(super) struct Encoder {
    splitter: Splitter,
    alphabet: ByteAlphabet,
    /// Caches at rest. A text takes one and brings it back, so there are as many as threads that encode at once.
    caches: Mutex<Vec<Cache>>,
}

impl Encoder {
    /// `None` when the tokenizer has any stage that the short cut would leave out.
    pub(super) fn for_document(document: &serde_json::Value, inner: &tokenizers::Tokenizer) -> Option<Self> {
        // Special tokens are not looked for in text, but other added tokens are.
        let only_special = inner.get_added_tokens_decoder().values().all(|token| token.special);
        let same_stages = document["normalizer"].is_null()
            && document["truncation"].is_null()
            && document["pre_tokenizer"] == assemble::pre_tokenizer()
            && document["model"]["type"] == "BPE"
            && document["model"]["dropout"].is_null();
        (only_special && same_stages).then(|| Self {
            splitter: Splitter::new(),
            alphabet: ByteAlphabet::new(),
            caches: Mutex::default(),
        })
    }

    fn encode(&self, model: &ModelWrapper, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let at_rest = || self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cache = at_rest().pop().unwrap_or_default();
        let ids = self.encode_words(model, text, &mut cache);
        at_rest().push(cache);
        ids
    }

    fn encode_words(&self, model: &ModelWrapper, text: &str, cache: &mut Cache) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        for word in self.splitter.words(text) {
            if let Some(known) = cache.get(word) {
                ids.extend_from_slice(known);
                continue;
            }
            let tokens = model.tokenize(&self.alphabet.spell(word.as_bytes())).map_err(|e| failed(&e))?;
            let word_ids: Vec<u32> = tokens.into_iter().map(|token| token.id).collect();
            ids.extend_from_slice(&word_ids);
            if cache.len() >= CACHE_WORDS {
                cache.clear();
            }
            cache.insert(word.into(), word_ids);
        }
        Ok(ids)
    }
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
        Some(encoder) => encoder.encode(tokenizer.inner.get_model(), text),
        None => {
            let encoding = tokenizer.inner.encode_fast(text, false).map_err(|e| failed(&e))?;
            Ok(encoding.get_ids().to_vec())
        }
    }
}

fn failed(error: &tokenizers::Error) -> TokenizerError {
    TokenizerError::Text { action: "encode", reason: error.to_string() }
}
