//! Megatron-LM's indexed dataset: `X.bin` holds the tokens of all documents one after another, `X.idx` says where each one is.
//!
//! Layout of `.idx`, little-endian, no padding (Megatron-LM `megatron/core/datasets/indexed_dataset.py`):
//!
//! | bytes | what |
//! |---|---|
//! | 9 | `MMIDIDX\0\0` |
//! | 8 | version, 1 |
//! | 1 | type of a token: 4 = int32, 8 = uint16 (others exist, but not for tokens) |
//! | 8 | sequences `n` |
//! | 8 | document boundaries `d` (documents + 1) |
//! | 4·n | tokens of each sequence, int32 |
//! | 8·n | byte offset of each sequence in `.bin`, int64 |
//! | 8·d | first sequence of each document, int64; the last entry is `n` |
//!
//! The writer makes one sequence per document; the reader takes any number of them.

use std::{
    fs, io,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use internevo_core::storage::{AtomicFile, StorageError};

use super::{StoreError, with_suffix};
use crate::mapped::MappedFile;

const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const VERSION: u64 = 1;
/// Bytes before the three tables.
const HEADER: usize = MAGIC.len() + 8 + 1 + 8 + 8;
/// Megatron takes uint16 below this vocabulary size.
const U16_VOCAB: usize = 65_500;

/// How a token lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Unsigned, two bytes: vocabularies below 65,500 without negative tokens.
    U16,
    /// Signed, four bytes.
    I32,
}

impl TokenType {
    /// The type Megatron takes for a vocabulary of `vocab_size`.
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size < U16_VOCAB { Self::U16 } else { Self::I32 }
    }

    /// Bytes per token.
    pub fn size(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::I32 => 4,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::U16 => 8,
            Self::I32 => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::U16, Self::I32].into_iter().find(|t| t.code() == code)
    }
}

/// Writes `<prefix>.bin` and `<prefix>.idx`; both appear when [`MegatronWriter::finish`] succeeds.
#[derive(Debug)]
pub struct MegatronWriter {
    prefix: PathBuf,
    bin: AtomicFile,
    token_type: TokenType,
    lengths: Vec<i32>,
    buffer: Vec<u8>,
}

impl MegatronWriter {
    /// Starts the two files; missing folders are made.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when the file cannot be made.
    pub fn create(prefix: impl Into<PathBuf>, token_type: TokenType) -> Result<Self, StoreError> {
        let prefix = prefix.into();
        let bin = AtomicFile::create(with_suffix(&prefix, ".bin"))?;
        Ok(Self { prefix, bin, token_type, lengths: Vec::new(), buffer: Vec::new() })
    }

    /// Appends one document.
    ///
    /// # Errors
    /// [`StoreError::Token`] when a token does not fit the type, [`StoreError::Storage`] when writing fails.
    pub fn push(&mut self, tokens: &[i32]) -> Result<(), StoreError> {
        self.buffer.clear();
        for token in tokens {
            match self.token_type {
                TokenType::I32 => self.buffer.extend_from_slice(&token.to_le_bytes()),
                TokenType::U16 => {
                    let small = u16::try_from(*token).map_err(|_| StoreError::Token {
                        path: with_suffix(&self.prefix, ".bin"),
                        token: i64::from(*token),
                        allowed: "0 to 65535 (uint16)".into(),
                    })?;
                    self.buffer.extend_from_slice(&small.to_le_bytes());
                }
            }
        }
        let length = i32::try_from(tokens.len()).map_err(|_| StoreError::Corrupt {
            path: with_suffix(&self.prefix, ".idx"),
            expected: "at most 2147483647 tokens in a document".into(),
            found: tokens.len().to_string(),
        })?;
        self.bin.write_all(&self.buffer).map_err(StorageError::at("write", with_suffix(&self.prefix, ".bin")))?;
        self.lengths.push(length);
        Ok(())
    }

    /// Makes both files appear. An older index goes first, so that at no moment it stands beside new tokens.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when writing fails.
    pub fn finish(self) -> Result<(), StoreError> {
        let path = with_suffix(&self.prefix, ".idx");
        let mut idx = AtomicFile::create(&path)?;
        self.write_index(&mut idx).map_err(StorageError::at("write", &path))?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StorageError::at("replace", &path)(e).into()),
            _ => self.bin.commit()?,
        }
        Ok(idx.commit()?)
    }

    fn write_index(&self, idx: &mut AtomicFile) -> io::Result<()> {
        let sequences = self.lengths.len() as u64;
        idx.write_all(MAGIC)?;
        idx.write_all(&VERSION.to_le_bytes())?;
        idx.write_all(&[self.token_type.code()])?;
        idx.write_all(&sequences.to_le_bytes())?;
        idx.write_all(&(sequences + 1).to_le_bytes())?;
        for length in &self.lengths {
            idx.write_all(&length.to_le_bytes())?;
        }
        let mut offset = 0i64;
        for length in &self.lengths {
            idx.write_all(&offset.to_le_bytes())?;
            offset += i64::from(*length) * self.token_type.size() as i64;
        }
        (0..=sequences).try_for_each(|sequence| idx.write_all(&sequence.to_le_bytes()))
    }
}

/// Reads `<prefix>.bin` and `<prefix>.idx`, both mapped.
#[derive(Debug)]
pub struct MegatronReader {
    bin: MappedFile,
    idx: MappedFile,
    token_type: TokenType,
    sequences: usize,
    documents: usize,
}

impl MegatronReader {
    /// Opens and checks both files: header, sizes, order of the tables, and that every sequence lies inside `.bin`.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when a file cannot be read; [`StoreError::Corrupt`], naming the file and what was expected.
    pub fn open(prefix: impl AsRef<Path>) -> Result<Self, StoreError> {
        let idx = MappedFile::open(with_suffix(prefix.as_ref(), ".idx"))?;
        let (token_type, sequences, boundaries) = read_header(&idx)?;
        let bin = MappedFile::open(with_suffix(prefix.as_ref(), ".bin"))?;
        let reader = Self { bin, idx, token_type, sequences, documents: boundaries - 1 };
        reader.check_documents()?;
        reader.check_sequences()?;
        Ok(reader)
    }

    /// Documents in the file.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// How tokens lie in `.bin`.
    pub fn token_type(&self) -> TokenType {
        self.token_type
    }

    /// Tokens of document `document`.
    pub fn len(&self, document: usize) -> usize {
        self.sequences_of(document).map(|s| self.length(s)).sum()
    }

    /// True without documents.
    pub fn is_empty(&self) -> bool {
        self.documents == 0
    }

    /// Appends the tokens `range` of document `document` to `out`.
    ///
    /// # Panics
    /// If the document or the range is out of bounds.
    pub fn read(&self, document: usize, range: Range<usize>, out: &mut Vec<i32>) {
        assert!(range.end <= self.len(document), "{range:?} is outside document {document}");
        let mut start = 0;
        for sequence in self.sequences_of(document) {
            let end = start + self.length(sequence);
            let part = range.start.clamp(start, end)..range.end.clamp(start, end);
            let offset = self.offset(sequence) + (part.start - start) * self.token_type.size();
            self.decode(&self.bin[offset..offset + part.len() * self.token_type.size()], out);
            start = end;
        }
    }

    /// The index file's bytes and those of the tokens: what a fingerprint is made of.
    pub(super) fn raw(&self) -> (&[u8], &[u8]) {
        (&self.idx, &self.bin)
    }

    fn decode(&self, bytes: &[u8], out: &mut Vec<i32>) {
        match self.token_type {
            TokenType::U16 => {
                out.extend(bytes.as_chunks::<2>().0.iter().map(|b| i32::from(u16::from_le_bytes(*b))));
            }
            TokenType::I32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b))),
        }
    }

    fn length(&self, sequence: usize) -> usize {
        let at = HEADER + 4 * sequence;
        u32::from_le_bytes(self.idx[at..at + 4].try_into().expect("four bytes")) as usize
    }

    fn offset(&self, sequence: usize) -> usize {
        read_u64(&self.idx, HEADER + 4 * self.sequences + 8 * sequence) as usize
    }

    fn boundary(&self, document: usize) -> usize {
        read_u64(&self.idx, HEADER + 12 * self.sequences + 8 * document) as usize
    }

    fn sequences_of(&self, document: usize) -> Range<usize> {
        assert!(document < self.documents, "document {document} of {}", self.documents);
        self.boundary(document)..self.boundary(document + 1)
    }

    fn check_documents(&self) -> Result<(), StoreError> {
        let fault = (0..self.documents).find(|d| self.boundary(*d) > self.boundary(d + 1));
        if let Some(document) = fault {
            let found = format!("{} after {}", self.boundary(document + 1), self.boundary(document));
            return Err(corrupt(&self.idx, format!("document {document} to end behind its start"), found));
        }
        let ends = (self.boundary(0), self.boundary(self.documents));
        if ends != (0, self.sequences) {
            let expected = format!("documents from sequence 0 to {}", self.sequences);
            return Err(corrupt(&self.idx, expected, format!("{} to {}", ends.0, ends.1)));
        }
        Ok(())
    }

    fn check_sequences(&self) -> Result<(), StoreError> {
        let size = self.token_type.size() as u64;
        let mut total = 0u64;
        for sequence in 0..self.sequences {
            // A negative length or offset is enormous as an unsigned number.
            let length = self.length(sequence) as u64;
            let offset = self.offset(sequence) as u64;
            total += length * size;
            if offset.checked_add(length * size).is_none_or(|end| end > self.bin.len() as u64) {
                let expected = format!("sequence {sequence} ({length} tokens at byte {offset}) inside the file");
                return Err(corrupt(&self.bin, expected, format!("{} bytes", self.bin.len())));
            }
        }
        if total != self.bin.len() as u64 {
            let expected = format!("{total} bytes, as its index says");
            return Err(corrupt(&self.bin, expected, format!("{} bytes", self.bin.len())));
        }
        Ok(())
    }
}

/// Token type, sequences and document boundaries (at least one), after checking the file's size against them.
fn read_header(idx: &MappedFile) -> Result<(TokenType, usize, usize), StoreError> {
    if idx.len() < HEADER || !idx.starts_with(MAGIC) {
        let found = format!("{} bytes starting with {:02x?}", idx.len(), &idx[..idx.len().min(MAGIC.len())]);
        return Err(corrupt(idx, "a Megatron index (MMIDIDX)".into(), found));
    }
    let version = read_u64(idx, 9);
    if version != VERSION {
        return Err(corrupt(idx, format!("version {VERSION}"), version.to_string()));
    }
    let code = idx[17];
    let token_type = TokenType::from_code(code)
        .ok_or_else(|| corrupt(idx, "tokens of type 4 (int32) or 8 (uint16)".into(), format!("type {code}")))?;
    let (sequences, boundaries) = (read_u64(idx, 18), read_u64(idx, 26));
    let expected = sequences
        .checked_mul(12)
        .and_then(|tables| tables.checked_add(boundaries.checked_mul(8)?))
        .and_then(|tables| tables.checked_add(HEADER as u64));
    if boundaries == 0 || expected != Some(idx.len() as u64) {
        let bytes = expected.map_or("too many".into(), |b| b.to_string());
        let expected = format!("{bytes} bytes for {sequences} sequences and {boundaries} document boundaries");
        return Err(corrupt(idx, expected, format!("{} bytes", idx.len())));
    }
    Ok((token_type, sequences as usize, boundaries as usize))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn corrupt(file: &MappedFile, expected: String, found: String) -> StoreError {
    StoreError::Corrupt { path: file.path().into(), expected, found }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two documents, `[1, 2, 3]` and `[4]`, as Megatron-LM's `_IndexWriter` lays them out; written out by hand.
    fn golden() -> Vec<u8> {
        [
            b"MMIDIDX\x00\x00".as_slice(),
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[8],
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 1, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    }

    #[test]
    fn the_bytes_are_those_of_megatron() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("train");
        let mut writer = MegatronWriter::create(&prefix, TokenType::U16).unwrap();
        writer.push(&[1, 2, 3]).unwrap();
        writer.push(&[4]).unwrap();
        writer.finish().unwrap();
        assert_eq!(fs::read(with_suffix(&prefix, ".idx")).unwrap(), golden());
        assert_eq!(fs::read(with_suffix(&prefix, ".bin")).unwrap(), [1, 0, 2, 0, 3, 0, 4, 0]);
    }

    #[test]
    fn a_document_of_several_sequences_reads_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("train");
        let mut idx = golden();
        // One document: boundaries 0 and 2.
        idx[26] = 2;
        idx.drain(idx.len() - 16..idx.len() - 8);
        fs::write(with_suffix(&prefix, ".idx"), idx).unwrap();
        fs::write(with_suffix(&prefix, ".bin"), [1, 0, 2, 0, 3, 0, 4, 0]).unwrap();
        let reader = MegatronReader::open(&prefix).unwrap();
        let mut out = Vec::new();
        reader.read(0, 1..4, &mut out);
        assert_eq!((reader.documents(), reader.len(0), out), (1, 4, vec![2, 3, 4]));
    }

    #[test]
    fn a_damaged_pair_is_refused_with_the_file_and_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("train");
        let bin = [1, 0, 2, 0, 3, 0, 4, 0];
        let flip = |at: usize, value: u8| {
            let mut idx = golden();
            idx[at] = value;
            idx
        };
        let cases: [(Vec<u8>, &[u8], &str, &str); 8] = [
            (golden(), &bin[..5], "train.bin", "sequence 0 (3 tokens at byte 0)"),
            (golden(), &[bin.as_slice(), &[9, 9]].concat(), "train.bin", "8 bytes"),
            (golden()[..70].to_vec(), &bin, "train.idx", "2 sequences"),
            (Vec::new(), &bin, "train.idx", "MMIDIDX"),
            (flip(0, b'X'), &bin, "train.idx", "MMIDIDX"),
            (flip(17, 6), &bin, "train.idx", "type 6"),
            (flip(37, 0xff), &bin, "train.bin", "sequence 0"),
            (flip(66, 9), &bin, "train.idx", "document 1"),
        ];
        for (idx, bin, file, what) in cases {
            fs::write(with_suffix(&prefix, ".idx"), idx).unwrap();
            fs::write(with_suffix(&prefix, ".bin"), bin).unwrap();
            let error = MegatronReader::open(&prefix).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(what), "{file} {what}: {error}");
        }
    }

    #[test]
    fn a_token_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = MegatronWriter::create(folder.path().join("x"), TokenType::U16).unwrap();
        assert!(writer.push(&[1, -5]).unwrap_err().to_string().contains("-5"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn documents_come_back_as_written(
            documents in proptest::collection::vec(proptest::collection::vec(any::<i32>(), 0..20), 0..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let prefix = folder.path().join("valid");
            let mut writer = MegatronWriter::create(&prefix, TokenType::I32).unwrap();
            for document in &documents {
                writer.push(document).unwrap();
            }
            writer.finish().unwrap();
            let reader = MegatronReader::open(&prefix).unwrap();
            prop_assert_eq!(reader.documents(), documents.len());
            for (i, document) in documents.iter().enumerate() {
                prop_assert_eq!(reader.len(i), document.len());
                let half = document.len() / 2;
                let mut out = Vec::new();
                reader.read(i, half..document.len(), &mut out);
                prop_assert_eq!(&out, &document[half..]);
            }
        }
    }
}
