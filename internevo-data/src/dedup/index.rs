//! The index of what earlier runs kept: a folder with one file (a segment) per run.
//!
//! A segment holds, for each kept document, its id, identity, band keys and shingle set: enough to compare new documents with it
//! exactly, without the old texts. Its name carries a number, the order of the runs, and a hash of the run's settings and inputs. A
//! run that is repeated (after a kill, or by hand) finds its own segment, ignores it and all later ones, and replaces it: an index
//! never makes a run remove its own documents.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, AtomicFile, StorageError};
use serde::{Deserialize, Serialize};

use super::{catalog::Facts, decide::Hashed, settings::Settings, shingle::ShingleSet};
use crate::{DataError, spill::Blob as _};

/// First field of a segment's header.
const FORMAT: &str = "internevo dedup index 1";
/// Read buffer, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// Ids and sets beyond this are a damaged file, not a document.
const MAX_BYTES: u32 = 1 << 31;

/// First line of a segment: what documents must have been hashed with to be comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: String,
    ngram: usize,
    bands: usize,
    rows: usize,
}

impl Header {
    fn of(settings: &Settings) -> Self {
        let (bands, rows) = (settings.bands.bands, settings.bands.rows);
        Self { format: FORMAT.into(), ngram: settings.ngram, bands, rows }
    }
}

/// An index as one run sees it.
#[derive(Debug)]
pub struct Index {
    header: Header,
    /// Segments of earlier runs, in their order.
    segments: Vec<PathBuf>,
    /// Where this run's segment goes.
    own: PathBuf,
}

/// A document of the index.
#[derive(Debug)]
pub struct IndexedDocument {
    /// Its id.
    pub id: Box<str>,
    /// Identity and band keys; no facts beyond that.
    pub hashed: Hashed,
    /// Its shingles.
    pub set: ShingleSet,
}

impl Index {
    /// Opens the index in `folder` (made if absent) for the run that `request` is the hash of.
    ///
    /// # Errors
    /// A folder that cannot be read; a segment that was made with other settings.
    pub fn open(folder: &Path, settings: &Settings, request: &str) -> Result<Self, DataError> {
        storage::create_dir_all(folder)?;
        let mut found: Vec<(u32, String, PathBuf)> = Vec::new();
        for entry in fs::read_dir(folder).map_err(StorageError::at("list", folder))? {
            let path = entry.map_err(StorageError::at("list", folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let parts = name.strip_prefix("segment-").and_then(|name| name.strip_suffix(".bin")?.split_once('-'));
            if let Some((Ok(number), run)) = parts.map(|(number, run)| (number.parse(), run.to_owned())) {
                found.push((number, run, path));
            }
        }
        found.sort();
        let run = &request[..request.len().min(16)];
        let own = found.iter().find(|(_, name, _)| name == run).map(|(number, ..)| *number);
        let number = own.unwrap_or_else(|| found.last().map_or(0, |(last, ..)| last + 1));
        let segments = found.into_iter().filter(|(n, ..)| *n < number).map(|(.., path)| path).collect();
        let own = folder.join(format!("segment-{number:05}-{run}.bin"));
        Ok(Self { header: Header::of(settings), segments, own })
    }

    /// Hands over all documents of earlier runs, in order.
    ///
    /// # Errors
    /// A segment that cannot be read, is damaged or was made with other settings; what `take` answers.
    pub fn for_each(&self, mut take: impl FnMut(IndexedDocument) -> Result<(), StorageError>) -> Result<(), DataError> {
        for path in &self.segments {
            let file = File::open(path).map_err(StorageError::at("read", path))?;
            let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
            self.check_header(path, &mut reader)?;
            let mut document = 0;
            loop {
                document += 1;
                let read = read_document(&mut reader);
                match read.map_err(|e| DataError::invalid(path, document, format!("damaged index: {e}")))? {
                    Some(document) => take(document)?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn check_header(&self, path: &Path, reader: &mut impl BufRead) -> Result<(), DataError> {
        let mut line = Vec::new();
        reader.take(1000).read_until(b'\n', &mut line).map_err(StorageError::at("read", path))?;
        let header: Header = serde_json::from_slice(&line)
            .map_err(|e| DataError::invalid(path, 1, format!("not a segment of a dedup index: {e}")))?;
        if header != self.header {
            let reason = format!("the index was made with {header:?}, this run wants {:?}", self.header);
            return Err(DataError::Setting { key: "pipeline.dedup.index".into(), reason });
        }
        Ok(())
    }

    /// Begins this run's segment.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<SegmentWriter, StorageError> {
        let mut writer = SegmentWriter { file: AtomicFile::create(&self.own)?, path: self.own.clone() };
        let mut header = serde_json::to_vec(&self.header).expect("numbers and strings are JSON");
        header.push(b'\n');
        writer.write(&header)?;
        Ok(writer)
    }
}

/// Writes a segment; it appears when it is complete.
pub struct SegmentWriter {
    file: AtomicFile,
    path: PathBuf,
}

impl SegmentWriter {
    /// Adds a document in the form that `encode` gave it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, encoded: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(encoded).map_err(StorageError::at("write", &self.path))
    }

    /// Makes the segment part of the index.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn commit(self) -> Result<(), StorageError> {
        self.file.commit()
    }
}

/// A document as it is stored: lengths as u32, then id, identity, keys and shingles, all little-endian.
pub fn encode(id: &str, hashed: &Hashed, set: &ShingleSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(28 + id.len() + 8 * (hashed.keys.len() + set.len()));
    for length in [id.len(), hashed.keys.len(), set.bytes()] {
        out.extend_from_slice(&u32::try_from(length).expect("a document is below 4 GiB").to_le_bytes());
    }
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(&hashed.identity.to_le_bytes());
    hashed.keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
    set.write(&mut out);
    out
}

fn read_document(reader: &mut impl BufRead) -> std::io::Result<Option<IndexedDocument>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut lengths = [[0; 4]; 3];
    reader.read_exact(lengths.as_flattened_mut())?;
    let [id, keys, set] = lengths.map(u32::from_le_bytes);
    let mut bytes = |length: u32| {
        if length > MAX_BYTES {
            return Err(std::io::Error::other(format!("a length of {length} bytes")));
        }
        // Grows as data arrives: a damaged length must not reserve gigabytes.
        let mut content = Vec::new();
        reader.take(u64::from(length)).read_to_end(&mut content)?;
        if content.len() < length as usize { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(content) }
    };
    let id = String::from_utf8(bytes(id)?).map_err(std::io::Error::other)?.into();
    let identity = u128::from_le_bytes(bytes(16)?.try_into().expect("sixteen bytes"));
    let keys = bytes(keys.saturating_mul(8))?.as_chunks().0.iter().map(|key| u64::from_le_bytes(*key)).collect();
    let set = ShingleSet::read(&bytes(set)?);
    Ok(Some(IndexedDocument { id, hashed: Hashed { facts: Facts::default(), identity, keys }, set }))
}
