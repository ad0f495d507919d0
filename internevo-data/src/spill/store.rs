//! Values by document number, inserted in ascending order and looked up in any: in memory as long as they fit, else in one file
//! behind a cache of bounded size.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use internevo_core::storage::StorageError;

use super::{Scratch, TemporaryFile};

/// A value that can be written to a file.
pub trait Blob: Send + Sync {
    /// Bytes of its content.
    fn bytes(&self) -> usize;
    /// Appends its content.
    fn write(&self, out: &mut Vec<u8>);
    /// The value of a content that [`Blob::write`] gave.
    fn read(content: &[u8]) -> Self;
}

impl Blob for Box<str> {
    fn bytes(&self) -> usize {
        self.len()
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read(content: &[u8]) -> Self {
        String::from_utf8_lossy(content).into()
    }
}

/// Bytes that an entry costs beside its content.
const ENTRY_BYTES: usize = 64;
/// Values are appended to the file in pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// The values.
pub struct Store<'s, T> {
    scratch: &'s Scratch,
    limit: usize,
    /// Ascending by document.
    memory: Vec<(u32, Arc<T>)>,
    memory_bytes: usize,
    spilled: Option<Spilled<T>>,
}

struct Spilled<T> {
    /// Document, offset and length of each value in the file; ascending.
    index: Vec<(u32, u64, u32)>,
    length: u64,
    /// Not yet in the file.
    pending: Vec<u8>,
    shared: Mutex<Shared<T>>,
}

struct Shared<T> {
    file: TemporaryFile,
    /// Two generations: when the young one is full it becomes the old one, and the old one goes.
    young: HashMap<u32, Arc<T>>,
    young_bytes: usize,
    old: HashMap<u32, Arc<T>>,
}

impl<'s, T: Blob> Store<'s, T> {
    /// A store that holds about `memory` bytes; the rest goes to `scratch`.
    pub fn new(scratch: &'s Scratch, memory: usize) -> Self {
        Self { scratch, limit: memory, memory: Vec::new(), memory_bytes: 0, spilled: None }
    }

    /// Adds the value of a document; documents come in ascending order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn insert(&mut self, document: u32, value: T) -> Result<(), StorageError> {
        if self.spilled.is_none() {
            self.memory_bytes += value.bytes() + ENTRY_BYTES;
            self.memory.push((document, Arc::new(value)));
            return if self.memory_bytes > self.limit { self.spill() } else { Ok(()) };
        }
        self.append(document, &value)
    }

    /// Ends the insertions.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.spilled.as_mut().map_or(Ok(()), Spilled::flush)
    }

    /// The value of a document, after [`Store::flush`].
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// If the document has none.
    pub fn get(&self, document: u32) -> Result<Arc<T>, StorageError> {
        match &self.spilled {
            Some(spilled) => spilled.get(document, self.limit / 2),
            None => {
                let slot = self.memory.binary_search_by_key(&document, |(d, _)| *d);
                Ok(Arc::clone(&self.memory[slot.expect("the document was inserted")].1))
            }
        }
    }

    fn spill(&mut self) -> Result<(), StorageError> {
        let shared =
            Shared { file: self.scratch.create()?, young: HashMap::new(), young_bytes: 0, old: HashMap::new() };
        let (index, pending) = (Vec::new(), Vec::new());
        self.spilled = Some(Spilled { index, length: 0, pending, shared: Mutex::new(shared) });
        for (document, value) in std::mem::take(&mut self.memory) {
            self.append(document, &value)?;
        }
        Ok(())
    }

    fn append(&mut self, document: u32, value: &T) -> Result<(), StorageError> {
        let spilled = self.spilled.as_mut().expect("called after the switch to a file");
        let start = spilled.pending.len();
        value.write(&mut spilled.pending);
        let length = spilled.pending.len() - start;
        spilled.index.push((document, spilled.length, u32::try_from(length).expect("a document is below 4 GiB")));
        spilled.length += length as u64;
        if spilled.pending.len() >= PIECE_BYTES { spilled.flush() } else { Ok(()) }
    }
}

impl<T: Blob> Spilled<T> {
    fn flush(&mut self) -> Result<(), StorageError> {
        // A thread that panicked leaves a cache with fewer entries, not a wrong one.
        let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let written = shared.file.file.write_all(&self.pending);
        written.map_err(shared.file.failed("write"))?;
        self.pending.clear();
        Ok(())
    }

    fn get(&self, document: u32, cache_bytes: usize) -> Result<Arc<T>, StorageError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = shared.young.get(&document) {
            return Ok(Arc::clone(value));
        }
        let value = match shared.old.get(&document) {
            Some(value) => Arc::clone(value),
            None => {
                let slot = self.index.binary_search_by_key(&document, |(d, ..)| *d);
                let (_, offset, length) = self.index[slot.expect("the document was inserted")];
                let mut content = vec![0; length as usize];
                shared.file.read_at(offset, &mut content)?;
                Arc::new(T::read(&content))
            }
        };
        shared.young_bytes += value.bytes() + ENTRY_BYTES;
        shared.young.insert(document, Arc::clone(&value));
        if shared.young_bytes > cache_bytes {
            shared.old = std::mem::take(&mut shared.young);
            shared.young_bytes = 0;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_from_memory_and_from_disk() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
        let value = |document: u32| -> Box<str> { "ab".repeat(document as usize % 50).into() };
        for (memory, files) in [(1 << 20, 0), (2000, 1)] {
            let mut store = Store::new(&scratch, memory);
            (0..3000).step_by(3).try_for_each(|d| store.insert(d, value(d))).expect("disk");
            store.flush().expect("disk");
            assert_eq!(scratch.files(), files);
            for document in [0, 2997, 3, 1500, 3, 0, 6, 9, 12, 15] {
                assert_eq!(*store.get(document).expect("disk"), value(document));
            }
            (0..3000).rev().filter(|d| d % 3 == 0).for_each(|d| assert_eq!(*store.get(d).expect("disk"), value(d)));
        }
    }
}
