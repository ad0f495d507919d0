//! Writing a Hugging Face folder. It appears under its name only when it is complete.

use std::{
    fs,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, StorageError};
use serde_json::{Map, Value, json};

use super::{
    Format, config,
    layout::{self, HfTensor},
    safetensors_file,
    tokenizer::{self, TokenIds, TokenizerFiles},
};
use crate::{error::ModelError, spec::ModelSpec};

/// The shard size of `transformers` 4: 5 GB.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// What to write beside the weights, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportOptions {
    /// Names and layout of the tensors.
    pub format: Format,
    /// Tokenizer to put beside the weights.
    pub tokenizer: Option<TokenizerFiles>,
    /// Most bytes of tensors per file; above it the weights are sharded. A single larger tensor gets a file of its own.
    pub max_shard_bytes: u64,
}

impl ExportOptions {
    /// No tokenizer, shards of [`DEFAULT_SHARD_BYTES`].
    pub fn new(format: Format) -> Self {
        Self { format, tokenizer: None, max_shard_bytes: DEFAULT_SHARD_BYTES }
    }

    /// With a tokenizer.
    #[must_use]
    pub fn with_tokenizer(self, tokenizer: Option<TokenizerFiles>) -> Self {
        Self { tokenizer, ..self }
    }

    /// With another shard size, bytes.
    #[must_use]
    pub fn with_max_shard_bytes(self, max_shard_bytes: u64) -> Self {
        Self { max_shard_bytes, ..self }
    }
}

/// Writes `LlamaForCausalLM` with the defaults of [`ExportOptions`].
///
/// # Errors
/// As [`export`].
pub fn export_llama(
    dir: impl AsRef<Path>,
    spec: &ModelSpec,
    params: &[f32],
    tokenizer: Option<TokenizerFiles>,
) -> Result<(), ModelError> {
    export(dir, spec, params, &ExportOptions::new(Format::Llama).with_tokenizer(tokenizer))
}

/// Writes `InternLM2ForCausalLM` with the defaults of [`ExportOptions`].
///
/// # Errors
/// As [`export`].
pub fn export_internlm2(
    dir: impl AsRef<Path>,
    spec: &ModelSpec,
    params: &[f32],
    tokenizer: Option<TokenizerFiles>,
) -> Result<(), ModelError> {
    export(dir, spec, params, &ExportOptions::new(Format::InternLm2).with_tokenizer(tokenizer))
}

/// Writes the folder `dir` from flat f32 parameters in table order ([`crate::param_table`]). An earlier export at `dir`
/// is replaced only once the new one is complete.
///
/// # Errors
/// Wrong number of parameters, a tokenizer that does not fit, a spec that the format cannot say, a `dir` that holds
/// something else, or a file that cannot be written; `dir` is then as before.
pub fn export(
    dir: impl AsRef<Path>,
    spec: &ModelSpec,
    params: &[f32],
    options: &ExportOptions,
) -> Result<(), ModelError> {
    let dir = dir.as_ref();
    spec.validate()?;
    if params.len() != spec.parameter_count() {
        return Err(ModelError::ParameterCount { expected: spec.parameter_count(), found: params.len() });
    }
    if options.format == Format::InternLm2 && spec.heads * spec.head_dim != spec.hidden {
        let problem = format!(
            "model.head_dim: InternLM2 has hidden_size = heads * head_dim, this model {} and {} * {}; export hf-llama",
            spec.hidden, spec.heads, spec.head_dim
        );
        return Err(ModelError::Spec { problems: vec![problem] });
    }
    let tokenizer = options.tokenizer.as_ref().map(|files| tokenizer::check(files, spec)).transpose()?;
    let ids = tokenizer.as_ref().map_or(TokenIds::default(), |t| t.ids);

    let staged = StagedFolder::create(dir)?;
    write_weights(staged.path(), spec, params, options)?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer::write(staged.path(), tokenizer, spec)?;
    }
    tokenizer::write_json(&staged.path().join("generation_config.json"), &config::generation_config_json(&ids))?;
    let config = config::config_json(options.format, spec, &ids);
    tokenizer::write_json(&staged.path().join("config.json"), &config)?;
    staged.commit()
}

fn write_weights(dir: &Path, spec: &ModelSpec, params: &[f32], options: &ExportOptions) -> Result<(), ModelError> {
    let shards = shards(layout::tensors(options.format, spec), options.max_shard_bytes);
    if let [only] = &shards[..] {
        return safetensors_file::write(&dir.join("model.safetensors"), only, params);
    }
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        safetensors_file::write(&dir.join(&file), shard, params)?;
        weight_map.extend(shard.iter().map(|t| (t.name.clone(), Value::from(file.clone()))));
    }
    let index = json!({ "metadata": { "total_size": size_of_val(params) }, "weight_map": weight_map });
    tokenizer::write_json(&dir.join("model.safetensors.index.json"), &index)
}

fn shards(tensors: Vec<HfTensor>, max_bytes: u64) -> Vec<Vec<HfTensor>> {
    let mut shards: Vec<Vec<HfTensor>> = vec![Vec::new()];
    let mut filled = 0u64;
    for tensor in tensors {
        let bytes = (tensor.count() * size_of::<f32>()) as u64;
        let current = shards.last_mut().expect("starts with one shard");
        if !current.is_empty() && filled + bytes > max_bytes {
            shards.push(vec![tensor]);
            filled = bytes;
        } else {
            current.push(tensor);
            filled += bytes;
        }
    }
    shards
}

/// A folder that is filled under a temporary name beside its target; dropped before `commit`, it leaves nothing.
struct StagedFolder {
    staging: PathBuf,
    replaced: PathBuf,
    target: PathBuf,
}

impl StagedFolder {
    fn create(target: &Path) -> Result<Self, ModelError> {
        let occupied = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        if (occupied && !target.join("config.json").is_file()) || target.is_file() {
            return Err(ModelError::TargetOccupied { path: target.to_owned() });
        }
        let target = std::path::absolute(target).map_err(StorageError::at("resolve", target))?;
        let beside = |end: &str| {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            target.with_file_name(format!(".{name}.{}.{end}", std::process::id()))
        };
        let staged = Self { staging: beside("tmp"), replaced: beside("old"), target };
        // Left over from a killed process that had our id.
        let _ = fs::remove_dir_all(&staged.staging);
        storage::create_dir_all(&staged.staging)?;
        Ok(staged)
    }

    fn path(&self) -> &Path {
        &self.staging
    }

    fn commit(self) -> Result<(), ModelError> {
        let had_one = self.target.exists();
        if had_one {
            fs::rename(&self.target, &self.replaced).map_err(StorageError::at("replace", &self.target))?;
        }
        if let Err(error) = fs::rename(&self.staging, &self.target) {
            if had_one {
                // Put the earlier export back; if even that fails, it is still there under its other name.
                let _ = fs::rename(&self.replaced, &self.target);
            }
            return Err(StorageError::at("write", &self.target)(error).into());
        }
        storage::sync_parent(&self.target)?;
        if had_one {
            fs::remove_dir_all(&self.replaced).map_err(StorageError::at("remove", &self.replaced))?;
        }
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // After a commit the temporary name is gone and this does nothing.
        let _ = fs::remove_dir_all(&self.staging);
    }
}
