//! Read-only files mapped into memory.

use std::{
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
};

use internevo_core::storage::StorageError;
use memmap2::Mmap;

/// A mapped file and its path.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    pub(super) fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = File::open(&path).map_err(StorageError::at("read", &path))?;
        // SAFETY: stores are written under a temporary name and renamed when whole, so a file under its name is never
        // shortened or changed in place; replacing it leaves this map on the old file.
        let map = unsafe { Mmap::map(&file) }.map_err(StorageError::at("read", &path))?;
        Ok(Self { path, map })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}
