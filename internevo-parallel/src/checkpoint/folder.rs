//! The folder that holds a job's checkpoints: finding the newest whole one, removing old ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use internevo_core::storage::{StorageError, sync_parent};
use serde::{Deserialize, Serialize};

use super::{CheckpointError, error::together, manifest::MANIFEST, verify};
use crate::comm::{Communicator, gather_bytes};

const PREFIX: &str = "step-";

/// Name of the folder of a step's checkpoint.
pub(super) fn step_name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// Where a checkpoint is put together or taken apart; the leading dot keeps it from being taken for one.
pub(super) fn temporary_name(step: u64, what: &str) -> String {
    format!(".{}.{what}", step_name(step))
}

/// A checkpoint whose every byte was compared with its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    path: PathBuf,
    step: u64,
}

impl Found {
    pub(super) fn new(path: PathBuf, step: u64) -> Self {
        Self { path, step }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Optimizer step after which it was written.
    pub fn step(&self) -> u64 {
        self.step
    }
}

/// A folder that looked like a checkpoint and is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The folder.
    pub path: PathBuf,
    /// What is wrong with it, naming the file.
    pub why: String,
}

/// Result of looking for a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The newest whole checkpoint.
    pub found: Option<Found>,
    /// Newer ones that are not whole, and leftovers of interrupted saves; newest first.
    pub rejected: Vec<Rejected>,
}

/// Looks for the newest whole checkpoint in `dir`; reads the manifests and hashes from the newest on until one is whole.
/// A folder that does not exist holds none.
///
/// # Errors
/// When `dir` cannot be listed. A damaged checkpoint is no error but [`Search::rejected`].
pub fn newest_complete(dir: &Path) -> Result<Search, CheckpointError> {
    let mut search = Search::default();
    let listing = Listing::read(dir)?;
    let leftover = |path: &PathBuf| Rejected {
        path: path.clone(),
        why: "half-written: the save that made it was interrupted; pruning removes it".into(),
    };
    search.rejected.extend(listing.leftovers.iter().map(leftover));
    for (_, path) in listing.steps.iter().rev() {
        match verify(path) {
            Ok(found) => {
                search.found = Some(found);
                break;
            }
            Err(error) => search.rejected.push(Rejected { path: path.clone(), why: error.to_string() }),
        }
    }
    Ok(search)
}

/// [`newest_complete`] by the first rank of `comm`, told to all. Collective.
///
/// # Errors
/// As [`newest_complete`], on every rank; or a failed world.
pub fn find(comm: &dyn Communicator, dir: &Path) -> Result<Search, CheckpointError> {
    let mine = if comm.rank() == 0 { newest_complete(dir) } else { Ok(Search::default()) };
    let mine = together(comm, mine)?;
    let bytes = serde_json::to_vec(&mine).map_err(|e| CheckpointError::damaged(dir, e.to_string()))?;
    let all = gather_bytes(comm, &bytes)?;
    serde_json::from_slice(&all[0]).map_err(|e| CheckpointError::damaged(dir, e.to_string()))
}

/// [`verify`] by the first rank of `comm`, told to all. Collective.
///
/// # Errors
/// As [`verify`], on every rank; or a failed world.
pub fn verify_together(comm: &dyn Communicator, path: &Path) -> Result<Found, CheckpointError> {
    let mine = if comm.rank() == 0 { verify(path).map(Some) } else { Ok(None) };
    let mine = together(comm, mine)?;
    let bytes = serde_json::to_vec(&mine).map_err(|e| CheckpointError::damaged(path, e.to_string()))?;
    let all = gather_bytes(comm, &bytes)?;
    serde_json::from_slice(&all[0]).map_err(|e| CheckpointError::damaged(path, e.to_string()))
}

/// Removes all but the `keep_last` newest checkpoints of `dir`, and what interrupted saves left; 0 keeps all checkpoints.
/// Folders without a manifest do not count as checkpoints and stay. One rank calls this, while no other saves.
///
/// # Errors
/// When a folder cannot be listed or removed.
pub fn prune(dir: &Path, keep_last: usize) -> Result<Vec<PathBuf>, CheckpointError> {
    let listing = Listing::read(dir)?;
    for path in &listing.leftovers {
        remove_dir(path)?;
    }
    let whole: Vec<_> = listing.steps.into_iter().filter(|(_, path)| path.join(MANIFEST).exists()).collect();
    let surplus = if keep_last == 0 { 0 } else { whole.len().saturating_sub(keep_last) };
    let mut removed = Vec::new();
    for (step, path) in whole.into_iter().take(surplus) {
        // Renamed first: a removal that is interrupted leaves no folder that looks like a checkpoint.
        let doomed = dir.join(temporary_name(step, "old.tmp"));
        fs::rename(&path, &doomed).map_err(StorageError::at("remove", &path))?;
        remove_dir(&doomed)?;
        removed.push(path);
    }
    if dir.exists() {
        sync_parent(dir.join(MANIFEST))?;
    }
    Ok(removed)
}

/// Removes a folder if it is there.
pub(super) fn remove_dir(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StorageError::at("remove", path)(e)),
        _ => Ok(()),
    }
}

/// What is in the folder.
struct Listing {
    /// Folders named like checkpoints, oldest first.
    steps: Vec<(u64, PathBuf)>,
    /// Temporary folders, sorted by name.
    leftovers: Vec<PathBuf>,
}

impl Listing {
    fn read(dir: &Path) -> Result<Self, StorageError> {
        let mut listing = Self { steps: Vec::new(), leftovers: Vec::new() };
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(listing),
            entries => entries.map_err(StorageError::at("list", dir))?,
        };
        for entry in entries {
            let path = entry.map_err(StorageError::at("list", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(&format!(".{PREFIX}")) && name.ends_with(".tmp") {
                listing.leftovers.push(path);
            } else if let Some(step) = name.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) {
                listing.steps.push((step, path));
            }
        }
        listing.steps.sort();
        listing.leftovers.sort();
        Ok(listing)
    }
}
