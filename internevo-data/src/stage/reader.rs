//! Input in chunks of bounded size, each from one output part, with the place that follows it; and the run over them.

use std::{ops::Range, path::Path};

use internevo_core::storage::{self, StorageError};

use super::{input::InputFile, writer::Position};
use crate::{
    document::{Document, LineFault, default_id},
    format::{self, RawRecord, RecordReader, encoding::decode_declared, open_records},
};

/// Bytes of the items that one task of the thread pool gets: enough to be worth a task, few enough to share a chunk evenly.
const TASK_BYTES: usize = 64 << 10;

/// Files that are one document each share an output part up to this size, stored bytes.
const PART_BYTES: u64 = 64 << 20;

/// A record of a file, or a file that is one document.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Index of its file.
    pub file: usize,
    /// Its number in the file (of a line, for JSONL); 0 for a whole file.
    pub line: u64,
    /// The file is damaged here.
    pub fault: Option<LineFault>,
    bytes: Range<usize>,
}

/// Some consecutive items of one part.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// The output part.
    pub part: usize,
    /// The items in order.
    pub items: Vec<Item>,
    /// Where the next chunk begins.
    pub next: Position,
    /// Stored bytes that were read for this chunk.
    pub stored: u64,
    text: Vec<u8>,
}

impl Chunk {
    /// The bytes of an item of this chunk.
    pub fn bytes(&self, item: &Item) -> &[u8] {
        &self.text[item.bytes.clone()]
    }

    /// The document of an item, and whether the item itself names its id.
    pub fn document(&self, item: &Item, inputs: &[InputFile]) -> Result<(Document, bool), LineFault> {
        let (file, bytes) = (&inputs[item.file], self.bytes(item));
        if let Some(fault) = &item.fault {
            return Err(fault.clone());
        }
        if item.line == 0 {
            return Ok((whole_file(&file.name, bytes)?, false));
        }
        let mut named = true;
        let document = Document::from_line(bytes, || {
            named = false;
            default_id(Path::new(&file.name), item.line)
        })?;
        Ok((document, named))
    }

    /// The items of each task, as indices: as many as make a fair share of work, and whole windows of `window` items.
    pub fn tasks(&self, window: usize) -> Vec<Range<usize>> {
        let (mut tasks, mut first) = (Vec::new(), 0);
        for (at, item) in self.items.iter().enumerate() {
            let is_whole = (at + 1 - first).is_multiple_of(window);
            if is_whole && item.bytes.end - self.items[first].bytes.start >= TASK_BYTES {
                tasks.push(first..at + 1);
                first = at + 1;
            }
        }
        if first < self.items.len() {
            tasks.push(first..self.items.len());
        }
        tasks
    }

    fn push(&mut self, file: usize, line: u64, bytes: &[u8], fault: Option<LineFault>) {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        self.items.push(Item { file, line, fault, bytes: start..self.text.len() });
    }
}

/// Reads chunks one after the other.
pub(crate) struct ChunkReader<'a> {
    inputs: &'a [InputFile],
    parts: Vec<usize>,
    position: Position,
    open: Option<Box<dyn RecordReader>>,
    /// Stored bytes of the current file that are in a chunk already.
    stored: u64,
    chunk_bytes: usize,
}

impl<'a> ChunkReader<'a> {
    /// Begins at `position`. Chunks end after the item that reaches `chunk_bytes`.
    pub fn new(inputs: &'a [InputFile], position: Position, chunk_bytes: usize) -> Self {
        Self { inputs, parts: parts_of(inputs), position, open: None, stored: 0, chunk_bytes }
    }

    /// The next chunk; `None` at the end. A chunk may be empty where a file is.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, StorageError> {
        let Some(&part) = self.parts.get(self.position.file) else { return Ok(None) };
        let mut chunk = Chunk { part, ..Chunk::default() };
        while self.parts.get(self.position.file) == Some(&part) && chunk.text.len() < self.chunk_bytes {
            let file = &self.inputs[self.position.file];
            if file.holds_records() {
                self.read_records(&mut chunk)?;
            } else {
                chunk.push(self.position.file, 0, &storage::read(&file.path)?, None);
                chunk.stored += file.bytes;
                self.position = Position { file: self.position.file + 1, ..Position::default() };
            }
        }
        chunk.next = self.position;
        Ok(Some(chunk))
    }

    fn read_records(&mut self, chunk: &mut Chunk) -> Result<(), StorageError> {
        let index = self.position.file;
        let mut reader = match self.open.take() {
            Some(reader) => reader,
            None => {
                let mut reader = open_records(&self.inputs[index].path)?;
                reader.skip_to(self.position.offset, self.position.line)?;
                reader
            }
        };
        let mut line = Vec::new();
        while chunk.text.len() < self.chunk_bytes {
            match reader.next_record(&mut line)? {
                RawRecord::Record => chunk.push(index, reader.record(), &line, None),
                RawRecord::Damaged(fault) => chunk.push(index, reader.record(), &line, Some(fault)),
                RawRecord::End => {
                    chunk.stored += self.inputs[index].bytes.saturating_sub(self.stored);
                    self.stored = 0;
                    self.position = Position { file: index + 1, ..Position::default() };
                    return Ok(());
                }
            }
        }
        self.position = Position { file: index, line: reader.record(), offset: reader.offset() };
        let stored = reader.stored_offset();
        chunk.stored += stored.saturating_sub(self.stored);
        self.stored = stored;
        self.open = Some(reader);
        Ok(())
    }
}

/// Runs over the chunks of `reader`: `work` makes something of each, on all threads, and `take` gets what it made, both in order. While
/// a chunk is worked on, the next is read and the one before is taken: neither the input nor the output makes the others wait.
///
/// # Errors
/// What the first chunk fails with that fails. Chunks before it are taken, those after it are not.
pub(crate) fn in_chunks<T: Send, E: From<StorageError> + Send>(
    reader: &mut ChunkReader<'_>,
    mut work: impl FnMut(&Chunk) -> Result<T, E> + Send,
    mut take: impl FnMut(&Chunk, T) -> Result<(), E> + Send,
) -> Result<(), E> {
    let mut next = reader.next_chunk();
    let mut before: Option<(Chunk, T)> = None;
    while let Ok(Some(chunk)) = next {
        let done = before.take();
        let read = || reader.next_chunk();
        let take = || done.map_or(Ok(()), |(chunk, made)| take(&chunk, made));
        let (worked, (ahead, taken)) = rayon::join(|| work(&chunk), || rayon::join(read, take));
        taken?;
        before = Some((chunk, worked?));
        next = ahead;
    }
    before.map_or(Ok(()), |(chunk, made)| take(&chunk, made))?;
    next.map_or_else(|error| Err(error.into()), |_| Ok(()))
}

/// A file that is one document: UTF-8, or what its byte order mark or its own declaration says.
fn whole_file(name: &str, bytes: &[u8]) -> Result<Document, LineFault> {
    let fault = |detail| LineFault { reason: LineFault::INVALID_UTF8, detail };
    match decode_declared(bytes, None) {
        Some(Ok(decoded)) => {
            let mut document = format::raw_document(name, decoded.text);
            if decoded.encoding != "UTF-8" {
                document.meta.insert("encoding".into(), decoded.encoding.into());
            }
            Ok(document)
        }
        Some(Err(encoding)) => Err(fault(format!("the file says it is {encoding} and is not"))),
        None => {
            let valid = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
            Err(fault(format!("byte {} of the file is not UTF-8", valid + 1)))
        }
    }
}

/// The output part of each input: one per file of records, one for each group of neighbouring files that are one document each.
fn parts_of(inputs: &[InputFile]) -> Vec<usize> {
    let (mut part, mut group_bytes) = (0, None::<u64>);
    let mut parts = Vec::with_capacity(inputs.len());
    for (at, file) in inputs.iter().enumerate() {
        let joins = !file.holds_records() && group_bytes.is_some_and(|bytes| bytes + file.bytes <= PART_BYTES);
        if at > 0 && !joins {
            part += 1;
        }
        group_bytes = (!file.holds_records()).then(|| file.bytes + if joins { group_bytes.unwrap_or(0) } else { 0 });
        parts.push(part);
    }
    parts
}
