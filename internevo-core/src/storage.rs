//! Files that are either whole or absent: atomic replacement, durable folders, and errors that name the path.
//!
//! Everything internevo stores goes through this file, so that a full disk or a killed process never leaves a file that
//! looks finished.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A failed operation on a path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {}", path.display(), explain(source))]
pub struct StorageError {
    /// What was tried: `read`, `write`, `create`, …
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl StorageError {
    /// Wraps an I/O error; meant for `map_err(StorageError::at("read", path))`.
    pub fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "the disk is full (nothing written before was lost; free some space and run the same command again)".into()
        }
        _ => error.to_string(),
    }
}

/// A file that appears under its name only when [`AtomicFile::commit`] succeeds; dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    file: Option<io::BufWriter<File>>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts writing `target`; missing parent folders are made.
    ///
    /// # Errors
    /// When the folder or the temporary file beside `target` cannot be made.
    pub fn create(target: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let target = target.into();
        if let Some(parent) = target.parent() {
            create_dir_all(parent)?;
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(name);
        let file = File::create(&temporary).map_err(StorageError::at("create", &temporary))?;
        Ok(Self { file: Some(io::BufWriter::new(file)), temporary, target })
    }

    /// Flushes, syncs and renames the file to its name.
    ///
    /// # Errors
    /// When any of these fails; the target is then untouched.
    pub fn commit(mut self) -> Result<(), StorageError> {
        let writer = self.file.take().expect("a file is committed once");
        let file = writer.into_inner().map_err(|e| e.into_error()).map_err(StorageError::at("write", &self.target))?;
        file.sync_all().map_err(StorageError::at("write", &self.target))?;
        fs::rename(&self.temporary, &self.target).map_err(StorageError::at("write", &self.target))?;
        sync_parent(&self.target)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("open until commit").write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("open until commit").flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After a commit the temporary name is gone and this does nothing.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes `bytes` to `path` as a whole or not at all.
///
/// # Errors
/// When the file cannot be written; an older file at `path` is then untouched.
pub fn write_atomic(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<(), StorageError> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes.as_ref()).map_err(StorageError::at("write", path))?;
    file.commit()
}

/// Reads a whole file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, StorageError> {
    fs::read(path.as_ref()).map_err(StorageError::at("read", path.as_ref()))
}

/// Reads a whole UTF-8 file.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> Result<String, StorageError> {
    fs::read_to_string(path.as_ref()).map_err(StorageError::at("read", path.as_ref()))
}

/// Makes a folder and its parents.
///
/// # Errors
/// When one of them cannot be made.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<(), StorageError> {
    fs::create_dir_all(path.as_ref()).map_err(StorageError::at("create", path.as_ref()))
}

/// Makes a rename or a new entry in `path`'s folder durable.
///
/// # Errors
/// When the folder cannot be synced.
pub fn sync_parent(path: impl AsRef<Path>) -> Result<(), StorageError> {
    let parent = match path.as_ref().parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|d| d.sync_all()).map_err(StorageError::at("sync", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncommitted_file_leaves_the_old_one_and_no_trace() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("state.json");
        write_atomic(&path, "old").expect("write");
        let mut file = AtomicFile::create(&path).expect("create");
        file.write_all(b"half").expect("write");
        drop(file);
        assert_eq!(read_to_string(&path).expect("read"), "old");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn an_error_names_the_path() {
        let message = read("/no/such/file").expect_err("absent").to_string();
        assert!(message.contains("/no/such/file"), "{message}");
    }
}
