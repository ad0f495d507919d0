//! Byte-level BPE: training, the Hugging Face file, encoding and decoding, and turning a corpus into a token store.
//!
//! | file | holds |
//! |---|---|
//! | `split.rs` | cutting text into words |
//! | `bytes.rs` | GPT-2's spelling of bytes |
//! | `train.rs` | counting words and finding merges |
//! | `assemble.rs` | `tokenizer.json` and the files `transformers` reads beside it |
//! | `merges.rs` | what the merges make of one word |
//! | `encode.rs` | text to ids, many documents at a time |
//! | `plugin.rs` | tokenizers of other crates, by name |
//! | `corpus.rs` | a folder of documents to `train.bin`, `valid.bin` and their statistics |
//!
//! Ids of a tokenizer trained here: the five [`SPECIAL_TOKENS`], the 256 bytes, then the merges in their order. The first
//! three special ids are those of LLaMA and InternLM2. Text is never read as a special token: the characters `</s>` of an
//! HTML page are encoded like any others.

mod assemble;
mod bytes;
mod corpus;
mod encode;
mod merges;
mod plugin;
mod split;
mod train;

use std::path::{Path, PathBuf};

use internevo_core::{
    plugin::PluginError,
    storage::{self, StorageError},
};

pub use self::{
    assemble::{special_tokens_map, tokenizer_config},
    corpus::{EncodeReport, EncodeRequest, SplitStats, encode_corpus, text_bytes_by},
    plugin::{TextEncoder, TokenizerContext, TokenizerEntry, TokenizerPlugin, load, tokenizers},
    split::PATTERN,
    train::train,
};
use self::{bytes::ByteAlphabet, encode::Encoder};
use crate::{DataError, store::StoreError};

/// Placeholder that byte-level text never needs; it keeps `<s>` and `</s>` at LLaMA's ids.
pub const UNK: &str = "<unk>";
/// Begin of a sequence. Training documents do not carry it.
pub const BOS: &str = "<s>";
/// End of a document: the last token of each one in a store.
pub const EOS: &str = "</s>";
/// Ids 0 to 4 of a trained tokenizer; the last two are ChatML's, for a later instruction tuning.
pub const SPECIAL_TOKENS: [&str; 5] = [UNK, BOS, EOS, "<|im_start|>", "<|im_end|>"];

/// Names under which other tokenizers have the end of a document, in order of preference.
const KNOWN_EOS: [&str; 5] = [EOS, "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|im_end|>"];
/// Likewise for the begin.
const KNOWN_BOS: [&str; 4] = [BOS, "<|begin_of_text|>", "<bos>", "<|endoftext|>"];

/// How far training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainProgress {
    /// Counting words.
    Counting {
        /// Bytes of text read so far.
        bytes: u64,
    },
    /// Merging pairs.
    Merging {
        /// Tokens added so far.
        done: usize,
        /// Tokens to add at most.
        wanted: usize,
    },
}

/// What can go wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The vocabulary is smaller than what every byte-level vocabulary holds.
    #[error("tokenizer.vocab_size is {asked}, but the special tokens and the 256 bytes alone are {least}")]
    VocabTooSmall {
        /// Size that was asked for.
        asked: usize,
        /// Smallest possible size.
        least: usize,
    },
    /// There is nothing to train on.
    #[error("the documents hold no text to train a tokenizer on")]
    NoText,
    /// The tokenizer file is not one.
    #[error("{}: not a Hugging Face tokenizer: {reason}", place(path))]
    Format {
        /// The file; `None` for a tokenizer in memory.
        path: Option<PathBuf>,
        /// What the parser said.
        reason: String,
    },
    /// No token ends a document.
    #[error("{}: no end-of-document token: neither tokenizer_config.json names one, nor is there any of {}", place(path), KNOWN_EOS.join(" "))]
    NoEos {
        /// The file; `None` for a tokenizer in memory.
        path: Option<PathBuf>,
    },
    /// Text that the tokenizer cannot encode, or ids it does not have.
    #[error("cannot {action}: {reason}")]
    Text {
        /// `encode` or `decode`.
        action: &'static str,
        /// What the tokenizer said.
        reason: String,
    },
    /// The corpus to encode holds no document.
    #[error("{}: no document to encode", place(path))]
    EmptyCorpus {
        /// First input; `None` when there was no input at all.
        path: Option<PathBuf>,
    },
    /// A tokenizer's name or settings.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A file of documents cannot be read.
    #[error(transparent)]
    Data(Box<DataError>),
    /// The token store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<DataError> for TokenizerError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

fn place(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "tokenizer".into(), |p| p.display().to_string())
}

/// A tokenizer: one trained here, or any Hugging Face `tokenizer.json`. Shared freely between threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    encoder: Option<Encoder>,
    alphabet: Option<ByteAlphabet>,
    bos: Option<u32>,
    eos: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. A `tokenizer_config.json` beside it says which tokens begin and end a document;
    /// without it the usual names are tried.
    ///
    /// # Errors
    /// [`TokenizerError::Storage`], [`TokenizerError::Format`] or [`TokenizerError::NoEos`], each naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        Self::from_json(&storage::read_to_string(path)?, Some(path))
    }

    /// A tokenizer from the text of a `tokenizer.json`; `path` is for messages and for finding the file beside it.
    pub(crate) fn from_json(json: &str, path: Option<&Path>) -> Result<Self, TokenizerError> {
        let format = |reason: String| TokenizerError::Format { path: path.map(Into::into), reason };
        let document: serde_json::Value = serde_json::from_str(json).map_err(|e| format(e.to_string()))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| format(e.to_string()))?;
        // Text is text: `</s>` in a page must not end the document.
        inner.set_encode_special_tokens(true);
        let named = path.map(|p| p.with_file_name("tokenizer_config.json")).filter(|p| p.is_file());
        let named = named.map(|p| read_special_names(&p)).transpose()?.unwrap_or_default();
        let find = |name: &Option<String>, known: &[&str]| match name {
            Some(name) => inner.token_to_id(name),
            None => known.iter().find_map(|token| inner.token_to_id(token)),
        };
        let eos = find(&named.eos, &KNOWN_EOS).ok_or_else(|| TokenizerError::NoEos { path: path.map(Into::into) })?;
        let bos = find(&named.bos, &KNOWN_BOS);
        let byte_level = document.pointer("/decoder/type").is_some_and(|t| t == "ByteLevel");
        let encoder = Encoder::for_document(&document, &inner);
        Ok(Self { inner, encoder, alphabet: byte_level.then(ByteAlphabet::new), bos, eos })
    }

    /// The `tokenizer.json`, indented. Equal tokenizers give equal bytes.
    pub fn to_json(&self) -> String {
        self.inner.to_string(true).expect("a tokenizer that was read can be written")
    }

    /// Writes `tokenizer.json` to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`TokenizerError::Storage`] when it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TokenizerError> {
        Ok(storage::write_atomic(path, self.to_json())?)
    }

    /// Ids of `text`, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Text`]; a byte-level tokenizer encodes every text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        encode::encode_one(self, text)
    }

    /// [`Self::encode`] of each text, on all threads of the current rayon pool; the result does not depend on how many.
    ///
    /// # Errors
    /// As [`Self::encode`], for the first text that fails.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>, TokenizerError> {
        encode::encode_batch(self, texts)
    }

    /// The text of `ids`; special tokens are left out, and bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Text`] when an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        if let Some(unknown) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            let reason = format!("token id {unknown} is not in the vocabulary of {}", self.vocab_size());
            return Err(TokenizerError::Text { action: "decode", reason });
        }
        self.inner.decode(ids, true).map_err(|e| TokenizerError::Text { action: "decode", reason: e.to_string() })
    }

    /// The bytes one token stands for: its UTF-8, or part of a character. Empty for special tokens and unknown ids.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        if self.inner.get_added_vocabulary().is_special_token(&token) {
            return Vec::new();
        }
        match &self.alphabet {
            Some(alphabet) => alphabet.bytes(&token).unwrap_or_else(|| token.into_bytes()),
            None => self.inner.decode(&[id], true).map(String::into_bytes).unwrap_or_default(),
        }
    }

    /// Tokens, special ones included: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max().unwrap_or(0);
        largest as usize + 1
    }

    /// The token that ends a document.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// The token that begins a sequence, where the tokenizer has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Id of a token by its spelling in the file.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// Special tokens that a `tokenizer_config.json` names.
#[derive(Default)]
struct SpecialNames {
    bos: Option<String>,
    eos: Option<String>,
}

fn read_special_names(path: &Path) -> Result<SpecialNames, TokenizerError> {
    let text = storage::read_to_string(path)?;
    let config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| TokenizerError::Format { path: Some(path.into()), reason: e.to_string() })?;
    // A name is a string, or an object with the string as `content`.
    let name = |key: &str| {
        let value = config.get(key)?;
        value.get("content").unwrap_or(value).as_str().map(str::to_owned)
    };
    Ok(SpecialNames { bos: name("bos_token"), eos: name("eos_token") })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use internevo_core::config::TokenizerConfig;
    use proptest::prelude::*;

    use super::*;

    static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| {
        let text =
            "fn main() { println!(\"größer 世界 </s> 2024\"); } // the end of the line\r\n\n  the end ".repeat(9);
        train([text].into_iter(), &TokenizerConfig { vocab_size: 305, ..Default::default() }, &|_| ()).unwrap()
    });

    proptest! {
        #[test]
        fn decoding_gives_back_any_text(text in r"(\PC|[ \t\r\n]|</s>|<\|im_start\|>|the end|世界|[0-9a-z]{1,5}){0,40}") {
            let ids = SMALL.encode(&text).unwrap();
            prop_assert_eq!(SMALL.decode(&ids).unwrap(), text.clone());
            let bytes: Vec<u8> = ids.iter().flat_map(|id| SMALL.token_bytes(*id)).collect();
            prop_assert_eq!(bytes, text.into_bytes());
            prop_assert!(ids.iter().all(|id| *id as usize >= SPECIAL_TOKENS.len()));
        }

        #[test]
        fn ids_are_those_of_hugging_face(text in r"(\PC|[ \t\r\n]|the end|println!|größer|世界|[0-9a-z]{1,5}|</s>){0,40}") {
            let expected = SMALL.inner.encode_fast(text.as_str(), false).unwrap();
            prop_assert!(SMALL.encoder.is_some());
            prop_assert_eq!(SMALL.encode(&text).unwrap(), expected.get_ids());
            let batch = SMALL.encode_batch(&[text.as_str(), "the end", &text]).unwrap();
            prop_assert_eq!(&batch[2], expected.get_ids());
        }
    }

    /// [`SMALL`] with other stages.
    fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Tokenizer {
        let mut document = serde_json::from_str(&SMALL.to_json()).unwrap();
        change(&mut document);
        Tokenizer::from_json(&document.to_string(), None).unwrap()
    }

    static OTHERS: LazyLock<[Tokenizer; 3]> = LazyLock::new(|| {
        let gpt2 = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let three_digits = PATTERN.replacen(r"\p{N}|", r"\p{N}{1,3}|", 1);
        [
            changed(|document| document["pre_tokenizer"] = gpt2),
            changed(|document| document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = three_digits.into()),
            changed(|document| document["model"]["ignore_merges"] = true.into()),
        ]
    });

    proptest! {
        #[test]
        fn other_byte_level_tokenizers_take_the_short_cut_too(text in r"(\PC|[ \t\r\n]|the end|main\(\)|'s|größer| 世界|[0-9]{1,5}|x{500,600}){0,40}") {
            for tokenizer in &*OTHERS {
                prop_assert!(tokenizer.encoder.is_some());
                let expected = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
                prop_assert_eq!(tokenizer.encode(&text).unwrap(), expected.get_ids());
            }
        }
    }

    #[test]
    fn a_stage_that_the_short_cut_lacks_is_run_by_the_tokenizer_itself() {
        let lowercase = changed(|document| document["normalizer"] = serde_json::json!({"type": "Lowercase"}));
        assert!(lowercase.encoder.is_none());
        assert_eq!(lowercase.encode("The END").unwrap(), SMALL.encode("the end").unwrap());
    }

    #[test]
    fn a_saved_tokenizer_is_the_same_when_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        SMALL.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!(loaded.to_json(), SMALL.to_json());
        assert_eq!((loaded.bos_id(), loaded.eos_id(), loaded.vocab_size()), (Some(1), 2, 305));
        let text = "the end of größer";
        assert_eq!(loaded.encode(text).unwrap(), SMALL.encode(text).unwrap());
        assert!(loaded.encode(text).unwrap().len() < text.len() / 2);
    }

    #[test]
    fn the_config_beside_the_file_names_the_end_of_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        SMALL.save(&path).unwrap();
        let config = r#"{"eos_token": {"content": "<|im_end|>"}}"#;
        storage::write_atomic(folder.path().join("tokenizer_config.json"), config).unwrap();
        assert_eq!(Tokenizer::load(&path).unwrap().eos_id(), 4);
    }

    #[test]
    fn a_broken_file_and_an_unknown_id_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        storage::write_atomic(&path, &SMALL.to_json()[..5000]).unwrap();
        let error = Tokenizer::load(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("line"), "{error}");
        let error = SMALL.decode(&[7, 999]).unwrap_err().to_string();
        assert!(error.contains("999") && error.contains("305"), "{error}");
    }
}
