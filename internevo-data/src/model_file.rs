//! Reading model files of other tools: bytes in order, with errors that name the file and the place.
//!
//! Not here: the formats themselves (`fasttext/`, `ngram_lm/`).

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use internevo_core::storage::StorageError;
use memmap2::{Mmap, MmapMut};

use crate::{DataError, mapped::MappedFile, stage::free_memory};

/// A model file in memory: mapped, or read.
#[derive(Debug)]
pub(crate) enum ModelBytes {
    Mapped(MappedFile),
    Read(Mmap),
    Owned(Vec<u8>),
}

/// Of the free memory, a model that is read may take one part in so many.
const READ_SHARE: u64 = 4;

impl ModelBytes {
    /// Maps the file at `path`.
    pub fn map(path: &Path) -> Result<Self, StorageError> {
        MappedFile::open(path).map(Self::Mapped)
    }

    /// Reads the file at `path` into memory of large pages: look-ups all over it then hardly wait for the processor's page tables. A
    /// file of more than a quarter of the free memory is mapped.
    pub fn read(path: &Path) -> Result<Self, StorageError> {
        let failed = || StorageError::at("read", path);
        let mut file = File::open(path).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        if length == 0 || free_memory().is_none_or(|free| length > free / READ_SHARE) {
            return Self::map(path);
        }
        let mut memory = MmapMut::map_anon(length as usize).map_err(failed())?;
        // A kernel that has no large pages to give serves small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        file.read_exact(&mut memory).map_err(failed())?;
        Ok(Self::Read(memory.make_read_only().map_err(failed())?))
    }
}

impl std::ops::Deref for ModelBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(memory) => memory,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A place in a model's bytes. All numbers are little-endian.
pub(crate) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, at: 0 }
    }

    /// Bytes before the cursor.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// An error at this place.
    pub fn fail(&self, reason: impl Into<String>) -> DataError {
        DataError::Model { path: PathBuf::from(self.path), offset: self.at as u64, reason: reason.into() }
    }

    /// The next `length` bytes, which are `what`.
    pub fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], DataError> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() {
            return Err(self.fail(format!("the file ends in {what}: {length} bytes expected, {} left", rest.len())));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    /// The bytes up to the next zero, which is passed over.
    pub fn until_zero(&mut self, what: &str) -> Result<&'a [u8], DataError> {
        let length = memchr::memchr(0, &self.bytes[self.at..]);
        let length = length.ok_or_else(|| self.fail(format!("the file ends in {what}")))?;
        let found = self.take(length, what)?;
        self.at += 1;
        Ok(found)
    }

    /// `count` numbers of `size` bytes each, which are `what`.
    pub fn array(&mut self, count: usize, size: usize, what: &str) -> Result<&'a [u8], DataError> {
        let length = count.checked_mul(size).ok_or_else(|| self.fail(format!("{count} {what} fit into no memory")))?;
        self.take(length, what)
    }

    /// A byte.
    pub fn u8(&mut self, what: &str) -> Result<u8, DataError> {
        Ok(self.take(1, what)?[0])
    }

    /// A number of 32 bits with sign.
    pub fn i32(&mut self, what: &str) -> Result<i32, DataError> {
        Ok(i32::from_le_bytes(self.fixed(what)?))
    }

    /// A number of 32 bits.
    pub fn u32(&mut self, what: &str) -> Result<u32, DataError> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    /// A number of 64 bits with sign.
    pub fn i64(&mut self, what: &str) -> Result<i64, DataError> {
        Ok(i64::from_le_bytes(self.fixed(what)?))
    }

    /// A number of 64 bits.
    pub fn u64(&mut self, what: &str) -> Result<u64, DataError> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    /// A float of 32 bits.
    pub fn f32(&mut self, what: &str) -> Result<f32, DataError> {
        Ok(f32::from_le_bytes(self.fixed(what)?))
    }

    /// `count` floats of 32 bits.
    pub fn f32s(&mut self, count: usize, what: &str) -> Result<Vec<f32>, DataError> {
        Ok(self.array(count, 4, what)?.chunks_exact(4).map(|b| f32::from_le_bytes(word(b))).collect())
    }

    /// A count that must not be negative.
    pub fn count(&self, value: i64, what: &str) -> Result<usize, DataError> {
        usize::try_from(value).map_err(|_| self.fail(format!("{value} {what}")))
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DataError> {
        Ok(word(self.take(N, what)?))
    }
}

/// The first `N` bytes.
///
/// # Panics
/// If there are fewer.
pub(crate) fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("a slice of N bytes is an array of N bytes")
}
