//! Where the bytes of records come from: one stream, or one gzip member after the other, and how to go on behind damage.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use flate2::bufread::GzDecoder;

use super::super::lines::{BUFFER_BYTES, Counted};

/// Longest line of a header.
const MAX_HEADER_LINE: u64 = 64 << 10;
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
enum Source {
    /// Everything in one stream; damage of its compression is its end.
    Flat(Box<dyn BufRead + Send>),
    /// Inside a gzip member, and where that begins.
    Member(Box<BufReader<GzDecoder<Raw>>>, u64),
    /// Between gzip members.
    Between(Raw),
    /// Nothing follows.
    End,
}

/// The records of a file as a stream of lines and bytes.
pub struct Stream {
    source: Source,
    /// A first line of a record that was found while looking for one.
    found: Option<Vec<u8>>,
}

/// Why a record cannot be read.
pub enum Trouble {
    /// The system says no.
    Io(io::Error),
    /// The compressed data is damaged or ends early.
    Archive(io::Error),
    /// The record is not what it has to be.
    Malformed(String),
}

impl Trouble {
    /// Decoders answer with errors of their own; only the system's carry a code.
    pub fn of(error: io::Error) -> Self {
        if error.raw_os_error().is_some() { Self::Io(error) } else { Self::Archive(error) }
    }
}

impl Stream {
    /// Opens `path`; its last extension tells how it is compressed. `stored` counts the bytes read of it.
    pub fn open(path: &Path, stored: Arc<AtomicU64>) -> io::Result<Self> {
        let file = Counted { file: File::open(path)?, count: stored };
        let raw = Raw { file: BufReader::with_capacity(BUFFER_BYTES, file), at: 0 };
        let source = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Source::Between(raw),
            Some("zst") => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                Source::Flat(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
            }
            _ => Source::Flat(Box::new(raw)),
        };
        Ok(Self { source, found: None })
    }

    /// Goes to the first byte of a record; false at the end of the file.
    pub fn begin(&mut self) -> Result<bool, Trouble> {
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
            self.source = match std::mem::replace(&mut self.source, Source::End) {
                Source::Member(reader, _) => Source::Between(reader.into_inner().into_inner()),
                Source::Between(mut raw) => {
                    if raw.fill_buf().map_err(Trouble::of)?.is_empty() {
                        return Ok(false);
                    }
                    member(raw)
                }
                Source::Flat(_) | Source::End => return Ok(false),
            };
        }
    }

    /// The bytes of the current record and what follows it; `None` where nothing can follow.
    pub fn reader(&mut self) -> Option<&mut dyn BufRead> {
        match &mut self.source {
            Source::Flat(reader) => Some(reader),
            Source::Member(reader, _) => Some(reader),
            Source::Between(_) | Source::End => None,
        }
    }

    /// The next line without its end.
    pub fn line(&mut self) -> Result<Vec<u8>, Trouble> {
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

    /// Goes on behind damage: to the next line that begins a record, or to the next gzip member that does.
    pub fn recover(&mut self, compression_is_damaged: bool) -> io::Result<()> {
        self.source = match std::mem::replace(&mut self.source, Source::End) {
            // A decoder that failed once fails for ever.
            Source::Flat(_) if compression_is_damaged => Source::End,
            Source::Flat(mut reader) => match find_line(&mut reader) {
                Ok(line) => {
                    self.found = line;
                    Source::Flat(reader)
                }
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(_) => Source::End,
            },
            // A member may hold all records of the file: look for the next one in it before giving it up.
            Source::Member(mut reader, start) => {
                let found = if compression_is_damaged { Err(None) } else { find_line(&mut reader).map_err(Some) };
                match found {
                    Ok(Some(line)) => {
                        self.found = Some(line);
                        Source::Member(reader, start)
                    }
                    Ok(None) => Source::Between(reader.into_inner().into_inner()),
                    Err(Some(error)) if error.raw_os_error().is_some() => return Err(error),
                    // A damaged member may swallow those behind it, so the search begins right behind its first byte.
                    Err(_) => next_member(reader.into_inner().into_inner(), start + 1)?,
                }
            }
            Source::Between(raw) => {
                let at = raw.at;
                next_member(raw, at)?
            }
            Source::End => Source::End,
        };
        Ok(())
    }
}

fn member(raw: Raw) -> Source {
    let start = raw.at;
    Source::Member(Box::new(BufReader::with_capacity(BUFFER_BYTES, GzDecoder::new(raw))), start)
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
fn next_member(mut raw: Raw, place: u64) -> io::Result<Source> {
    raw.seek_to(place)?;
    let mut matched = 0;
    loop {
        let buffer = raw.fill_buf()?;
        if buffer.is_empty() {
            return Ok(Source::End);
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
