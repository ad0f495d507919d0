//! Parquet files (feature `parquet`): every row becomes a document. The column `text` must hold strings; `id` names the document;
//! other columns become its fields.

use std::{
    cell::Cell,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Once,
};

use internevo_core::storage::StorageError;
use parquet::{
    errors::ParquetError,
    file::{reader::FileReader as _, serialized_reader::SerializedFileReader},
    record::{Row, reader::RowIter},
};

use super::{RawRecord, RecordReader};
use crate::document::LineFault;

/// Reads the rows of a Parquet file.
pub struct ParquetReader {
    rows: Result<RowIter<'static>, String>,
    path: PathBuf,
    bytes: u64,
    total: u64,
    record: u64,
    ended: bool,
}

impl ParquetReader {
    /// Opens `path`. A file that is no Parquet gives one damaged record.
    ///
    /// # Errors
    /// When the system cannot open it.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::at("read", path))?;
        let bytes = file.metadata().map_err(StorageError::at("read", path))?.len();
        let opened = guarded(|| SerializedFileReader::new(file));
        let total = opened.as_ref().map_or(0, |reader| reader.metadata().file_metadata().num_rows().max(0) as u64);
        let rows = opened.map(|reader| RowIter::from_file_into(Box::new(reader)));
        Ok(Self { rows, path: path.to_owned(), bytes, total, record: 0, ended: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        let rows = self.rows.as_mut().map_err(|error| error.clone())?;
        guarded(|| rows.next().transpose())
    }
}

thread_local! {
    /// Whether a panic of this thread is caught below, so that nobody need hear of it.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The library answers to some damage by a panic; that is a fault of the file like any other, and is told like any other.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                others(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file is damaged".into()),
    }
}

impl RecordReader for ParquetReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn record(&self) -> u64 {
        self.record
    }

    /// Rows.
    fn offset(&self) -> u64 {
        self.record
    }

    /// Rows, as a share of the file.
    fn stored_offset(&self) -> u64 {
        if self.total == 0 { 0 } else { (self.bytes as u128 * u128::from(self.record) / u128::from(self.total)) as u64 }
    }

    /// Nothing follows damage: rows lie in pages, and a damaged page says not how many it had.
    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError> {
        buffer.clear();
        if self.ended {
            return Ok(RawRecord::End);
        }
        match self.next_row() {
            Ok(None) => {
                self.ended = true;
                Ok(RawRecord::End)
            }
            Ok(Some(row)) => {
                self.record += 1;
                serde_json::to_writer(&mut *buffer, &row.to_json_value()).expect("JSON serialises into memory");
                Ok(RawRecord::Record)
            }
            Err(detail) => {
                self.ended = true;
                self.record += 1;
                Ok(RawRecord::Damaged(LineFault { reason: LineFault::TRUNCATED_ARCHIVE, detail }))
            }
        }
    }
}
