//! The manifest: which files make a checkpoint, their sizes and hashes. Written last, checked first.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use internevo_core::storage::StorageError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, CheckpointState, FORMAT, Found, tensors::read_json};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const STATE: &str = "state.json";

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) blake3: String,
}

/// What `manifest.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) step: u64,
    pub(super) files: Vec<FileRecord>,
}

impl Manifest {
    /// Reads the manifest and compares the sizes of all files.
    pub(super) fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Err(CheckpointError::damaged(path, "is missing: the checkpoint was not finished"));
        }
        let manifest: Self = read_json(&path)?;
        if manifest.format > FORMAT {
            let reason = format!("has format {}, this program reads up to {FORMAT}", manifest.format);
            return Err(CheckpointError::damaged(path, reason));
        }
        for record in &manifest.files {
            let path = folder.join(&record.name);
            let size = path.metadata().map_err(StorageError::at("read", &path))?.len();
            if size != record.size {
                let reason = format!("has {size} bytes instead of {}", record.size);
                return Err(CheckpointError::damaged(path, reason));
            }
        }
        Ok(manifest)
    }

    /// Names of the safetensors files.
    pub(super) fn tensor_files(&self) -> Vec<String> {
        self.files.iter().map(|f| f.name.clone()).filter(|name| name.ends_with(".safetensors")).collect()
    }
}

/// Reads every byte of the checkpoint at `path` and compares it with the manifest.
///
/// # Errors
/// The first file that is missing, truncated or altered.
pub fn verify(path: impl Into<PathBuf>) -> Result<Found, CheckpointError> {
    let path = path.into();
    let manifest = Manifest::read(&path)?;
    manifest.files.par_iter().try_for_each(|record| {
        let file = path.join(&record.name);
        let found = hash_file(&file)?;
        if found == record.blake3 {
            Ok(())
        } else {
            Err(CheckpointError::damaged(file, "has been altered: its BLAKE3 is not the manifest's"))
        }
    })?;
    let state: CheckpointState = read_json(&path.join(STATE))?;
    Ok(Found::new(path, state.step))
}

/// BLAKE3 of a file, as hex.
fn hash_file(path: &Path) -> Result<String, StorageError> {
    let mut file = File::open(path).map_err(StorageError::at("read", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(StorageError::at("read", path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}
