//! What can be wrong with a checkpoint; every message names the file, and the tensor where there is one.

use std::path::PathBuf;

use internevo_core::storage::StorageError;

use crate::comm::CommError;

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Ranks could not communicate.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// Another rank failed; this one gave up with it.
    #[error("rank {rank}: {message}")]
    OtherRank {
        /// The rank that failed.
        rank: usize,
        /// Its message.
        message: String,
    },
    /// A file is missing, truncated or altered.
    #[error("checkpoint file {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is not what the model needs.
    #[error("checkpoint file {}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file, or the folder when no file holds the tensor.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The checkpoint is of another kind of training.
    #[error("checkpoint {}: {reason}", path.display())]
    Incompatible {
        /// The checkpoint.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
}

impl CheckpointError {
    pub(super) fn damaged(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }

    pub(super) fn tensor(path: impl Into<PathBuf>, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.into(), tensor: tensor.to_owned(), reason: reason.into() }
    }
}

/// Makes one rank's failure everybody's: the rank that failed keeps its own error, the others learn which rank it was.
pub(super) fn together<T>(
    comm: &dyn crate::comm::Communicator,
    result: Result<T, CheckpointError>,
) -> Result<T, CheckpointError> {
    // A failed world cannot agree on anything.
    if let Err(CheckpointError::Comm(_)) = &result {
        return result;
    }
    let message = result.as_ref().err().map(ToString::to_string);
    match (result, crate::comm::agree(comm, message.as_deref())?) {
        (Ok(_), Some((rank, message))) => Err(CheckpointError::OtherRank { rank, message }),
        (result, _) => result,
    }
}
