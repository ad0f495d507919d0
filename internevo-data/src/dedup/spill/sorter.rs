//! External sort of 128-bit items: sorted runs on disk when memory is full, merged when they are read.
//!
//! An item packs a key above what belongs to it, so the order of items is total and the result depends neither on the memory nor on
//! the order of insertion.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::PathBuf,
};

use internevo_core::storage::StorageError;
use rayon::prelude::*;

use super::Scratch;

/// Bytes of an item.
const ITEM_BYTES: usize = size_of::<u128>();
/// Write buffer of a run, bytes.
const WRITE_BUFFER: usize = 1 << 20;
/// Read buffer of each run of a merge, bytes.
const READ_BUFFER: usize = 1 << 17;
/// Items handed over at once when a merge is read in batches.
const BATCH_ITEMS: usize = 1 << 16;

/// Collects items.
pub struct Sorter<'s> {
    scratch: &'s Scratch,
    buffer: Vec<u128>,
    limit: usize,
    runs: Vec<PathBuf>,
}

impl<'s> Sorter<'s> {
    /// A sorter that holds about `memory` bytes; the rest goes to `scratch`.
    pub fn new(scratch: &'s Scratch, memory: usize) -> Self {
        Self { scratch, buffer: Vec::new(), limit: (memory / ITEM_BYTES).max(1024), runs: Vec::new() }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn push(&mut self, item: u128) -> Result<(), StorageError> {
        if self.buffer.len() == self.limit {
            self.spill()?;
        } else if self.buffer.len() == self.buffer.capacity() && 2 * self.buffer.len() > self.limit {
            self.buffer.reserve_exact(self.limit - self.buffer.len());
        }
        self.buffer.push(item);
        Ok(())
    }

    /// Ends the collection. Either everything stays in memory, or everything is on disk.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn finish(mut self) -> Result<Sorted, StorageError> {
        if self.runs.is_empty() {
            self.buffer.par_sort_unstable();
        } else {
            self.spill()?;
            self.buffer = Vec::new();
        }
        Ok(Sorted { memory: self.buffer, runs: self.runs })
    }

    fn spill(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.buffer.par_sort_unstable();
        let run = self.scratch.create()?;
        let mut out = BufWriter::with_capacity(WRITE_BUFFER, &run.file);
        let written = self.buffer.iter().try_for_each(|item| out.write_all(&item.to_le_bytes()));
        written.and_then(|()| out.flush()).map_err(run.failed("write"))?;
        drop(out);
        self.buffer.clear();
        self.runs.push(run.path().to_owned());
        Ok(())
    }
}

/// Items in ascending order; can be read any number of times.
#[derive(Debug, Default)]
pub struct Sorted {
    memory: Vec<u128>,
    runs: Vec<PathBuf>,
}

impl Sorted {
    /// Bytes that the items occupy in memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory.len() * ITEM_BYTES
    }

    /// Adds a file of ascending items to what is read.
    pub fn add_run(&mut self, path: PathBuf) {
        self.runs.push(path);
    }

    /// The items in order.
    ///
    /// # Errors
    /// When a run cannot be opened.
    pub fn iter(&self) -> Result<Merge<'_>, StorageError> {
        Merge::new(self)
    }

    /// Hands the items over in batches. Items that agree above their lowest `shift` bits are never separated.
    ///
    /// # Errors
    /// When a run cannot be read, and what `take` answers.
    pub fn batches<E: From<StorageError>>(
        &self,
        shift: u32,
        mut take: impl FnMut(&[u128]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.runs.is_empty() {
            let mut rest = self.memory.as_slice();
            while rest.len() > BATCH_ITEMS {
                let key = rest[BATCH_ITEMS - 1] >> shift;
                let end = BATCH_ITEMS + rest[BATCH_ITEMS..].partition_point(|item| item >> shift == key);
                take(&rest[..end])?;
                rest = &rest[end..];
            }
            return if rest.is_empty() { Ok(()) } else { take(rest) };
        }
        let mut batch: Vec<u128> = Vec::with_capacity(BATCH_ITEMS);
        for item in self.iter()? {
            let item = item?;
            if batch.len() >= BATCH_ITEMS && batch.last().is_some_and(|last| last >> shift != item >> shift) {
                take(&batch)?;
                batch.clear();
            }
            batch.push(item);
        }
        if batch.is_empty() { Ok(()) } else { take(&batch) }
    }
}

/// Reads [`Sorted`] items in ascending order.
pub struct Merge<'a> {
    sources: Vec<Source<'a>>,
    heads: BinaryHeap<Reverse<(u128, usize)>>,
}

enum Source<'a> {
    Memory(std::slice::Iter<'a, u128>),
    Run { file: BufReader<File>, path: &'a PathBuf },
}

impl Source<'_> {
    fn next(&mut self) -> Result<Option<u128>, StorageError> {
        match self {
            Self::Memory(items) => Ok(items.next().copied()),
            Self::Run { file, path } => {
                let mut bytes = [0; ITEM_BYTES];
                match file.read_exact(&mut bytes) {
                    Ok(()) => Ok(Some(u128::from_le_bytes(bytes))),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                    Err(error) => Err(StorageError::at("read", *path)(error)),
                }
            }
        }
    }
}

impl<'a> Merge<'a> {
    fn new(sorted: &'a Sorted) -> Result<Self, StorageError> {
        let open = |path: &'a PathBuf| {
            let file = File::open(path).map_err(StorageError::at("read", path))?;
            Ok(Source::Run { file: BufReader::with_capacity(READ_BUFFER, file), path })
        };
        let mut sources = vec![Source::Memory(sorted.memory.iter())];
        for run in &sorted.runs {
            sources.push(open(run)?);
        }
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (index, source) in sources.iter_mut().enumerate() {
            heads.extend(source.next()?.map(|item| Reverse((item, index))));
        }
        Ok(Self { sources, heads })
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<u128, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut head = self.heads.peek_mut()?;
        let Reverse((item, index)) = *head;
        match self.sources[index].next() {
            Ok(Some(next)) => *head = Reverse((next, index)),
            Ok(None) => drop(PeekMut::pop(head)),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(item))
    }
}

#[cfg(test)]
mod tests {
    use internevo_core::rng::CounterRng;

    use super::*;

    #[test]
    fn the_order_is_the_same_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
        let rng = CounterRng::new(1, "items");
        let items: Vec<u128> = (0..200_000).map(|i| u128::from(rng.below(i, 5000)) << 32 | u128::from(i % 7)).collect();
        let sort = |memory: usize| {
            let mut sorter = Sorter::new(&scratch, memory);
            items.iter().try_for_each(|item| sorter.push(*item)).expect("disk");
            sorter.finish().expect("disk")
        };
        let (memory, disk) = (sort(1 << 30), sort(1 << 19));
        assert_eq!((memory.runs.len(), disk.runs.len(), disk.memory_bytes()), (0, 7, 0));
        let mut expected = items.clone();
        expected.sort_unstable();
        for sorted in [&memory, &disk] {
            let read: Vec<u128> = sorted.iter().expect("open").map(|item| item.expect("read")).collect();
            assert_eq!(read, expected);
            let (mut batched, mut last) = (Vec::new(), None);
            sorted
                .batches::<StorageError>(32, |batch| {
                    assert_ne!(last, Some(batch[0] >> 32), "a key is in one batch");
                    last = batch.last().map(|item| item >> 32);
                    batched.extend_from_slice(batch);
                    Ok(())
                })
                .expect("read");
            assert_eq!(batched, expected);
        }
    }
}
