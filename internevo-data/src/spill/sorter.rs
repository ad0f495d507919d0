//! External sort of items of a fixed size: sorted runs on disk when memory is full, merged when they are read.
//!
//! The order of items is total, or equal items become one, so that the result depends neither on the memory nor on the order of
//! insertion.

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

/// What a [`Sorter`] sorts.
pub trait Item: Copy + Ord + Send + Sync {
    /// Bytes of an item in a file.
    const BYTES: usize;
    /// Writes [`Item::BYTES`] bytes.
    fn write(self, out: &mut impl Write) -> std::io::Result<()>;
    /// The item of bytes that [`Item::write`] wrote.
    fn read(bytes: &[u8]) -> Self;
    /// Takes up another item that is equal to this one; `false`: both stay.
    fn absorb(&mut self, equal: &Self) -> bool {
        let _ = equal;
        false
    }
}

/// A key above what belongs to it.
impl Item for u128 {
    const BYTES: usize = size_of::<Self>();
    fn write(self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&self.to_le_bytes())
    }
    fn read(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("bytes of an item"))
    }
}

/// Write buffer of a run, bytes.
const WRITE_BUFFER: usize = 1 << 20;
/// Read buffer of each run of a merge, bytes.
const READ_BUFFER: usize = 1 << 17;
/// Items handed over at once when a merge is read in batches.
const BATCH_ITEMS: usize = 1 << 16;

/// Collects items.
pub struct Sorter<'s, T = u128> {
    scratch: &'s Scratch,
    buffer: Vec<T>,
    limit: usize,
    runs: Vec<PathBuf>,
}

impl<'s, T: Item> Sorter<'s, T> {
    /// A sorter that holds about `memory` bytes; the rest goes to `scratch`.
    pub fn new(scratch: &'s Scratch, memory: usize) -> Self {
        Self { scratch, buffer: Vec::new(), limit: (memory / size_of::<T>()).max(1024), runs: Vec::new() }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn push(&mut self, item: T) -> Result<(), StorageError> {
        if self.buffer.len() == self.limit {
            self.sort();
            // A buffer that equal items filled has room again; sorting for less than half of it would never end.
            if 2 * self.buffer.len() > self.limit {
                self.spill()?;
            }
        } else if self.buffer.len() == self.buffer.capacity() && 8 * self.buffer.len() > self.limit {
            // Early: growing holds the old buffer beside the new one, and memory that is not used yet costs nothing.
            self.buffer.reserve_exact(self.limit - self.buffer.len());
        }
        self.buffer.push(item);
        Ok(())
    }

    /// Ends the collection. Either everything stays in memory, or everything is on disk.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn finish(mut self) -> Result<Sorted<T>, StorageError> {
        self.sort();
        if !self.runs.is_empty() {
            self.spill()?;
            self.buffer = Vec::new();
        }
        Ok(Sorted { memory: self.buffer, runs: self.runs })
    }

    fn sort(&mut self) {
        self.buffer.par_sort_unstable();
        self.buffer.dedup_by(|next, kept| next == kept && kept.absorb(next));
    }

    /// Writes the sorted buffer.
    fn spill(&mut self) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let run = self.scratch.create()?;
        let mut out = BufWriter::with_capacity(WRITE_BUFFER, &run.file);
        let written = self.buffer.iter().try_for_each(|item| item.write(&mut out));
        written.and_then(|()| out.flush()).map_err(run.failed("write"))?;
        drop(out);
        self.buffer.clear();
        self.runs.push(run.path().to_owned());
        Ok(())
    }
}

/// Items in ascending order; can be read any number of times.
#[derive(Debug, Default)]
pub struct Sorted<T = u128> {
    memory: Vec<T>,
    runs: Vec<PathBuf>,
}

impl<T: Item> Sorted<T> {
    /// Bytes that the items occupy in memory.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.memory)
    }

    /// Adds a file of ascending items to what is read.
    pub fn add_run(&mut self, path: PathBuf) {
        self.runs.push(path);
    }

    /// The items in order.
    ///
    /// # Errors
    /// When a run cannot be opened.
    pub fn iter(&self) -> Result<Merge<'_, T>, StorageError> {
        Merge::new(self)
    }
}

impl Sorted {
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
pub struct Merge<'a, T = u128> {
    sources: Vec<Source<'a, T>>,
    heads: BinaryHeap<Reverse<(T, usize)>>,
    buffer: Vec<u8>,
}

enum Source<'a, T> {
    Memory(std::slice::Iter<'a, T>),
    Run { file: BufReader<File>, path: &'a PathBuf },
}

impl<T: Item> Source<'_, T> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<T>, StorageError> {
        match self {
            Self::Memory(items) => Ok(items.next().copied()),
            Self::Run { file, path } => match file.read_exact(buffer) {
                Ok(()) => Ok(Some(T::read(buffer))),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(StorageError::at("read", *path)(error)),
            },
        }
    }
}

impl<'a, T: Item> Merge<'a, T> {
    fn new(sorted: &'a Sorted<T>) -> Result<Self, StorageError> {
        let open = |path: &'a PathBuf| {
            let file = File::open(path).map_err(StorageError::at("read", path))?;
            Ok(Source::Run { file: BufReader::with_capacity(READ_BUFFER, file), path })
        };
        let mut sources = vec![Source::Memory(sorted.memory.iter())];
        for run in &sorted.runs {
            sources.push(open(run)?);
        }
        let mut heads = BinaryHeap::with_capacity(sources.len());
        let mut buffer = vec![0; T::BYTES];
        for (index, source) in sources.iter_mut().enumerate() {
            heads.extend(source.next(&mut buffer)?.map(|item| Reverse((item, index))));
        }
        Ok(Self { sources, heads, buffer })
    }

    /// Takes the least head, if `wanted`, and reads what comes after it.
    fn pop(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Option<T>, StorageError> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((item, index)) = *head;
        if !wanted(&item) {
            return Ok(None);
        }
        match self.sources[index].next(&mut self.buffer)? {
            Some(next) => *head = Reverse((next, index)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(item))
    }
}

impl<T: Item> Iterator for Merge<'_, T> {
    type Item = Result<T, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut item = match self.pop(|_| true).transpose()? {
            Ok(item) => item,
            Err(error) => return Some(Err(error)),
        };
        loop {
            match self.pop(|next| *next == item && item.absorb(next)) {
                Ok(Some(_)) => {}
                Ok(None) => return Some(Ok(item)),
                Err(error) => return Some(Err(error)),
            }
        }
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
            let mut sorter: Sorter<'_> = Sorter::new(&scratch, memory);
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
