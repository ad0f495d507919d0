//! InternEvo's tokenized data: `X.bin` holds one JSON line `{"tokens": [...]}` per document, `X.bin.meta` is a numpy table of
//! (byte offset of the line, tokens in it). Origin: InternEvo `tools/tokenizer.py`, `internlm/data/tokenized/dataset.py`.
//!
//! A negative token is input but not a target of the loss. InternEvo keeps offsets as int32, so the writer starts a new
//! shard before 2 GiB; the reader also takes int64.

use std::{
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use internevo_core::storage::{AtomicFile, StorageError, write_atomic};

use super::{StoreError, jsonl::write_list, npy, with_suffix};
use crate::mapped::MappedFile;

/// A shard never reaches this size: offsets are int32.
const SHARD_LIMIT: u64 = i32::MAX as u64;

/// Writes `<prefix>-00000.bin` and `.bin.meta`, `<prefix>-00001.bin`, …
#[derive(Debug)]
pub struct InternEvoWriter {
    prefix: PathBuf,
    limit: u64,
    shards: usize,
    shard: Option<Shard>,
    line: String,
}

/// The shard that is being written.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    bin: AtomicFile,
    bytes: u64,
    lines: Vec<(i32, i32)>,
}

impl InternEvoWriter {
    /// Prepares to write; files are made when documents come.
    pub fn create(prefix: impl Into<PathBuf>) -> Self {
        Self::with_shard_limit(prefix, SHARD_LIMIT)
    }

    /// As [`Self::create`] with smaller shards, for instance for object stores. A shard holds at least one document.
    pub fn with_shard_limit(prefix: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { prefix: prefix.into(), limit: bytes.min(SHARD_LIMIT), shards: 0, shard: None, line: String::new() }
    }

    /// Appends one document; a negative token takes no part in the loss as a target.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when writing fails.
    pub fn push(&mut self, tokens: &[i32]) -> Result<(), StoreError> {
        self.line.clear();
        self.line.push_str("{\"tokens\": ");
        write_list(&mut self.line, tokens);
        self.line.push_str("}\n");
        let length = self.line.len() as u64;
        if self.shard.as_ref().is_some_and(|shard| shard.bytes + length > self.limit) {
            self.finish_shard()?;
        }
        let shard = match &mut self.shard {
            Some(shard) => shard,
            empty => {
                let path = with_suffix(&self.prefix, &format!("-{:05}.bin", self.shards));
                let bin = AtomicFile::create(&path)?;
                self.shards += 1;
                empty.insert(Shard { path, bin, bytes: 0, lines: Vec::new() })
            }
        };
        shard.bin.write_all(self.line.as_bytes()).map_err(StorageError::at("write", &shard.path))?;
        let (Ok(offset), Ok(count)) = (i32::try_from(shard.bytes), i32::try_from(tokens.len())) else {
            let expected = format!("documents of less than {SHARD_LIMIT} bytes");
            let found = format!("one of {length} bytes");
            return Err(StoreError::Corrupt { path: shard.path.clone(), expected, found });
        };
        shard.lines.push((offset, count));
        shard.bytes += length;
        Ok(())
    }

    /// Makes the last shard appear.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when writing fails.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.finish_shard()
    }

    /// The tokens appear before their table, so a table never lacks its tokens.
    fn finish_shard(&mut self) -> Result<(), StoreError> {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        shard.bin.commit()?;
        Ok(write_atomic(with_suffix(&shard.path, ".meta"), npy::write_pairs_i32(&shard.lines))?)
    }
}

/// Reads one `X.bin` with its `X.bin.meta`.
#[derive(Debug)]
pub struct InternEvoReader {
    bin: MappedFile,
    /// Byte offset and tokens of each document.
    lines: Vec<(i64, i64)>,
    meta: Vec<u8>,
}

impl InternEvoReader {
    /// Opens `bin` and the table beside it and checks that every line lies inside the file.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when a file cannot be read; [`StoreError::Corrupt`], naming the file and what was expected.
    pub fn open(bin: impl AsRef<Path>) -> Result<Self, StoreError> {
        let meta_path = with_suffix(bin.as_ref(), ".meta");
        let meta = internevo_core::storage::read(&meta_path)?;
        let lines = npy::read_pairs(&meta).map_err(|(expected, found)| StoreError::Corrupt {
            path: meta_path.clone(),
            expected,
            found,
        })?;
        let bin = MappedFile::open(bin.as_ref())?;
        for (document, (offset, count)) in lines.iter().enumerate() {
            // Two tokens need at least three bytes, `1,2`; a line cannot hold more tokens than half of what is left.
            let left = usize::try_from(*offset).ok().and_then(|offset| bin.len().checked_sub(offset)).unwrap_or(0);
            if *count < 0 || left == 0 || *count as usize > left / 2 {
                let expected = format!("document {document} ({count} tokens at byte {offset}) inside the file");
                let found = format!("{} bytes", bin.len());
                return Err(StoreError::Corrupt { path: bin.path().into(), expected, found });
            }
        }
        Ok(Self { bin, lines, meta })
    }

    /// Documents in the file.
    pub fn documents(&self) -> usize {
        self.lines.len()
    }

    /// Tokens of document `document`.
    pub fn len(&self, document: usize) -> usize {
        self.lines[document].1 as usize
    }

    /// True without documents.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Appends the tokens `range` of document `document` to `out`. The line is scanned from its start.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the line is not `{"tokens": [...]}` with as many integers as the table says.
    ///
    /// # Panics
    /// If the document or the range is out of bounds.
    pub fn read(&self, document: usize, range: Range<usize>, out: &mut Vec<i32>) -> Result<(), StoreError> {
        assert!(range.end <= self.len(document), "{range:?} is outside document {document}");
        if range.is_empty() {
            return Ok(());
        }
        let (offset, count) = self.lines[document];
        let line = &self.bin[offset as usize..];
        let fault = |found: String| StoreError::Corrupt {
            path: self.bin.path().into(),
            expected: format!("{{\"tokens\": [...]}} with {count} integers at byte {offset}"),
            found,
        };
        let list = token_list(line).ok_or_else(|| fault(preview(line)))?;
        // The last token asked for may be the last of the list, which has no comma behind it.
        let mut items = list.split(|b| *b == b',');
        let wanted = items.by_ref().skip(range.start).take(range.len());
        let before = out.len();
        for item in wanted {
            let text = std::str::from_utf8(item).unwrap_or("").trim();
            out.push(text.parse().map_err(|_| fault(format!("`{}`", preview(item))))?);
        }
        if out.len() - before != range.len() {
            return Err(fault(format!("{} integers", range.start + out.len() - before)));
        }
        if range.end == self.len(document) && items.next().is_some() {
            return Err(fault("more integers".into()));
        }
        Ok(())
    }

    /// The table's bytes and those of the tokens: what a fingerprint is made of.
    pub(super) fn raw(&self) -> (&[u8], &[u8]) {
        (&self.meta, &self.bin)
    }
}

/// What stands between the brackets of `{"tokens": [...]`.
fn token_list(line: &[u8]) -> Option<&[u8]> {
    let open = line.iter().take(64).position(|b| *b == b'[')?;
    let head: Vec<u8> = line[..open].iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    if head != b"{\"tokens\":" {
        return None;
    }
    let list = &line[open + 1..];
    let end = list.iter().position(|b| matches!(b, b']' | b'\n'))?;
    (list[end] == b']').then(|| &list[..end])
}

fn preview(bytes: &[u8]) -> String {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn write(prefix: &Path, documents: &[Vec<i32>], limit: u64) {
        let mut writer = InternEvoWriter::with_shard_limit(prefix, limit);
        for document in documents {
            writer.push(document).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn the_lines_are_those_of_internevo() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("train");
        write(&prefix, &[vec![1, -2, 3], vec![4]], SHARD_LIMIT);
        let bin = folder.path().join("train-00000.bin");
        assert_eq!(fs::read_to_string(&bin).unwrap(), "{\"tokens\": [1, -2, 3]}\n{\"tokens\": [4]}\n");
        let meta = fs::read(with_suffix(&bin, ".meta")).unwrap();
        assert_eq!(npy::read_pairs(&meta).unwrap(), [(0, 3), (23, 1)]);
    }

    #[test]
    fn a_line_that_disagrees_with_its_table_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("x.bin");
        let read = |lines: &str, table: &[(i32, i32)]| {
            fs::write(&bin, lines).unwrap();
            fs::write(with_suffix(&bin, ".meta"), npy::write_pairs_i32(table)).unwrap();
            let reader = InternEvoReader::open(&bin)?;
            let mut out = Vec::new();
            reader.read(0, 0..reader.len(0), &mut out).map(|()| out)
        };
        assert_eq!(read("{ \"tokens\" :[7,8 , 9], \"type\": 1}\n", &[(0, 3)]).unwrap(), [7, 8, 9]);
        for (lines, count, what) in [
            ("{\"tokens\": [7, 8]}\n", 3, "2 integers"),
            ("{\"tokens\": [7, 8]}\n", 1, "more"),
            ("{\"tokens\": [7, x]}\n", 2, "x"),
            ("{\"text\": [7, 8]}\n", 2, "text"),
            ("{\"tokens\": [7, 8", 2, "[7, 8"),
            ("{\"tokens\": [7, 8]}\n", 900, "900 tokens"),
        ] {
            let error = read(lines, &[(0, count)]).unwrap_err().to_string();
            assert!(error.contains("x.bin") && error.contains(what), "{what}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn documents_come_back_from_shards_of_any_size(
            documents in proptest::collection::vec(proptest::collection::vec(any::<i32>(), 1..20), 1..12),
            limit in 1u64..400,
        ) {
            let folder = tempfile::tempdir().unwrap();
            write(&folder.path().join("valid"), &documents, limit);
            let mut bins: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
            bins.retain(|path| path.extension().is_some_and(|e| e == "bin"));
            bins.sort();
            let mut back = Vec::new();
            for bin in bins {
                let reader = InternEvoReader::open(&bin).unwrap();
                prop_assert!(reader.documents() == 1 || fs::metadata(&bin).unwrap().len() <= limit);
                for i in 0..reader.documents() {
                    let (middle, mut out) = (reader.len(i) / 2, Vec::new());
                    reader.read(i, 0..middle, &mut out).unwrap();
                    reader.read(i, middle..reader.len(i), &mut out).unwrap();
                    back.push(out);
                }
            }
            prop_assert_eq!(back, documents);
        }
    }
}
