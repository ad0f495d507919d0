//! A model from whatever the user names: a Hugging Face folder, a run directory, a folder of checkpoints or one checkpoint;
//! and the tokenizer beside it. Writing weights as a checkpoint is here too.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use internevo_core::storage;
use internevo_data::tokenizer::{Tokenizer, TokenizerError};
use internevo_model::{
    Decoder, ModelError, ModelSpec,
    hf::{self, TokenizerFiles},
};
use internevo_parallel::checkpoint;

use crate::{error::OrUser as _, run_dir, train::state, user_bail};

/// A model's weights, not yet on a device.
#[derive(Debug)]
pub struct ModelSource {
    /// Dimensions.
    pub spec: ModelSpec,
    /// Parameters in table order.
    pub params: Vec<f32>,
    /// `tokenizer.json` beside the model.
    pub tokenizer_json: Option<PathBuf>,
    /// The folder that was read.
    pub origin: PathBuf,
}

/// A model that reads and writes text.
#[derive(Debug)]
pub struct TextModel {
    /// The decoder, without autodiff.
    pub decoder: Decoder,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Folders above a checkpoint in which its tokenizer may lie: `run/checkpoints/step-N`.
const TOKENIZER_LEVELS: usize = 3;

/// Loads the model at `path`.
///
/// # Errors
/// When there is none, or its files are damaged.
pub fn load(path: &Path) -> anyhow::Result<ModelSource> {
    if !path.exists() {
        user_bail!("{} does not exist", path.display());
    }
    if path.join("config.json").is_file() {
        let imported = hf::import(path).or_user()?;
        let (spec, params, tokenizer_json) = (imported.spec, imported.params, imported.tokenizer_json);
        return Ok(ModelSource { spec, params, tokenizer_json, origin: path.to_owned() });
    }
    let origin = find_checkpoint(path)?;
    let (spec, params) = state::load_weights(&origin)?;
    let absolute = std::path::absolute(&origin)?;
    let tokenizer_json =
        absolute.ancestors().take(TOKENIZER_LEVELS).map(|p| p.join("tokenizer.json")).find(|p| p.is_file());
    Ok(ModelSource { spec, params, tokenizer_json, origin })
}

/// The checkpoint that `path` means: itself, or the newest complete one of a run or a folder of checkpoints.
///
/// # Errors
/// When there is none.
pub fn find_checkpoint(path: &Path) -> anyhow::Result<PathBuf> {
    if state::is_checkpoint(path) {
        return Ok(path.to_owned());
    }
    let run = run_dir::resolve(path).ok();
    let folders = run.iter().map(|r| r.join(run_dir::CHECKPOINTS)).chain([path.to_owned()]);
    for folder in folders.filter(|f| f.is_dir()) {
        let search = checkpoint::newest_complete(&folder)?;
        for rejected in &search.rejected {
            tracing::warn!("{} is not used: {}", rejected.path.display(), rejected.why);
        }
        if let Some(newest) = search.found {
            return Ok(newest.path().to_owned());
        }
    }
    user_bail!("{} holds no model: neither a Hugging Face config.json nor a complete checkpoint", path.display())
}

impl ModelSource {
    /// The decoder on the CPU.
    ///
    /// # Errors
    /// When weights and dimensions contradict each other.
    pub fn decoder(&self) -> Result<Decoder, ModelError> {
        Decoder::from_flat(&self.spec, &self.params, &Device::flex())
    }

    /// The decoder with its tokenizer: `tokenizer` if given, else the one beside the model.
    ///
    /// # Errors
    /// When there is no tokenizer, or it has more tokens than the model.
    pub fn with_text(self, tokenizer: Option<&Path>) -> anyhow::Result<TextModel> {
        let Some(path) = tokenizer.or(self.tokenizer_json.as_deref()) else {
            user_bail!("{} has no tokenizer.json beside it; name one with --tokenizer", self.origin.display());
        };
        let tokenizer = Tokenizer::load(path).or_user()?;
        if tokenizer.vocab_size() > self.spec.vocab {
            let (tokens, rows) = (tokenizer.vocab_size(), self.spec.vocab);
            user_bail!("{} has {tokens} tokens, but the model has {rows}: it is another model's", path.display());
        }
        Ok(TextModel { decoder: self.decoder()?, tokenizer })
    }
}

impl TextModel {
    /// The text of generated tokens.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        decode(&self.tokenizer, tokens)
    }
}

/// The text of tokens; rows that only pad the vocabulary stand for nothing.
///
/// # Errors
/// When the tokenizer fails.
pub fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String, TokenizerError> {
    let known: Vec<u32> = tokens.iter().copied().filter(|t| (*t as usize) < tokenizer.vocab_size()).collect();
    tokenizer.decode(&known)
}

/// What an export says about a tokenizer: which of its tokens begin, end and pad.
///
/// # Errors
/// When it cannot be read.
pub fn tokenizer_files(path: &Path) -> Result<TokenizerFiles, TokenizerError> {
    use internevo_data::tokenizer::{BOS, EOS};
    let tokenizer = Tokenizer::load(path)?;
    let has = |token: &str| tokenizer.token_to_id(token).is_some().then(|| token.to_owned());
    Ok(TokenizerFiles { tokenizer_json: path.to_owned(), bos: has(BOS), eos: has(EOS), pad: has(EOS) })
}

/// Copies `tokenizer.json`, and `tokenizer_config.json` if it is there, into a folder.
///
/// # Errors
/// When one cannot be read or written.
pub fn copy_tokenizer(tokenizer: &Path, folder: &Path) -> anyhow::Result<()> {
    for path in [tokenizer.to_owned(), tokenizer.with_file_name("tokenizer_config.json")] {
        if path.is_file() {
            let name = path.file_name().expect("a file has a name");
            storage::write_atomic(folder.join(name), storage::read(&path)?)?;
        }
    }
    Ok(())
}
