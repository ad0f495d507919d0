//! Raw documents as JSONL files of bounded size, each complete or absent.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use internevo_core::storage::{AtomicFile, StorageError};

use super::manifest::Shard;
use crate::{DataError, document::Document};

/// A shard ends after the document that reaches this size: small enough for several threads to share a corpus of a few shards.
const SHARD_BYTES: u64 = 8_000_000;

/// Writes `raw/part-00000.jsonl` and so on.
pub struct ShardWriter {
    root: PathBuf,
    current: Option<(AtomicFile, blake3::Hasher, Shard)>,
    done: Vec<Shard>,
    line: Vec<u8>,
}

impl ShardWriter {
    /// A writer below `root`; nothing is made before the first document.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), current: None, done: Vec::new(), line: Vec::new() }
    }

    /// Appends a document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, document: &Document) -> Result<(), DataError> {
        if self.current.is_none() {
            let file = format!("raw/part-{:05}.jsonl", self.done.len());
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
