//! WARC files (ISO 28500; plain, gzip per record or as a whole, zstd) as Common Crawl and others write them: every page that was
//! fetched with success becomes a document, every text of a WET file too.
//!
//! A page's document has the record's id, its HTML (or plain text) as `text`, and `type`, `url`, `date` and, where it was not UTF-8,
//! `encoding`. Main content is extracted later, by the stage. Other records (requests, metadata, failed fetches, images) are passed
//! over. A damaged record is one fault; reading goes on at the next record that can be found.

mod header;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use internevo_core::storage::StorageError;

use self::{
    header::Header,
    stream::{Stream, Trouble},
};
use super::{RawRecord, RecordReader, encoding::decode_page, http::Response};
use crate::{Document, document::LineFault};

/// Larger pages are no text; Common Crawl itself cuts at 1 MiB (5 MiB since 2025).
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// Reads the pages of a WARC file.
pub struct WarcReader {
    stream: Stream,
    path: PathBuf,
    stored: Arc<AtomicU64>,
    record: u64,
    /// Damage was reported, and no whole record was seen since.
    lost: bool,
}

impl WarcReader {
    /// Opens `path`; its last extension tells how it is compressed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let stored = Arc::new(AtomicU64::new(0));
        let stream = Stream::open(path, Arc::clone(&stored)).map_err(StorageError::at("read", path))?;
        Ok(Self { stream, path: path.to_owned(), stored, record: 0, lost: false })
    }

    /// Reads one record; `None` for one that is no page.
    fn next_page(&mut self) -> Result<Option<Document>, Trouble> {
        let header = Header::read(&mut self.stream)?;
        // Whatever is wrong from here on is wrong with this record.
        self.lost = false;
        let is_text = matches!(header.kind.as_str(), "response" | "conversion");
        let wanted = is_text && header.length <= MAX_RECORD_BYTES;
        let reader = self.stream.reader().ok_or_else(|| Trouble::Malformed("no content".into()))?;
        let mut content = Vec::new();
        let mut body = reader.take(header.length);
        let copied = if wanted {
            body.read_to_end(&mut content).map(|n| n as u64)
        } else {
            io::copy(&mut body, &mut io::sink())
        };
        let copied = copied.map_err(Trouble::of)?;
        if copied < header.length {
            let detail = format!("the record ends after {copied} of {} bytes", header.length);
            return Err(Trouble::Malformed(detail));
        }
        if is_text && !wanted {
            return Err(Trouble::Malformed(format!("{} bytes are more than a page has", header.length)));
        }
        match header.kind.as_str() {
            "response" => page(header, &content),
            "conversion" => plain_text(header, content).map(Some),
            _ => Ok(None),
        }
    }
}

impl RecordReader for WarcReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn record(&self) -> u64 {
        self.record
    }

    /// Records; bytes would not say where in a member.
    fn offset(&self) -> u64 {
        self.record
    }

    fn stored_offset(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError> {
        buffer.clear();
        loop {
            let begun = self.stream.begin();
            let result = match begun {
                Ok(false) => return Ok(RawRecord::End),
                Ok(true) => self.next_page(),
                Err(trouble) => Err(trouble),
            };
            let (reason, detail) = match result {
                Ok(page) => {
                    let Some(page) = page else { continue };
                    self.record += 1;
                    serde_json::to_writer(&mut *buffer, &page).expect("strings serialise into memory");
                    return Ok(RawRecord::Record);
                }
                Err(Trouble::Io(error)) => return Err(StorageError::at("read", &self.path)(error)),
                Err(Trouble::Archive(error)) => (LineFault::TRUNCATED_ARCHIVE, error.to_string()),
                Err(Trouble::Malformed(detail)) => (LineFault::MALFORMED_RECORD, detail),
            };
            let recovered = self.stream.recover(reason == LineFault::TRUNCATED_ARCHIVE);
            recovered.map_err(StorageError::at("read", &self.path))?;
            if !std::mem::replace(&mut self.lost, true) {
                self.record += 1;
                return Ok(RawRecord::Damaged(LineFault { reason, detail }));
            }
        }
    }
}

/// The document of a fetched page; `None` for what is no page.
fn page(header: Header, content: &[u8]) -> Result<Option<Document>, Trouble> {
    let response = Response::parse(content).map_err(Trouble::Malformed)?;
    let Some(kind) = response.text_kind() else { return Ok(None) };
    let body = response.body().map_err(Trouble::Malformed)?;
    let decoded = decode_page(&body, response.charset())
        .map_err(|encoding| Trouble::Malformed(format!("the page says it is {encoding} and is not")))?;
    let mut document = document(header, decoded.text, kind);
    if decoded.encoding != "UTF-8" {
        document.meta.insert("encoding".into(), decoded.encoding.into());
    }
    Ok(Some(document))
}

/// The document of a WET record.
fn plain_text(header: Header, content: Vec<u8>) -> Result<Document, Trouble> {
    let text = String::from_utf8(content).map_err(|_| Trouble::Malformed("the text is not UTF-8".into()))?;
    Ok(document(header, text, "text"))
}

fn document(header: Header, text: String, kind: &str) -> Document {
    let mut document = Document::new(header.id, text);
    for (key, value) in [("type", kind), ("url", &header.url), ("date", &header.date)] {
        if !value.is_empty() {
            document.meta.insert(key.into(), value.into());
        }
    }
    document
}
