//! Reading model files of other tools: bytes in order, with errors that name the file and the place.
//!
//! Not here: the formats themselves (`fasttext/`, `ngram_lm/`).

use std::path::{Path, PathBuf};

use internevo_core::storage::StorageError;

use crate::{DataError, mapped::MappedFile};

/// A model file in memory: mapped, or read.
#[derive(Debug)]
pub(crate) enum ModelBytes {
    Mapped(MappedFile),
    Owned(Vec<u8>),
}

impl ModelBytes {
    /// Maps the file at `path`.
    pub fn map(path: &Path) -> Result<Self, StorageError> {
        MappedFile::open(path).map(Self::Mapped)
    }
}

impl std::ops::Deref for ModelBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
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
