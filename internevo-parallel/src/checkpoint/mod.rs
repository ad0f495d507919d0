//! Checkpoints that any layout can resume from: sharded safetensors written from the state table, committed atomically.
//!
//! A checkpoint is a folder `step-00000100/`:
//!
//! | file | holds |
//! |---|---|
//! | `model-00001-of-00002.safetensors` | whole parameters, `tok_embeddings.weight`, …, divided among the writers by size |
//! | `optimizer-00001-of-00002.safetensors` | whole optimizer state of the same parameters, `optimizer.exp_avg.norm.weight` |
//! | `state.json` | [`CheckpointState`]: step, layout it was written on, parameter table, the trainer's own state |
//! | `manifest.json` | size and BLAKE3 of every other file; written last |
//!
//! Every file's `__metadata__` carries `DCP_SHARDING_INFO`, so `torch.distributed.checkpoint`'s `HuggingFaceStorageReader`
//! reads the folder as it is. Files are written into `.step-00000100.tmp`, synced, and the folder is renamed: under its own
//! name a checkpoint is whole. The writers are the ranks of the first copy of the state, which bring the parameters together
//! from their shards as they write: files of different layouts hold the same tensors. (Optimizer files of flattened slices,
//! as earlier versions wrote them, are read too.)
//!
//! Not here: when to save, and what `trainer` holds (the trainer).

mod error;
mod folder;
mod load;
mod manifest;
mod save;
mod tensors;

pub use error::CheckpointError;
pub use folder::{Found, Rejected, Search, find, newest_complete, prune, verify_together};
pub use load::{Content, load, read_model, read_state};
pub use manifest::verify;
pub use save::{SaveRequest, save};
use serde::{Deserialize, Serialize};

use crate::state::ParamSpec;

/// Version of the format; readers refuse a newer one.
pub const FORMAT: u32 = 1;

/// What `state.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Version of the format.
    pub format: u32,
    /// Optimizer step after which it was written.
    pub step: u64,
    /// Updates applied so far; `step` less the skipped ones.
    pub updates: u64,
    /// Steps skipped so far.
    pub skipped_steps: u64,
    /// Sizes of the groups it was written on; reading needs no other than its own.
    pub layout: SavedLayout,
    /// Which optimizer, and the names of its buffers.
    pub optimizer: SavedOptimizer,
    /// Hash of the resolved configuration, for the trainer's comparison.
    pub config_hash: String,
    /// Plugins that took part, `kind name crate version`.
    pub plugins: Vec<String>,
    /// Parameters in flat order.
    pub parameters: Vec<ParamSpec>,
    /// The trainer's own state: loader position, counters.
    pub trainer: serde_json::Value,
}

/// Sizes of the groups a checkpoint was written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLayout {
    /// All ranks.
    pub world: usize,
    /// Ranks of the data-parallel group.
    pub data: usize,
    /// Ranks of a ZeRO group.
    pub zero1: usize,
    /// Ranks of a tensor group.
    #[serde(default = "one")]
    pub tensor: usize,
    /// Ranks of a weight group.
    #[serde(default = "one")]
    pub weight: usize,
}

/// Groups that earlier versions did not have.
fn one() -> usize {
    1
}

/// The optimizer a checkpoint was written with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOptimizer {
    /// Its name.
    pub kind: String,
    /// Names of its buffers.
    pub state: Vec<String>,
}

/// Name of a parameter's optimizer buffer in the files.
fn state_key(buffer: &str, parameter: &str) -> String {
    format!("optimizer.{buffer}.{parameter}")
}
