//! Files that hold many documents: one reader for each format, all of which give the documents as JSON lines of the one schema
//! ([`Document`](crate::Document)).

use std::{io, path::Path};

use internevo_core::storage::StorageError;

use super::{LineReader, RecordReaderEntry, WarcReader};
use crate::document::LineFault;

/// What [`RecordReader::next_record`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawRecord {
    /// A record; the buffer holds its JSON without a line end.
    Record,
    /// The file is damaged here; the buffer holds what could be read of the record. Readers go on behind the damage where the format
    /// lets them.
    Damaged(LineFault),
    /// No more records.
    End,
}

/// Reads the records of a file one after the other.
pub trait RecordReader: Send {
    /// Reads the next record into `buffer` (replacing its content).
    ///
    /// # Errors
    /// When the system cannot read the file. Damage of its content is [`RawRecord::Damaged`] instead.
    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError>;

    /// Number of the record that was read last, from 1.
    fn record(&self) -> u64;

    /// A place that [`RecordReader::skip_to`] understands, behind the record that was read last.
    fn offset(&self) -> u64;

    /// Bytes of the file read so far, as stored; ahead of [`RecordReader::offset`] by what is buffered.
    fn stored_offset(&self) -> u64;

    /// The file.
    fn path(&self) -> &Path;

    /// Goes to a place that [`RecordReader::offset`] and [`RecordReader::record`] of another reader of the file named. Unless a format
    /// knows better, everything before the place is read once more.
    ///
    /// # Errors
    /// When the file cannot be read that far.
    fn skip_to(&mut self, _offset: u64, record: u64) -> Result<(), StorageError> {
        let mut content = Vec::new();
        while self.record() < record {
            if self.next_record(&mut content)? == RawRecord::End {
                return Err(shorter_than_before(self.path()));
            }
        }
        Ok(())
    }
}

/// A file that a run continues with must not have lost what was read of it.
pub(super) fn shorter_than_before(path: &Path) -> StorageError {
    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than in the run to continue");
    StorageError::at("read", path)(error)
}

/// How a file holds its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// JSON lines.
    Jsonl,
    /// Web archives.
    Warc,
    /// Parquet, with the feature `parquet`.
    Parquet,
    /// What a reader of another crate reads.
    Plugin(&'static RecordReaderEntry),
}

impl RecordFormat {
    /// The format of a file, by its name; `None` for a file that is one document or none.
    pub fn of(name: &str) -> Option<Self> {
        let packed = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst"));
        let bare = packed.unwrap_or(name);
        // `.json.gz` is how C4 names its JSON lines; a bare `.json` is more often one object over many lines.
        if bare.ends_with(".jsonl") || bare.ends_with(".ndjson") || (packed.is_some() && bare.ends_with(".json")) {
            return Some(Self::Jsonl);
        }
        if [".warc", ".wet"].iter().any(|extension| bare.ends_with(extension)) {
            return Some(Self::Warc);
        }
        if cfg!(feature = "parquet") && name.ends_with(".parquet") {
            return Some(Self::Parquet);
        }
        RecordReaderEntry::for_name(name).map(Self::Plugin)
    }
}

/// Opens a file of records. A name of no known format is read as JSON lines.
///
/// # Errors
/// When it cannot be opened.
pub fn open_records(path: &Path) -> Result<Box<dyn RecordReader>, StorageError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(match RecordFormat::of(&name) {
        Some(RecordFormat::Warc) => Box::new(WarcReader::open(path)?),
        #[cfg(feature = "parquet")]
        Some(RecordFormat::Parquet) => Box::new(super::ParquetReader::open(path)?),
        Some(RecordFormat::Plugin(reader)) => reader.open(path)?,
        _ => Box::new(LineReader::open(path)?),
    })
}
