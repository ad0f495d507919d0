//! Lines of a file that may be compressed, with their numbers, and without giving up at the first damaged byte.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use internevo_core::storage::StorageError;

use super::{RawRecord, RecordReader, records::shorter_than_before};
use crate::document::LineFault;

/// Read buffer in front of the file and of the decoder, bytes.
pub(super) const BUFFER_BYTES: usize = 1 << 18;

/// Reads non-blank lines of a plain, gzip (`.gz`, any number of members) or zstd (`.zst`, any number of frames) file.
pub struct LineReader {
    source: Box<dyn BufRead + Send>,
    path: PathBuf,
    stored: Arc<AtomicU64>,
    line: u64,
    offset: u64,
    ended: bool,
}

/// A file that counts what was read of it, below all buffers and decoders.
pub(super) struct Counted {
    pub file: File,
    pub count: Arc<AtomicU64>,
}

impl Seek for Counted {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        let at = self.file.seek(place)?;
        self.count.store(at, Ordering::Relaxed);
        Ok(at)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl LineReader {
    /// Opens `path`; its last extension tells how it is compressed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let stored = Arc::new(AtomicU64::new(0));
        let file = File::open(path).map_err(StorageError::at("read", path))?;
        let file = Counted { file, count: Arc::clone(&stored) };
        let source = decoder(path, file).map_err(StorageError::at("read", path))?;
        Ok(Self { source, path: path.to_owned(), stored, line: 0, offset: 0, ended: false })
    }

    fn seek_plain(&mut self, offset: u64) -> io::Result<u64> {
        let mut file = File::open(&self.path)?;
        let place = file.seek(SeekFrom::Start(offset.min(file.metadata()?.len())))?;
        self.stored.store(place, Ordering::Relaxed);
        self.source = decoder(&self.path, Counted { file, count: Arc::clone(&self.stored) })?;
        Ok(place)
    }

    /// Decoders answer with errors of their own; only the system's carry a code.
    fn damage(&self, error: io::Error) -> Result<RawRecord, StorageError> {
        if error.raw_os_error().is_some() || !is_compressed(&self.path) {
            return Err(StorageError::at("read", &self.path)(error));
        }
        Ok(RawRecord::Damaged(LineFault { reason: LineFault::TRUNCATED_ARCHIVE, detail: error.to_string() }))
    }
}

impl RecordReader for LineReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn record(&self) -> u64 {
        self.line
    }

    /// Bytes of lines, after decompression.
    fn offset(&self) -> u64 {
        self.offset
    }

    fn stored_offset(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    fn skip_to(&mut self, offset: u64, line: u64) -> Result<(), StorageError> {
        let skipped = if is_compressed(&self.path) {
            io::copy(&mut self.source.by_ref().take(offset), &mut io::sink())
        } else {
            self.seek_plain(offset)
        };
        let skipped = skipped.map_err(StorageError::at("read", &self.path))?;
        if skipped < offset {
            return Err(shorter_than_before(&self.path));
        }
        (self.offset, self.line) = (offset, line);
        Ok(())
    }

    /// Reads the next line that is not blank. Nothing follows damage.
    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError> {
        while !self.ended {
            buffer.clear();
            let result = self.source.read_until(b'\n', buffer);
            self.offset += buffer.len() as u64;
            match result {
                Ok(0) => self.ended = true,
                Ok(_) => {
                    self.line += 1;
                    if self.line == 1 && buffer.starts_with("\u{feff}".as_bytes()) {
                        buffer.drain(..3);
                    }
                    buffer.truncate(buffer.trim_ascii_end().len());
                    if !buffer.is_empty() {
                        return Ok(RawRecord::Record);
                    }
                }
                Err(error) => {
                    self.ended = true;
                    self.line += 1;
                    return self.damage(error);
                }
            }
        }
        Ok(RawRecord::End)
    }
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zst")
}

fn decoder(path: &Path, file: Counted) -> io::Result<Box<dyn BufRead + Send>> {
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    Ok(match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(file))),
        Some("zst") => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::stream::read::Decoder::with_buffer(file)?))
        }
        _ => Box::new(file),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gz(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    }

    fn lines(name: &str, bytes: &[u8]) -> (Vec<(u64, String)>, Option<&'static str>) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        let mut reader = LineReader::open(&path).expect("open");
        let (mut found, mut line) = (Vec::new(), Vec::new());
        loop {
            match reader.next_record(&mut line).expect("readable") {
                RawRecord::Record => found.push((reader.record(), String::from_utf8(line.clone()).expect("UTF-8"))),
                RawRecord::End => return (found, None),
                RawRecord::Damaged(fault) => return (found, Some(fault.reason)),
            }
        }
    }

    #[test]
    fn all_encodings_give_the_same_lines() {
        let text = "\u{feff}one\r\n\n  \ntwo\nlast";
        let expected = (vec![(1, "one".into()), (4, "two".into()), (5, "last".into())], None);
        let members = [gz("\u{feff}one\r\n\n"), gz("  \ntwo\nla"), gz("st")].concat();
        let frames =
            [&text[..9], &text[9..]].map(|part| zstd::encode_all(part.as_bytes(), 1).expect("memory")).concat();
        assert_eq!(lines("a.jsonl", text.as_bytes()), expected);
        assert_eq!(lines("a.jsonl.gz", &members), expected);
        assert_eq!(lines("a.jsonl.zst", &frames), expected);
    }

    #[test]
    fn a_truncated_archive_gives_the_lines_before_the_damage() {
        let text: String =
            (0..4000u64).map(|i| format!("line {} {}\n", i, i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        for (name, bytes) in [("a.gz", gz(&text)), ("a.zst", zstd::encode_all(text.as_bytes(), 1).expect("memory"))] {
            let (found, reason) = lines(name, &bytes[..bytes.len() - 10]);
            assert_eq!(reason, Some(LineFault::TRUNCATED_ARCHIVE), "{name}");
            let whole: Vec<_> = text.lines().zip(1..).map(|(line, number)| (number, line.to_owned())).collect();
            assert_eq!(found, whole[..found.len()], "{name}");
        }
    }

    #[test]
    fn a_reader_continues_where_another_stopped() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a.gz");
        std::fs::write(&path, [gz("one\n\ntwo\nthree"), gz("\nfour")].concat()).expect("write");
        let (mut first, mut second) = (LineReader::open(&path).expect("open"), LineReader::open(&path).expect("open"));
        let mut line = Vec::new();
        first.next_record(&mut line).expect("one");
        first.next_record(&mut line).expect("two");
        second.skip_to(first.offset(), first.record()).expect("skip");
        second.next_record(&mut line).expect("three");
        assert_eq!((line.as_slice(), second.record()), (b"three".as_slice(), 4));
    }
}
