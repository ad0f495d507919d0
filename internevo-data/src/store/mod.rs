//! Tokenized documents on disk: Megatron's `.bin`/`.idx` and InternEvo's `.bin`/`.bin.meta`, read and written; JSON lines and Parquet
//! for other programs, written alone; and the seam for forms of other crates ([`TokenSink`]).
//!
//! | file | holds |
//! |---|---|
//! | `megatron.rs` | Megatron's indexed dataset, the form internevo writes by default |
//! | `internevo.rs` | InternEvo's JSON lines with a numpy table, `npy.rs` the table |
//! | `jsonl.rs`, `parquet.rs` | a line or a row a document (`parquet.rs`: feature `parquet`) |
//! | `sink.rs`, `builtin.rs` | what a token sink is, and the writers above by their names |
//!
//! [`TokenStore`] joins any number of files into one list of documents. Not here: what a row of training data is (`loader`).

mod builtin;
mod internevo;
mod jsonl;
mod megatron;
mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod sink;

use std::{
    ffi::OsString,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use internevo_core::{plugin::PluginError, storage::StorageError};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

#[cfg(feature = "parquet")]
pub use self::parquet::{ParquetConfig, ParquetWriter};
pub use self::{
    builtin::{InternEvoConfig, JsonlConfig, MegatronConfig, TokenTypeChoice},
    internevo::{InternEvoReader, InternEvoWriter},
    jsonl::{Compression, JsonlWriter},
    megatron::{MegatronReader, MegatronWriter, TokenType},
    sink::{TokenSink, TokenSinkContext, TokenSinkEntry, TokenSinkPlugin, token_sink, token_sinks},
};

/// Bytes at either end of each token file that go into the fingerprint.
const FINGERPRINT_BYTES: usize = 1 << 16;

/// What can go wrong with a token store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file is damaged, or not what its name says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A folder without token files, or with two kinds of them.
    #[error("{}: {reason}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that the file's type cannot hold.
    #[error("{}: token {token} is outside {allowed}", path.display())]
    Token {
        /// The file being written.
        path: PathBuf,
        /// The token.
        token: i64,
        /// What fits.
        allowed: String,
    },
    /// A token sink that does not exist, or settings that do not fit it.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Identifies the tokens of a store without reading them all: a run that resumes on other data must notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Documents of the store.
    pub documents: u64,
    /// Tokens of the store.
    pub tokens: u64,
    /// xxh3 of all index files, and of size, first and last 64 KiB of all token files; 32 hexadecimal digits.
    pub hash: String,
}

/// Where one file of a store is.
enum TokenFile {
    /// The path without `.idx`.
    Megatron(PathBuf),
    /// The path without `.meta`.
    InternEvo(PathBuf),
}

impl TokenFile {
    /// The file that `path` is the index of.
    fn of_index(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "idx" => Some(Self::Megatron(path.with_extension(""))),
            "meta" if path.with_extension("").extension()? == "bin" => Some(Self::InternEvo(path.with_extension(""))),
            _ => None,
        }
    }

    fn open(&self) -> Result<Shard, StoreError> {
        match self {
            Self::Megatron(prefix) => MegatronReader::open(prefix).map(Shard::Megatron),
            Self::InternEvo(bin) => InternEvoReader::open(bin).map(Shard::InternEvo),
        }
    }
}

/// One file of a store.
#[derive(Debug)]
enum Shard {
    Megatron(MegatronReader),
    InternEvo(InternEvoReader),
}

impl Shard {
    fn documents(&self) -> usize {
        match self {
            Self::Megatron(reader) => reader.documents(),
            Self::InternEvo(reader) => reader.documents(),
        }
    }

    fn len(&self, document: usize) -> usize {
        match self {
            Self::Megatron(reader) => reader.len(document),
            Self::InternEvo(reader) => reader.len(document),
        }
    }

    fn raw(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Megatron(reader) => reader.raw(),
            Self::InternEvo(reader) => reader.raw(),
        }
    }
}

/// Tokenized documents, numbered over all files in the order of their paths. Read by any number of threads at once.
#[derive(Debug)]
pub struct TokenStore {
    place: PathBuf,
    shards: Vec<Shard>,
    /// Number of the first document of each shard, and the number of all documents.
    starts: Vec<usize>,
    tokens: u64,
}

impl TokenStore {
    /// Opens the split `split` (`train`, `valid`) of a folder: `<split>.bin` with `<split>.idx`, or the shards
    /// `<split>-*.bin` with `.bin.meta`. In a folder without files of that name: every `*.idx`, or every `*.bin` with
    /// `.bin.meta`, of the folder and the folders in it, in the order of their paths.
    ///
    /// # Errors
    /// [`StoreError::Folder`] without token files or with both kinds; errors of the single files.
    pub fn open_folder(folder: impl AsRef<Path>, split: &str) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let mut files = Vec::new();
        list_files(folder, &mut files)?;
        files.sort();
        let starts = with_suffix(&folder.join(split), "-");
        let is_named = |file: &TokenFile| match file {
            TokenFile::Megatron(prefix) => *prefix == folder.join(split),
            TokenFile::InternEvo(bin) => {
                bin.as_os_str().as_encoded_bytes().starts_with(starts.as_os_str().as_encoded_bytes())
            }
        };
        let mut found: Vec<TokenFile> = files.iter().filter_map(|path| TokenFile::of_index(path)).collect();
        if found.iter().any(is_named) {
            found.retain(is_named);
        }
        let internevo = found.iter().filter(|file| matches!(file, TokenFile::InternEvo(_))).count();
        if found.is_empty() {
            return Err(folder_error(folder, format!("no {split}.idx, *.idx or *.bin.meta: no tokenized data")));
        }
        if internevo != 0 && internevo != found.len() {
            return Err(folder_error(folder, "holds both *.idx and *.bin.meta; keep one kind".into()));
        }
        let shards = found.iter().map(TokenFile::open).collect::<Result<_, _>>()?;
        Ok(Self::of_shards(folder, shards))
    }

    /// Opens `<prefix>.bin` with `<prefix>.idx`.
    ///
    /// # Errors
    /// As [`MegatronReader::open`].
    pub fn open_prefix(prefix: impl AsRef<Path>) -> Result<Self, StoreError> {
        let reader = MegatronReader::open(prefix.as_ref())?;
        Ok(Self::of_shards(prefix.as_ref(), vec![Shard::Megatron(reader)]))
    }

    fn of_shards(place: &Path, shards: Vec<Shard>) -> Self {
        let mut starts = vec![0];
        for shard in &shards {
            starts.push(starts[starts.len() - 1] + shard.documents());
        }
        let tokens = shards.iter().flat_map(|s| (0..s.documents()).map(|d| s.len(d) as u64)).sum();
        Self { place: place.into(), shards, starts, tokens }
    }

    /// The folder or prefix it was opened from.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Documents.
    pub fn documents(&self) -> usize {
        self.starts[self.shards.len()]
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of document `document`.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn len(&self, document: usize) -> usize {
        let (shard, document) = self.locate(document);
        shard.len(document)
    }

    /// True without documents.
    pub fn is_empty(&self) -> bool {
        self.documents() == 0
    }

    /// Appends the tokens `range` of document `document` to `out`. A negative token is input, but not a target.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when an InternEvo line is not what its table says.
    ///
    /// # Panics
    /// If the document or the range is out of bounds.
    pub fn read(&self, document: usize, range: Range<usize>, out: &mut Vec<i32>) -> Result<(), StoreError> {
        match self.locate(document) {
            (Shard::Megatron(reader), document) => {
                reader.read(document, range, out);
                Ok(())
            }
            (Shard::InternEvo(reader), document) => reader.read(document, range, out),
        }
    }

    /// Identifies the store's content.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Xxh3::new();
        for (index, tokens) in self.shards.iter().map(Shard::raw) {
            hash.update(&(index.len() as u64).to_le_bytes());
            hash.update(index);
            hash.update(&(tokens.len() as u64).to_le_bytes());
            hash.update(&tokens[..tokens.len().min(FINGERPRINT_BYTES)]);
            hash.update(&tokens[tokens.len().saturating_sub(FINGERPRINT_BYTES)..]);
        }
        Fingerprint {
            documents: self.documents() as u64,
            tokens: self.tokens,
            hash: format!("{:032x}", hash.digest128()),
        }
    }

    fn locate(&self, document: usize) -> (&Shard, usize) {
        assert!(document < self.documents(), "document {document} of {}", self.documents());
        let shard = self.starts.partition_point(|start| *start <= document) - 1;
        (&self.shards[shard], document - self.starts[shard])
    }
}

fn folder_error(folder: &Path, reason: String) -> StoreError {
    StoreError::Folder { folder: folder.into(), reason }
}

fn list_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), StorageError> {
    for entry in fs::read_dir(folder).map_err(StorageError::at("read", folder))? {
        let path = entry.map_err(StorageError::at("read", folder))?.path();
        if path.is_dir() {
            list_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// `path` with `suffix` behind its name: unlike `with_extension`, a dot in the name stays.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn megatron(prefix: PathBuf, documents: &[&[i32]]) {
        let mut writer = MegatronWriter::create(prefix, TokenType::U16).unwrap();
        documents.iter().for_each(|d| writer.push(d).unwrap());
        writer.finish().unwrap();
    }

    fn all(store: &TokenStore) -> Vec<Vec<i32>> {
        let read = |d| {
            let mut out = Vec::new();
            store.read(d, 0..store.len(d), &mut out).unwrap();
            out
        };
        (0..store.documents()).map(read).collect()
    }

    #[test]
    fn a_folder_opens_its_split_or_all_its_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        megatron(folder.path().join("b"), &[&[3], &[]]);
        megatron(folder.path().join("a.v2"), &[&[1, 2]]);
        megatron(folder.path().join("en/part"), &[&[4]]);
        let store = TokenStore::open_folder(folder.path(), "train").unwrap();
        assert_eq!(all(&store), [vec![1, 2], vec![3], vec![], vec![4]]);
        assert_eq!((store.tokens(), store.len(0)), (4, 2));
        megatron(folder.path().join("train"), &[&[9]]);
        assert_eq!(all(&TokenStore::open_folder(folder.path(), "train").unwrap()), [[9]]);
    }

    #[test]
    fn internevo_files_open_too_but_not_beside_megatron_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = InternEvoWriter::create(folder.path().join("cn/data"));
        writer.push(&[5, -6]).unwrap();
        writer.finish().unwrap();
        assert_eq!(all(&TokenStore::open_folder(folder.path(), "train").unwrap()), [[5, -6]]);
        let mut writer = InternEvoWriter::with_shard_limit(folder.path().join("valid"), 1);
        writer.push(&[7]).unwrap();
        writer.push(&[8]).unwrap();
        writer.finish().unwrap();
        assert_eq!(all(&TokenStore::open_folder(folder.path(), "valid").unwrap()), [[7], [8]]);
        megatron(folder.path().join("b"), &[&[3]]);
        let error = TokenStore::open_folder(folder.path(), "train").unwrap_err().to_string();
        assert!(error.contains("both"), "{error}");
    }

    #[test]
    fn an_empty_folder_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let error = TokenStore::open_folder(folder.path(), "valid").unwrap_err().to_string();
        assert!(error.contains("valid.idx") && error.contains(&folder.path().display().to_string()), "{error}");
    }

    #[test]
    fn the_fingerprint_sees_one_changed_token() {
        let folder = tempfile::tempdir().unwrap();
        let fingerprint = |tokens: &[i32]| {
            megatron(folder.path().join("train"), &[tokens]);
            TokenStore::open_folder(folder.path(), "train").unwrap().fingerprint()
        };
        assert_eq!(fingerprint(&[1, 2, 3]), fingerprint(&[1, 2, 3]));
        assert_ne!(fingerprint(&[1, 2, 3]), fingerprint(&[1, 2, 4]));
    }
}
