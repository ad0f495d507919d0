//! Raw documents as JSONL files of bounded size, each complete or absent.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, AtomicFile, StorageError};

use super::manifest::Shard;
use crate::{DataError, document::Document};

/// Folder of the shards, below the corpus folder.
const FOLDER: &str = "raw";

/// A shard ends after the document that reaches this size: small enough for several threads to share a corpus of a few
/// shards.
const SHARD_BYTES: u64 = 8_000_000;

/// Writes `raw/part-00000.jsonl` and so on.
pub struct ShardWriter {
    root: PathBuf,
    current: Option<(AtomicFile, blake3::Hasher, Shard)>,
    done: Vec<Shard>,
    line: Vec<u8>,
}

impl ShardWriter {
    /// A writer below `root`. Shards of an earlier collection are removed: whoever reads the folder reads all of it.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn create(root: &Path) -> Result<Self, DataError> {
        let folder = root.join(FOLDER);
        storage::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder).map_err(StorageError::at("list", &folder))? {
            let path = entry.map_err(StorageError::at("list", &folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("part-") && name.ends_with(".jsonl") {
                fs::remove_file(&path).map_err(StorageError::at("remove", &path))?;
            }
        }
        Ok(Self { root: root.to_owned(), current: None, done: Vec::new(), line: Vec::new() })
    }

    /// Appends a document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, document: &Document) -> Result<(), DataError> {
        if self.current.is_none() {
            let file = format!("{FOLDER}/part-{:05}.jsonl", self.done.len());
            let target = AtomicFile::create(self.root.join(&file))?;
            self.current = Some((target, blake3::Hasher::new(), Shard { file, ..Shard::default() }));
        }
        let (file, hasher, shard) = self.current.as_mut().expect("opened above");
        self.line.clear();
        document.write_line(&mut self.line);
        file.write_all(&self.line).map_err(StorageError::at("write", self.root.join(&shard.file)))?;
        hasher.update(&self.line);
        shard.documents += 1;
        shard.bytes += self.line.len() as u64;
        if shard.bytes >= SHARD_BYTES { self.close() } else { Ok(()) }
    }

    /// Completes the last shard and lists all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<Vec<Shard>, DataError> {
        self.close()?;
        Ok(self.done)
    }

    fn close(&mut self) -> Result<(), DataError> {
        if let Some((file, hasher, mut shard)) = self.current.take() {
            file.commit()?;
            shard.blake3 = hasher.finalize().to_hex().to_string();
            self.done.push(shard);
        }
        Ok(())
    }
}
