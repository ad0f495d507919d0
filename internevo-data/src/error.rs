//! What can go wrong in the corpus pipeline. Token stores, tokenizer and loader have their own error types beside them.

use std::path::PathBuf;

use internevo_core::{plugin::PluginError, storage::StorageError};

/// An error of the corpus pipeline.
///
/// A broken document is no error: the run goes on, and the document is written to `rejected/` with its reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file whose content is not what it has to be.
    #[error("{}:{line}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The collection of the corpus found nothing.
    #[error("no text was found for the corpus; looked for {looked_for}")]
    EmptyCorpus {
        /// Where and for what it looked.
        looked_for: String,
    },
    /// The input of a stage holds nothing that a stage reads.
    #[error(
        "{} holds no documents: expected .jsonl or .warc (also .gz, .zst), HTML, Markdown, text or source files that are not empty",
        path.display()
    )]
    EmptyInput {
        /// The file or folder.
        path: PathBuf,
    },
    /// No stage of that name.
    #[error("unknown stage `{stage}`; stages are {known}")]
    UnknownStage {
        /// The name asked for.
        stage: String,
        /// All names, comma separated.
        known: String,
    },
    /// A setting that no run can satisfy.
    #[error("{key}: {reason}")]
    Setting {
        /// The key of the configuration.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// The run was asked to stop. What it had finished is recorded: the same command goes on from there.
    #[error("stage `{stage}` was interrupted; run the same command again to go on")]
    Interrupted {
        /// The stage.
        stage: String,
    },
    /// Another process writes the same folder.
    #[error("{} is being written by another process; wait for it or choose another output", path.display())]
    Busy {
        /// The output folder.
        path: PathBuf,
    },
    /// A filter that can judge no more documents.
    #[error("filter `{filter}`: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What happened, with the document.
        reason: String,
    },
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's answer.
        reason: String,
    },
    /// A model file that is not what it has to be.
    #[error("{}: at byte {offset}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The place in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A filter's name, settings or model.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl DataError {
    /// [`DataError::Invalid`] at `path`:`line`.
    pub fn invalid(path: impl Into<PathBuf>, line: u64, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), line, reason: reason.into() }
    }
}
