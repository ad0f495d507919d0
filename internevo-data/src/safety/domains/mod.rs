//! Lists of millions of blocked domains and addresses, in a file that is mapped into memory.
//!
//! | file | holds |
//! |---|---|
//! | `source.rs` | what lists look like: domains, hosts files, filter rules, folders of categories |
//! | `build.rs` | from lists to the file |
//! | `mod.rs` | the file's layout and look-ups |
//!
//! An entry's 64-bit hash chooses its bucket; a bucket is a run of 32-bit fingerprints, four bytes an entry, and these are all that a
//! look-up of an address without entry reads. Only where a fingerprint is equal (else about once in 10⁸ look-ups) the entry itself is
//! compared, so the answer is exact, and entries that are never met stay on disk.
//!
//! Layout, little-endian: [`MAGIC`], `u64` length of the header, the header as JSON, then
//! `starts` (`u32[buckets + 1]`, first entry of each bucket), `offsets` (`u64[buckets + 1]`, first record of each bucket),
//! `fingerprints` (`u32[entries]`), and `records` in the same order: `u16` set of categories, `u8` length, the entry.

mod build;
pub mod source;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use internevo_core::storage::StorageError;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use self::build::DomainListBuilder;
use super::address::Address;
use crate::{DataError, mapped::MappedFile};

const MAGIC: &[u8; 8] = b"INDOMS02";

/// Categories that a file can have: a set of them is 64 bits.
pub const MAX_CATEGORIES: usize = 64;

/// A set of categories: bit `i` is the category `i` of [`DomainList::categories`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CategorySet(u64);

impl CategorySet {
    /// Is there none?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The categories' numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_CATEGORIES).filter(move |at| self.0 >> at & 1 == 1)
    }

    fn of(category: usize) -> Self {
        Self(1 << category)
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Header {
    /// Different entries.
    entries: u64,
    /// Entries that have a path.
    urls: u64,
    /// Lines of the lists that are no entry, or too long for one.
    skipped: u64,
    categories: Vec<String>,
    /// The sets that records name.
    sets: Vec<CategorySet>,
    bucket_bits: u32,
    record_bytes: u64,
    /// xxh3 of this header with a checksum of zero, and of everything after it.
    checksum: u64,
}

impl Header {
    fn buckets(&self) -> usize {
        1 << self.bucket_bits
    }

    /// Bytes after the header.
    fn body_bytes(&self) -> u64 {
        12 * (self.buckets() as u64 + 1) + 4 * self.entries + self.record_bytes
    }

    /// What begins the checksum.
    fn hasher(&self) -> Xxh3 {
        let mut hasher = Xxh3::new();
        hasher.update(&Self { checksum: 0, ..self.clone() }.json());
        hasher
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers")
    }
}

/// A list of domains and addresses, each in one or more categories.
#[derive(Debug)]
pub struct DomainList {
    header: Header,
    map: MappedFile,
    /// Where the header ends.
    body: usize,
}

impl DomainList {
    /// Opens a file that [`DomainListBuilder`] wrote, and checks it: one pass over it that keeps nothing in memory.
    ///
    /// # Errors
    /// A file that cannot be read; [`DataError::Invalid`] when it is no such file, truncated or changed.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let invalid = |reason: &str| DataError::invalid(path, 1, format!("domain list: {reason}"));
        let failed = |error| StorageError::at("read", path)(error);
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::with_capacity(1 << 18, &file);
        let mut head = [0; 16];
        reader.read_exact(&mut head).map_err(|_| invalid("too short"))?;
        let length = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
        if &head[..8] != MAGIC || length > bytes {
            return Err(invalid("not a file of this version"));
        }
        let mut json = vec![0; length as usize];
        reader.read_exact(&mut json).map_err(|_| invalid("too short"))?;
        let header: Header = serde_json::from_slice(&json).map_err(|e| invalid(&e.to_string()))?;
        let body = 16 + length;
        let is_possible = header.bucket_bits <= 32 && header.entries.max(header.record_bytes) <= bytes;
        if !is_possible || body + header.body_bytes() != bytes {
            return Err(invalid("its size is not what its header says"));
        }
        if checksum(header.hasher(), reader).map_err(failed)? != header.checksum {
            return Err(invalid("its content is not what was written; delete it to build it again"));
        }
        Ok(Self { header, map: MappedFile::of(&file, path)?, body: body as usize })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Number of different entries.
    pub fn len(&self) -> u64 {
        self.header.entries
    }

    /// Is there no entry?
    pub fn is_empty(&self) -> bool {
        self.header.entries == 0
    }

    /// Lines of the lists that were no entry.
    pub fn skipped(&self) -> u64 {
        self.header.skipped
    }

    /// Names of the categories, sorted.
    pub fn categories(&self) -> &[String] {
        &self.header.categories
    }

    /// Hash of the content.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.header.checksum)
    }

    /// The categories of an address: those of its host, of every domain above it, and of every path above its own.
    pub fn lookup(&self, address: &Address) -> CategorySet {
        let found = address.domains().fold(CategorySet::default(), |set, domain| set.with(self.entry(domain)));
        if self.header.urls == 0 {
            return found;
        }
        address.paths().fold(found, |set, path| set.with(self.entry(path)))
    }

    /// The categories of exactly this entry.
    pub fn entry(&self, key: &str) -> CategorySet {
        let (bucket, fingerprint) = place(xxh3_64(key.as_bytes()), self.header.bucket_bits);
        let starts = self.body + 4 * bucket;
        let (first, end) = (self.u32(starts) as usize, self.u32(starts + 4) as usize);
        let fingerprints = self.body + 12 * (self.header.buckets() + 1);
        let run = &self.map[fingerprints + 4 * first..fingerprints + 4 * end];
        let equal = |bytes: &[u8]| bytes == fingerprint.to_le_bytes();
        if run.chunks_exact(4).any(equal) { self.compare(bucket, end - first, key) } else { CategorySet::default() }
    }

    /// Looks for `key` itself among the `count` records of a bucket.
    #[cold]
    fn compare(&self, bucket: usize, count: usize, key: &str) -> CategorySet {
        let offsets = self.body + 4 * (self.header.buckets() + 1);
        let offset = self.map[offsets + 8 * bucket..][..8].try_into().expect("eight bytes");
        let records = self.map.len() - self.header.record_bytes as usize;
        let mut rest = &self.map[records + u64::from_le_bytes(offset) as usize..];
        for _ in 0..count {
            let (head, after) = rest.split_at(3);
            let (entry, after) = after.split_at(usize::from(head[2]));
            if entry == key.as_bytes() {
                return self.header.sets[usize::from(u16::from_le_bytes([head[0], head[1]]))];
            }
            rest = after;
        }
        CategorySet::default()
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes"))
    }
}

/// Bucket and fingerprint of a hash.
fn place(hash: u64, bucket_bits: u32) -> (usize, u32) {
    // In two steps: a shift by 64 is none.
    ((hash >> 32 >> (32 - bucket_bits)) as usize, hash as u32)
}

fn checksum(mut hasher: Xxh3, mut reader: impl Read) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.digest()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
