//! Tokens as JSON lines, `{"id": "…", "tokens": [1, 2]}`, for programs that read nothing else.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::write::GzEncoder;
use internevo_core::storage::{AtomicFile, StorageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StoreError, TokenSink, with_suffix};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gz,
    /// zstd.
    Zst,
}

/// Writes `<prefix>.jsonl`, `.jsonl.gz` or `.jsonl.zst`; it appears when it is finished.
pub struct JsonlWriter {
    path: PathBuf,
    file: Packed,
    line: String,
}

/// A file behind its compression.
enum Packed {
    None(AtomicFile),
    Gz(GzEncoder<AtomicFile>),
    Zst(zstd::stream::write::Encoder<'static, AtomicFile>),
}

impl Packed {
    fn new(file: AtomicFile, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(file),
            Compression::Gz => Self::Gz(GzEncoder::new(file, flate2::Compression::default())),
            Compression::Zst => Self::Zst(zstd::stream::write::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(file) => file.write_all(bytes),
            Self::Gz(file) => file.write_all(bytes),
            Self::Zst(file) => file.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<AtomicFile> {
        match self {
            Self::None(file) => Ok(file),
            Self::Gz(file) => file.finish(),
            Self::Zst(file) => file.finish(),
        }
    }
}

impl JsonlWriter {
    /// Begins the file; missing folders are made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(prefix: &Path, compression: Compression) -> Result<Self, StoreError> {
        let path = with_suffix(
            prefix,
            match compression {
                Compression::None => ".jsonl",
                Compression::Gz => ".jsonl.gz",
                Compression::Zst => ".jsonl.zst",
            },
        );
        let file = AtomicFile::create(&path)?;
        let file = Packed::new(file, compression).map_err(StorageError::at("write", &path))?;
        Ok(Self { path, file, line: String::new() })
    }
}

impl TokenSink for JsonlWriter {
    fn push(&mut self, id: &str, tokens: &[i32]) -> Result<(), StoreError> {
        self.line.clear();
        let id = serde_json::to_string(id).expect("a string is JSON");
        let _ = write!(self.line, "{{\"id\": {id}, \"tokens\": ");
        write_list(&mut self.line, tokens);
        self.line.push_str("}\n");
        Ok(self.file.write_all(self.line.as_bytes()).map_err(StorageError::at("write", &self.path))?)
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let Self { path, file, .. } = *self;
        Ok(file.finish().map_err(StorageError::at("write", &path))?.commit()?)
    }
}

/// Appends `[1, 2]`.
pub(super) fn write_list(line: &mut String, tokens: &[i32]) {
    line.push('[');
    for (i, token) in tokens.iter().enumerate() {
        line.push_str(if i == 0 { "" } else { ", " });
        let _ = write!(line, "{token}");
    }
    line.push(']');
}
