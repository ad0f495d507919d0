//! Read-only files mapped into memory: token stores, models, lists.

use std::{
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
};

use internevo_core::storage::StorageError;
use memmap2::Mmap;

/// A mapped file and its path.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = File::open(&path).map_err(StorageError::at("read", &path))?;
        Self::of(&file, path)
    }

    /// Maps an open file, whose path is `path`.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn of(file: &File, path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        // SAFETY: stores, models and lists are written under a temporary name and renamed when whole, by internevo as by KenLM's
        // documentation, so a file under its name is never shortened or changed in place; replacing it leaves this map on the old
        // file. Whoever does change one in place while it is used gets wrong numbers, and from a shortened one a SIGBUS, as with every
        // program that maps files.
        let map = unsafe { Mmap::map(file) }.map_err(StorageError::at("read", &path))?;
        Ok(Self { path, map })
    }

    /// Where the file was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}
