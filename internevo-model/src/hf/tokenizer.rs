//! The tokenizer files of an export: `tokenizer.json` is copied, `tokenizer_config.json` and `special_tokens_map.json`
//! are written so that `AutoTokenizer` finds a `PreTrainedTokenizerFast`.
//!
//! Not here: training or applying a tokenizer.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use internevo_core::storage;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{error::ModelError, spec::ModelSpec};

/// A trained tokenizer and the texts of its special tokens (each must be in the file).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// Path of a Hugging Face `tokenizer.json`.
    pub tokenizer_json: PathBuf,
    /// Text of the begin-of-sequence token, e.g. `<s>`.
    pub bos: Option<String>,
    /// Text of the end-of-sequence token, e.g. `</s>`.
    pub eos: Option<String>,
    /// Text of the padding token.
    pub pad: Option<String>,
}

/// Ids of the special tokens; absent ones are `null` in the export.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenIds {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub pad: Option<u32>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: Vocabulary,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Vocabulary {
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// A tokenizer that has been read and fits the model.
pub(super) struct Checked {
    bytes: Vec<u8>,
    texts: Map<String, Value>,
    pub ids: TokenIds,
}

/// Reads the tokenizer, looks its special tokens up and checks that the embedding has a row for every token.
pub(super) fn check(files: &TokenizerFiles, spec: &ModelSpec) -> Result<Checked, ModelError> {
    let path = &files.tokenizer_json;
    let bytes = storage::read(path)?;
    let parsed: TokenizerJson =
        serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { path: path.clone(), source })?;
    let mut ids = parsed.model.vocab;
    ids.extend(parsed.added_tokens.into_iter().map(|t| (t.content, t.id)));
    let wrong = |key: &str, message: String| ModelError::Key { path: path.clone(), key: key.to_owned(), message };
    if let Some((token, id)) = ids.iter().max_by_key(|(_, id)| **id)
        && *id as usize >= spec.vocab
    {
        return Err(wrong("model.vocab", format!("token {token:?} is {id}, but the model has {} rows", spec.vocab)));
    }
    let find = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => {
            ids.get(text).copied().map(Some).ok_or_else(|| wrong("added_tokens", format!("there is no token {text:?}")))
        }
    };
    let found = TokenIds { bos: find(&files.bos)?, eos: find(&files.eos)?, pad: find(&files.pad)? };
    let texts = [("bos_token", &files.bos), ("eos_token", &files.eos), ("pad_token", &files.pad)];
    let texts =
        texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::from(text.clone()?)))).collect();
    Ok(Checked { bytes, texts, ids: found })
}

/// Writes the three files into `dir`.
pub(super) fn write(dir: &Path, tokenizer: &Checked, spec: &ModelSpec) -> Result<(), ModelError> {
    storage::write_atomic(dir.join("tokenizer.json"), &tokenizer.bytes)?;
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("model_max_length".into(), spec.max_positions.into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    config.extend(tokenizer.texts.clone());
    write_json(&dir.join("tokenizer_config.json"), &Value::Object(config))?;
    write_json(&dir.join("special_tokens_map.json"), &Value::Object(tokenizer.texts.clone()))
}

/// Writes `value` indented, with a final line end.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value is JSON");
    text.push('\n');
    Ok(storage::write_atomic(path, text)?)
}
