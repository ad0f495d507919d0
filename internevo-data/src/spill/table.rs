//! Rows of fixed size by number: appended in order, read in any order. In memory as long as they fit, else all but the last ones in
//! a file, of which one page is held.

use std::{
    io::{Seek, SeekFrom, Write},
    sync::{Mutex, PoisonError},
};

use internevo_core::storage::StorageError;

use super::{Scratch, TemporaryFile};

/// Rows of a page.
const PAGE_ROWS: usize = 512;

/// Rows of `N` bytes.
pub struct Table<'s, const N: usize> {
    scratch: &'s Scratch,
    limit: usize,
    /// The rows from `stored` on.
    memory: Vec<[u8; N]>,
    stored: usize,
    file: Option<Mutex<Paged<N>>>,
}

struct Paged<const N: usize> {
    file: TemporaryFile,
    first: usize,
    page: Vec<[u8; N]>,
}

impl<'s, const N: usize> Table<'s, N> {
    /// A table that holds about `memory` bytes; the rest goes to `scratch`.
    pub fn new(scratch: &'s Scratch, memory: usize) -> Self {
        Self { scratch, limit: (memory / N).max(PAGE_ROWS), memory: Vec::new(), stored: 0, file: None }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.stored + self.memory.len()
    }

    /// Appends a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, row: [u8; N]) -> Result<(), StorageError> {
        if self.memory.len() == self.limit {
            if self.file.is_none() {
                let file = self.scratch.create()?;
                self.file = Some(Mutex::new(Paged { file, first: 0, page: Vec::new() }));
            }
            let paged = self.file.as_mut().expect("made above").get_mut().unwrap_or_else(PoisonError::into_inner);
            let end = SeekFrom::Start((self.stored * N) as u64);
            let written = paged.file.file.seek(end).and_then(|_| paged.file.file.write_all(self.memory.as_flattened()));
            written.map_err(paged.file.failed("write"))?;
            self.stored += self.memory.len();
            self.memory.clear();
        }
        self.memory.push(row);
        Ok(())
    }

    /// Row `index`.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, index: usize) -> Result<[u8; N], StorageError> {
        if index >= self.stored {
            return Ok(self.memory[index - self.stored]);
        }
        let paged = self.file.as_ref().expect("rows before `stored` are in the file");
        let mut paged = paged.lock().unwrap_or_else(PoisonError::into_inner);
        if !(paged.first..paged.first + paged.page.len()).contains(&index) {
            let first = index - index % PAGE_ROWS;
            let mut page = vec![[0; N]; PAGE_ROWS.min(self.stored - first)];
            paged.page.clear();
            paged.file.read_at((first * N) as u64, page.as_flattened_mut())?;
            (paged.first, paged.page) = (first, page);
        }
        Ok(paged.page[index - paged.first])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_from_memory_and_from_disk() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let scratch = Scratch::new(dir.path().join("scratch")).expect("scratch");
        let mut table = Table::<8>::new(&scratch, 0);
        for row in 0..3000u64 {
            table.push(row.to_le_bytes()).expect("disk");
            if row % 700 == 0 {
                assert_eq!(table.get(row as usize / 2).expect("disk"), (row / 2).to_le_bytes());
            }
        }
        assert_eq!((table.rows(), scratch.files()), (3000, 1));
        for row in [0, 511, 512, 2999, 2559, 2560, 1] {
            assert_eq!(table.get(row as usize).expect("disk"), (row as u64).to_le_bytes());
        }
    }
}
