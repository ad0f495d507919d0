//! From lists to the file that is looked up.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use internevo_core::storage::{AtomicFile, StorageError};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    CategorySet, DomainList, Header, MAGIC, MAX_CATEGORIES, place,
    source::{Line, ListFile, list_files, read_line},
};
use crate::{
    DataError,
    format::{LineReader, RawRecord, RecordReader as _},
    safety::address::Address,
};

/// Entries of a bucket on average, at most.
const BUCKET_ENTRIES: u64 = 8;
/// Longest entry, bytes: its length has one byte.
const MAX_BYTES: usize = u8::MAX as usize;

/// Collects entries; the memory is 16 bytes an entry and its text.
#[derive(Debug, Default)]
pub struct DomainListBuilder {
    categories: Vec<String>,
    /// Texts of the entries.
    pool: Vec<u8>,
    entries: Vec<Entry>,
    skipped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    /// Where its text begins in the pool.
    at: u32,
    length: u8,
    category: u8,
}

impl Entry {
    fn text<'a>(&self, pool: &'a [u8]) -> &'a [u8] {
        &pool[self.at as usize..][..usize::from(self.length)]
    }
}

impl DomainListBuilder {
    /// No entries yet. `categories` are sorted, at most [`MAX_CATEGORIES`].
    ///
    /// # Errors
    /// [`DataError::Setting`] when there are more.
    pub fn new(mut categories: Vec<String>) -> Result<Self, DataError> {
        categories.sort();
        categories.dedup();
        if categories.len() > MAX_CATEGORIES {
            let reason = format!("{} categories, at most {MAX_CATEGORIES} fit into a list", categories.len());
            return Err(DataError::Setting { key: "lists".into(), reason });
        }
        Ok(Self { categories, ..Self::default() })
    }

    /// Adds an entry to a category, given by its number.
    pub fn push(&mut self, entry: &Address, category: usize) {
        let text = entry.as_str().as_bytes();
        let at = u32::try_from(self.pool.len()).ok().filter(|_| text.len() <= MAX_BYTES);
        let Some(at) = at else {
            self.skipped += 1;
            return;
        };
        self.pool.extend_from_slice(text);
        let (length, category) = (text.len() as u8, category as u8);
        self.entries.push(Entry { hash: xxh3_64(text), at, length, category });
    }

    /// Adds all entries of a list file.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged. Lines that are no entries are counted.
    pub(super) fn read(&mut self, file: &ListFile) -> Result<(), DataError> {
        let category = self.categories.binary_search(&file.category).expect("the categories are those of the files");
        let mut reader = LineReader::open(&file.path)?;
        let mut line = Vec::new();
        loop {
            match reader.next_record(&mut line)? {
                RawRecord::End => return Ok(()),
                RawRecord::Damaged(fault) => {
                    return Err(DataError::invalid(&file.path, reader.record(), fault.to_string()));
                }
                RawRecord::Record => match std::str::from_utf8(&line).map_or(Line::Other, read_line) {
                    Line::Blank => {}
                    Line::Entries(entries) => entries.iter().for_each(|entry| self.push(entry, category)),
                    Line::Other => self.skipped += 1,
                },
            }
        }
    }

    /// Writes the file. It depends on the entries and their categories only, not on their order.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(mut self, path: &Path) -> Result<(), DataError> {
        let pool = &self.pool;
        self.entries.par_sort_unstable_by(|a, b| (a.hash, a.text(pool)).cmp(&(b.hash, b.text(pool))));
        let groups = || self.entries.chunk_by(|a, b| a.hash == b.hash && a.text(pool) == b.text(pool));
        let set = |group: &[Entry]| {
            group.iter().fold(CategorySet::default(), |set, entry| set.with(CategorySet::of(entry.category.into())))
        };
        let mut header = Header { categories: self.categories.clone(), skipped: self.skipped, ..Header::default() };
        for group in groups() {
            header.entries += 1;
            header.urls += u64::from(group[0].text(pool).contains(&b'/'));
            header.record_bytes += 3 + u64::from(group[0].length);
            if let Err(at) = header.sets.binary_search(&set(group)) {
                header.sets.insert(at, set(group));
            }
        }
        header.bucket_bits = (header.entries / BUCKET_ENTRIES).checked_ilog2().map_or(0, |bits| bits + 1);
        let (starts, offsets) = index(groups(), &header);
        let record = |group: &[Entry]| {
            let number = header.sets.binary_search(&set(group)).expect("every set is there") as u16;
            let mut bytes = Vec::with_capacity(3 + MAX_BYTES);
            bytes.extend(number.to_le_bytes());
            bytes.push(group[0].length);
            bytes.extend(group[0].text(pool));
            bytes
        };
        let fingerprints = || groups().map(|group| (group[0].hash as u32).to_le_bytes());
        let body = |out: &mut dyn FnMut(&[u8]) -> std::io::Result<()>| {
            starts.iter().try_for_each(|start| out(&start.to_le_bytes()))?;
            offsets.iter().try_for_each(|offset| out(&offset.to_le_bytes()))?;
            fingerprints().try_for_each(|bytes| out(&bytes))?;
            groups().try_for_each(|group| out(&record(group)))
        };
        let mut hasher = header.hasher();
        let hash = |bytes: &[u8]| {
            hasher.update(bytes);
            Ok(())
        };
        body(&mut { hash }).expect("hashing does not fail");
        let json = Header { checksum: hasher.digest(), ..header.clone() }.json();
        let mut file = AtomicFile::create(path)?;
        let head = [MAGIC, &(json.len() as u64).to_le_bytes()[..], &json].concat();
        file.write_all(&head)
            .and_then(|()| body(&mut |bytes| file.write_all(bytes)))
            .map_err(StorageError::at("write", path))?;
        Ok(file.commit()?)
    }
}

/// First entry and first record of each bucket, and their ends.
fn index<'a>(groups: impl Iterator<Item = &'a [Entry]>, header: &Header) -> (Vec<u32>, Vec<u64>) {
    let (mut starts, mut offsets) = (vec![0u32; header.buckets() + 1], vec![0u64; header.buckets() + 1]);
    for group in groups {
        let (bucket, _) = place(group[0].hash, header.bucket_bits);
        starts[bucket + 1] += 1;
        offsets[bucket + 1] += 3 + u64::from(group[0].length);
    }
    for bucket in 0..header.buckets() {
        starts[bucket + 1] += starts[bucket];
        offsets[bucket + 1] += offsets[bucket];
    }
    (starts, offsets)
}

impl DomainList {
    /// The list of everything at `sources`, each a file or a folder (see [`source`](super::source)). It is built once, into `folder`, and
    /// found there again as long as names, sizes and times of the lists are the same.
    ///
    /// # Errors
    /// A list that cannot be read, or holds no entry; a file that cannot be written.
    pub fn of_sources(sources: &[PathBuf], folder: &Path) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for source in sources {
            files.extend(list_files(source)?);
        }
        let path = folder.join(format!("domains-{}.list", fingerprint(&files)?));
        if let Ok(list) = Self::open(&path) {
            return Ok(list);
        }
        let mut builder = DomainListBuilder::new(files.iter().map(|file| file.category.clone()).collect())?;
        for file in &files {
            let before = builder.entries.len();
            builder.read(file)?;
            if builder.entries.len() == before {
                return Err(DataError::invalid(&file.path, 1, "the list has no entry"));
            }
        }
        builder.write(&path)?;
        let list = Self::open(&path)?;
        tracing::info!("{} entries in {}, {} lines skipped", list.len(), path.display(), list.skipped());
        Ok(list)
    }
}

/// Names, sizes and times of list files.
fn fingerprint(files: &[ListFile]) -> Result<String, StorageError> {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let metadata = std::fs::metadata(&file.path).map_err(StorageError::at("read", &file.path))?;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let (path, bytes) = (file.path.display(), metadata.len());
        hasher.update(format!("{}\0{path}\0{bytes}\0{modified:?}\n", file.category).as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}
