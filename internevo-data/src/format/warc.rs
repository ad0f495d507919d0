//! WARC files (ISO 28500; plain, gzip per record or as a whole, zstd) as Common Crawl and others write them: every page that was
//! fetched with success becomes a document, every text of a WET file too.
//!
//! A page's document has the record's id, its HTML (or plain text) as `text`, and `type`, `url`, `date` and, where it was not UTF-8,
//! `encoding`. Main content is extracted later, by the stage. Other records (requests, metadata, failed fetches, images) are passed
//! over. A damaged record is one fault; reading goes on at the next record that can be found.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::GzDecoder;
use internevo_core::storage::StorageError;

use super::{
    RawRecord, RecordReader,
    encoding::{decode_page, escaped},
    http::Response,
    lines::{BUFFER_BYTES, Counted},
};
use crate::{Document, document::LineFault};

/// Longest line of a header, and number of lines.
const MAX_HEADER_LINE: u64 = 64 << 10;
const MAX_HEADER_LINES: usize = 1000;
/// Larger pages are no text; Common Crawl itself cuts at 1 MiB (5 MiB since 2025).
const MAX_RECORD_BYTES: u64 = 64 << 20;
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The file as stored, with the place that is read next.
struct Raw {
    file: BufReader<Counted>,
    at: u64,
}

impl Raw {
    fn seek_to(&mut self, place: u64) -> io::Result<()> {
        self.at = self.file.seek(SeekFrom::Start(place))?;
        Ok(())
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl BufRead for Raw {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
        self.file.consume(amount);
    }
}

/// Where the bytes of records come from.
enum Stream {
    /// Everything in one stream; damage of its compression is its end.
    Flat(Box<dyn BufRead + Send>),
    /// Inside a gzip member, and where that begins.
    Member(Box<BufReader<GzDecoder<Raw>>>, u64),
    /// Between gzip members.
    Between(Raw),
    /// Nothing follows.
    End,
}

/// Reads the pages of a WARC file.
pub struct WarcReader {
    stream: Stream,
    path: PathBuf,
    stored: Arc<AtomicU64>,
    record: u64,
    /// A first line of a record that was found while looking for one.
    found: Option<Vec<u8>>,
    /// Damage was reported, and no whole record was seen since.
    lost: bool,
}

/// Why a record cannot be read.
enum Trouble {
    /// The system says no.
    Io(io::Error),
    /// The compressed data is damaged or ends early.
    Archive(io::Error),
    /// The record is not what it has to be.
    Malformed(String),
}

impl Trouble {
    /// Decoders answer with errors of their own; only the system's carry a code.
    fn of(error: io::Error) -> Self {
        if error.raw_os_error().is_some() { Self::Io(error) } else { Self::Archive(error) }
    }
}

/// The fields of a header that matter.
#[derive(Debug, Default)]
struct Header {
    kind: String,
    id: String,
    url: String,
    date: String,
    length: u64,
}

impl WarcReader {
    /// Opens `path`; its last extension tells how it is compressed.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let stored = Arc::new(AtomicU64::new(0));
        let file = File::open(path).map_err(StorageError::at("read", path))?;
        let file = Counted { file, count: Arc::clone(&stored) };
        let raw = Raw { file: BufReader::with_capacity(BUFFER_BYTES, file), at: 0 };
        let stream = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Stream::Between(raw),
            Some("zst") => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(StorageError::at("read", path))?;
                Stream::Flat(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
            }
            _ => Stream::Flat(Box::new(raw)),
        };
        Ok(Self { stream, path: path.to_owned(), stored, record: 0, found: None, lost: false })
    }

    /// Goes to the first byte of a record; false at the end of the file.
    fn begin(&mut self) -> Result<bool, Trouble> {
        if self.found.is_some() {
            return Ok(true);
        }
        loop {
            // Blank lines separate records.
            if let Some(reader) = self.reader() {
                loop {
                    let buffer = reader.fill_buf().map_err(Trouble::of)?;
                    let blank = buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
                    let (ended, all_blank) = (buffer.is_empty(), blank == buffer.len());
                    reader.consume(blank);
                    if ended {
                        break;
                    }
                    if !all_blank {
                        return Ok(true);
                    }
                }
            }
            self.stream = match std::mem::replace(&mut self.stream, Stream::End) {
                Stream::Member(reader, _) => Stream::Between(reader.into_inner().into_inner()),
                Stream::Between(mut raw) => {
                    if raw.fill_buf().map_err(Trouble::of)?.is_empty() {
                        return Ok(false);
                    }
                    member(raw)
                }
                Stream::Flat(_) | Stream::End => return Ok(false),
            };
        }
    }

    fn reader(&mut self) -> Option<&mut dyn BufRead> {
        match &mut self.stream {
            Stream::Flat(reader) => Some(reader),
            Stream::Member(reader, _) => Some(reader),
            Stream::Between(_) | Stream::End => None,
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        if let Some(line) = self.found.take() {
            return Ok(line);
        }
        let mut line = Vec::new();
        let reader = self.reader().ok_or_else(|| Trouble::Malformed("the record ends in its header".into()))?;
        let read = reader.take(MAX_HEADER_LINE).read_until(b'\n', &mut line).map_err(Trouble::of)?;
        match line.pop() {
            Some(b'\n') => {
                line.pop_if(|last| *last == b'\r');
                Ok(line)
            }
            _ if read as u64 == MAX_HEADER_LINE => Err(Trouble::Malformed("a line of the header is too long".into())),
            _ => Err(Trouble::Malformed("the file ends in the header of a record".into())),
        }
    }

    fn header(&mut self) -> Result<Header, Trouble> {
        let version = self.line()?;
        if !version.starts_with(b"WARC/") {
            let shown = escaped(&version[..version.len().min(60)]);
            return Err(Trouble::Malformed(format!("a record begins with `WARC/`, not with `{shown}`")));
        }
        let (mut header, mut length) = (Header::default(), None);
        for _ in 0..MAX_HEADER_LINES {
            let line = self.line()?;
            if line.is_empty() {
                header.length = length.ok_or_else(|| Trouble::Malformed("no Content-Length".into()))?;
                return Ok(header);
            }
            let line = String::from_utf8_lossy(&line);
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "warc-type" => header.kind = value.to_ascii_lowercase(),
                "warc-record-id" => {
                    header.id = value.trim_matches(['<', '>']).trim_start_matches("urn:uuid:").to_owned();
                }
                "warc-target-uri" => header.url = value.trim_matches(['<', '>']).to_owned(),
                "warc-date" => header.date = value.to_owned(),
                "content-length" => {
                    let bytes = value.parse().map_err(|_| Trouble::Malformed(format!("Content-Length `{value}`")))?;
                    length = Some(bytes);
                }
                _ => {}
            }
        }
        Err(Trouble::Malformed("the header has no end".into()))
    }

    /// Reads one record; `None` for one that is no page.
    fn next_page(&mut self) -> Result<Option<Document>, Trouble> {
        let header = self.header()?;
        // Whatever is wrong from here on is wrong with this record.
        self.lost = false;
        let is_text = matches!(header.kind.as_str(), "response" | "conversion");
        let wanted = is_text && header.length <= MAX_RECORD_BYTES;
        let reader = self.reader().ok_or_else(|| Trouble::Malformed("no content".into()))?;
        let mut content = Vec::new();
        let mut body = reader.take(header.length);
        let copied = if wanted { body.read_to_end(&mut content).map(|n| n as u64) } else { skip(&mut body) };
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

    /// Goes on behind damage: to the next line that begins a record, or to the next gzip member that does.
    fn recover(&mut self, compression_is_damaged: bool) -> io::Result<()> {
        self.stream = match std::mem::replace(&mut self.stream, Stream::End) {
            // A decoder that failed once fails for ever.
            Stream::Flat(_) if compression_is_damaged => Stream::End,
            Stream::Flat(mut reader) => match find_line(&mut reader) {
                Ok(line) => {
                    self.found = line;
                    Stream::Flat(reader)
                }
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(_) => Stream::End,
            },
            // A member may hold all records of the file: look for the next one in it before giving it up.
            Stream::Member(mut reader, start) => {
                let found = if compression_is_damaged { Err(None) } else { find_line(&mut reader).map_err(Some) };
                match found {
                    Ok(Some(line)) => {
                        self.found = Some(line);
                        Stream::Member(reader, start)
                    }
                    Ok(None) => Stream::Between(reader.into_inner().into_inner()),
                    Err(Some(error)) if error.raw_os_error().is_some() => return Err(error),
                    // A damaged member may swallow those behind it, so the search begins right behind its first byte.
                    Err(_) => next_member(reader.into_inner().into_inner(), start + 1)?,
                }
            }
            Stream::Between(raw) => {
                let at = raw.at;
                next_member(raw, at)?
            }
            Stream::End => Stream::End,
        };
        Ok(())
    }
}

fn member(raw: Raw) -> Stream {
    let start = raw.at;
    Stream::Member(Box::new(BufReader::with_capacity(BUFFER_BYTES, GzDecoder::new(raw))), start)
}

fn skip(body: &mut impl Read) -> io::Result<u64> {
    io::copy(body, &mut io::sink())
}

/// Reads up to the next line that begins a record, and gives that line.
fn find_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.take(MAX_HEADER_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.starts_with(b"WARC/1.") && line.len() < 16 && line.ends_with(b"\n") {
            line.truncate(line.trim_ascii_end().len());
            return Ok(Some(line));
        }
    }
}

/// Goes to the next three bytes from `place` on that look like the beginning of a gzip member. Chance likenesses fail to decode and
/// are passed over in turn.
fn next_member(mut raw: Raw, place: u64) -> io::Result<Stream> {
    raw.seek_to(place)?;
    let mut matched = 0;
    loop {
        let buffer = raw.fill_buf()?;
        if buffer.is_empty() {
            return Ok(Stream::End);
        }
        let mut used = buffer.len();
        for (at, byte) in buffer.iter().enumerate() {
            matched = match *byte {
                byte if byte == GZIP_MAGIC[matched] => matched + 1,
                byte => usize::from(byte == GZIP_MAGIC[0]),
            };
            if matched == GZIP_MAGIC.len() {
                used = at + 1;
                break;
            }
        }
        raw.consume(used);
        if matched == GZIP_MAGIC.len() {
            let start = raw.at - GZIP_MAGIC.len() as u64;
            raw.seek_to(start)?;
            return Ok(member(raw));
        }
    }
}

impl RecordReader for WarcReader {
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

    /// Reads everything before the place once more.
    fn skip_to(&mut self, _offset: u64, record: u64) -> Result<(), StorageError> {
        let mut content = Vec::new();
        while self.record < record {
            if self.next_record(&mut content)? == RawRecord::End {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than before");
                return Err(StorageError::at("read", &self.path)(error));
            }
        }
        Ok(())
    }

    fn next_record(&mut self, buffer: &mut Vec<u8>) -> Result<RawRecord, StorageError> {
        buffer.clear();
        loop {
            let begun = self.begin();
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
            let recovered = self.recover(reason == LineFault::TRUNCATED_ARCHIVE);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn record(kind: &str, id: usize, content: &[u8]) -> Vec<u8> {
        let header = format!(
            "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{id}>\r\nWARC-Target-URI: http://a.example/{id}\r\n\
             WARC-Date: 2024-05-01T00:00:0{}Z\r\nContent-Length: {}\r\n\r\n",
            id % 10,
            content.len()
        );
        [header.as_bytes(), content, b"\r\n\r\n"].concat()
    }

    fn response(id: usize) -> Vec<u8> {
        let page = format!("<html><body><p>Page {id}: {}</p></body></html>", "word ".repeat(40 + id % 7));
        let http = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}");
        record("response", id, http.as_bytes())
    }

    fn gz(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Ids of the documents, and reasons of the faults in their places.
    fn read(name: &str, bytes: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        let mut reader = WarcReader::open(&path).expect("open");
        let (mut found, mut buffer) = (Vec::new(), Vec::new());
        loop {
            match reader.next_record(&mut buffer).expect("readable") {
                RawRecord::End => return found,
                RawRecord::Damaged(fault) => found.push(format!("{fault}")),
                RawRecord::Record => {
                    let document = Document::from_line(&buffer, || unreachable!("it has an id")).expect("a document");
                    assert_eq!(document.field("url"), Some(format!("http://a.example/{}", document.id).as_str()));
                    found.push(document.id);
                }
            }
        }
    }

    #[test]
    fn pages_are_the_same_however_the_file_is_compressed() {
        let redirect = record("response", 3, b"HTTP/1.1 301 Moved\r\nContent-Type: text/html\r\n\r\n<p>no</p>");
        let image = record("response", 4, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG");
        let records = [
            record("warcinfo", 0, b"software: x\r\n"),
            response(1),
            record("request", 2, b"GET / HTTP/1.1\r\n\r\n"),
            redirect,
            image,
            record("conversion", 5, "Text of a WET file, 中文".as_bytes()),
            response(6),
        ];
        let whole = records.concat();
        let members: Vec<u8> = records.iter().flat_map(|record| gz(record)).collect();
        let expected = ["1", "5", "6"];
        assert_eq!(read("a.warc", &whole), expected);
        assert_eq!(read("a.warc.gz", &members), expected);
        assert_eq!(read("a.warc.gz", &gz(&whole)), expected);
        assert_eq!(read("a.warc.zst", &zstd::encode_all(&*whole, 1).expect("memory")), expected);
    }

    #[test]
    fn each_damaged_record_is_one_fault_and_its_neighbours_are_read() {
        let mut records: Vec<Vec<u8>> = (0..9).map(response).collect();
        let cut = records[2].len() - 30;
        records[2].truncate(cut);
        records[5] = b"garbage\r\nmore garbage\r\n".to_vec();
        records[7] =
            String::from_utf8(response(7)).expect("text").replace("Content-Length: ", "Content-Length: x").into();
        let members: Vec<u8> = records.iter().flat_map(|record| gz(record)).collect();
        let found = read("a.warc.gz", &members);
        let ids: Vec<&str> = found.iter().map(|f| if f.contains("malformed_record") { "!" } else { f }).collect();
        assert_eq!(ids, ["0", "1", "!", "3", "4", "!", "6", "!", "8"], "{found:?}");
        assert!(found[2].contains("the record ends after") && found[5].contains("garbage"), "{found:?}");
        // In one stream the short record swallows the beginning of the next one.
        let found = read("a.warc", &records.concat());
        let ids: Vec<&str> = found.iter().map(|f| if f.contains("malformed_record") { "!" } else { f }).collect();
        assert!(ids.starts_with(&["0", "1"]) && ids.ends_with(&["4", "!", "6", "!", "8"]), "{found:?}");
    }

    #[test]
    fn a_damaged_gzip_member_costs_one_record_and_a_truncated_file_its_end() {
        let members: Vec<Vec<u8>> = (0..9).map(|id| gz(&response(id))).collect();
        let mut damaged = members.clone();
        let middle = damaged[4].len() / 2;
        damaged[4][middle..middle + 8].fill(0xaa);
        let found = read("a.warc.gz", &damaged.concat());
        // Damage shows as broken compression or as a broken header, whichever comes first.
        let reasons = [LineFault::TRUNCATED_ARCHIVE, LineFault::MALFORMED_RECORD];
        assert!(reasons.iter().any(|reason| found[4].contains(reason)), "{found:?}");
        assert_eq!([&found[..4], &found[5..]].concat(), ["0", "1", "2", "3", "5", "6", "7", "8"]);
        let whole = members.concat();
        let found = read("a.warc.gz", &whole[..whole.len() - 20]);
        assert_eq!((found.len(), found[8].contains(LineFault::TRUNCATED_ARCHIVE)), (9, true), "{found:?}");
    }

    #[test]
    fn a_reader_continues_where_another_stopped() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("a.warc.gz");
        std::fs::write(&path, (0..5).flat_map(|id| gz(&response(id))).collect::<Vec<u8>>()).expect("write");
        let (mut first, mut second) = (WarcReader::open(&path).expect("open"), WarcReader::open(&path).expect("open"));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        (0..3).for_each(|_| assert_eq!(first.next_record(&mut a).expect("page"), RawRecord::Record));
        second.skip_to(first.offset(), first.record()).expect("skip");
        first.next_record(&mut a).expect("page");
        second.next_record(&mut b).expect("page");
        assert_eq!((a, first.record()), (b, second.record()));
    }
}
