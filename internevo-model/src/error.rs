//! The crate's error type. Every variant carries what is needed to act on it: path, key, tensor name, expected and found.

use std::path::PathBuf;

use internevo_core::storage::StorageError;

/// What can go wrong with a model: its description, its files, or a request to generate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The dimensions do not describe a decoder.
    #[error("model: {}", problems.join("; "))]
    Spec {
        /// Every violated rule, each starting with the configuration key.
        problems: Vec<String>,
    },
    /// A flat parameter vector of the wrong length.
    #[error("expected {expected} parameters for this model, found {found}")]
    ParameterCount {
        /// What the model needs.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// A token that the embedding has no row for.
    #[error("token {token} at position {position} is outside the vocabulary of {vocab} tokens")]
    Token {
        /// The token id.
        token: u32,
        /// Its place in the prompt or batch.
        position: usize,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// A request to generate that cannot be met.
    #[error("generation: {0}")]
    Generation(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A JSON file that does not parse.
    #[error("{}:{}:{}: {source}", path.display(), source.line(), source.column())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key of a JSON file with a missing, wrong or unsupported value.
    #[error("{}: {key}: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A safetensors file that is damaged.
    #[error("{}: {message}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tensors of a checkpoint are not the ones its configuration asks for.
    #[error("{}: {} tensor problem(s): {}", dir.display(), problems.len(), problems.join("; "))]
    Tensors {
        /// The model's folder.
        dir: PathBuf,
        /// Each missing, unexpected or misshapen tensor, with its file where it has one.
        problems: Vec<String>,
    },
    /// The export's target holds something that is not an export.
    #[error(
        "{} is not empty and holds no config.json, so it is no earlier export: nothing was overwritten; \
         name another folder or empty this one",
        path.display()
    )]
    TargetOccupied {
        /// The target folder.
        path: PathBuf,
    },
}
