//! What does not fit into memory: sorting and look-up with temporary files, in a folder that vanishes with its owner.
//!
//! Everything here gives the same results whatever its share of memory is; a smaller one only costs time.
//!
//! | file | holds |
//! |---|---|
//! | `sorter.rs` | external sort of items of a fixed size |
//! | `store.rs` | values by document number: in memory, else in a file behind a bounded cache |
//! | `table.rs` | fixed-size rows by number: in memory, else in a file |

mod sorter;
mod store;
mod table;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use internevo_core::storage::{self, StorageError};

pub use self::{
    sorter::{Item, Merge, Sorted, Sorter},
    store::{Blob, Store},
    table::Table,
};

/// A folder of temporary files. It is made with its first file and removed when the value is dropped; what a killed process left
/// in it is removed first.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    files: AtomicU32,
}

impl Scratch {
    /// Will use `folder`, which must belong to nobody else.
    ///
    /// # Errors
    /// When an older folder of that name cannot be removed.
    pub fn new(folder: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let folder = folder.into();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::at("remove", folder)(error)),
            _ => Ok(Self { folder, files: AtomicU32::new(0) }),
        }
    }

    /// How many files were written so far: 0 when everything fitted into memory.
    pub fn files(&self) -> u32 {
        self.files.load(Ordering::Relaxed)
    }

    /// A new empty file, open for reading and writing.
    fn create(&self) -> Result<TemporaryFile, StorageError> {
        storage::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{:06}", self.files.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        Ok(TemporaryFile { file: file.map_err(StorageError::at("create", &path))?, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays is removed by the next run; there is nobody to tell.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An open temporary file and its name for error messages.
#[derive(Debug)]
struct TemporaryFile {
    file: File,
    path: PathBuf,
}

impl TemporaryFile {
    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StorageError {
        StorageError::at(action, self.path.clone())
    }

    /// Fills `buffer` from `offset`.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let read = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(buffer));
        read.map_err(self.failed("read"))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_go_with_their_owner_and_leftovers_go_first() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = dir.path().join("scratch");
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("000000"), "left by a killed run").expect("file");
        let scratch = Scratch::new(&folder).expect("scratch");
        assert!(!folder.exists(), "nothing is made before it is needed");
        scratch.create().expect("file");
        assert_eq!(scratch.files(), 1);
        drop(scratch);
        assert!(!folder.exists());
    }
}
