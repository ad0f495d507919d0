//! The files that a stage reads.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use internevo_core::storage::StorageError;

use crate::{DataError, corpus::kind_of, format::RecordFormat};

/// A file of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the input, `/`-separated: the id of the document where the file is one document.
    pub name: String,
    /// Size as stored.
    pub bytes: u64,
    /// Time of its last change, nanoseconds since 1970.
    pub modified: u128,
}

impl InputFile {
    /// A file of records. A name of no known format counts as JSON lines.
    ///
    /// # Errors
    /// When there is no such file.
    pub(crate) fn of_records(path: &Path) -> Result<Self, StorageError> {
        let metadata = fs::metadata(path).map_err(StorageError::at("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = input_file(path.to_owned(), name, &metadata);
        Ok(if file.holds_records() { file } else { Self { name: format!("{}.jsonl", file.name), ..file } })
    }

    /// Does the file hold one document a line?
    pub fn is_jsonl(&self) -> bool {
        RecordFormat::of(&self.name) == Some(RecordFormat::Jsonl)
    }

    /// Does the file hold many documents (JSON lines, WARC, Parquet), or is it one?
    pub fn holds_records(&self) -> bool {
        RecordFormat::of(&self.name).is_some()
    }
}

/// The files of `input` that hold documents: the file itself, or all below the folder, sorted by path. A stage's output folder
/// stands for its `kept/`. Hidden files, files of other kinds and everything in `output` are left out.
///
/// # Errors
/// [`DataError::EmptyInput`] when there are none or all are empty; a folder that cannot be listed.
pub fn find_inputs(input: &Path, output: &Path) -> Result<Vec<InputFile>, DataError> {
    let mut found = Vec::new();
    let metadata = fs::metadata(input).map_err(StorageError::at("read the input", input))?;
    if metadata.is_file() {
        let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(input_file(input.to_owned(), name, &metadata));
    } else {
        let kept = input.join("kept");
        let root = if input.join(super::REPORT).is_file() && kept.is_dir() { kept } else { input.to_owned() };
        walk(&root, "", output, &mut found)?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if found.iter().all(|file| file.bytes == 0) {
        return Err(DataError::EmptyInput { path: input.to_owned() });
    }
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, output: &Path, found: &mut Vec<InputFile>) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(StorageError::at("list", folder))? {
        let path = entry.map_err(StorageError::at("list", folder))?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if name[prefix.len()..].starts_with('.') || path == output {
            continue;
        }
        let metadata = fs::metadata(&path).map_err(StorageError::at("read", &path))?;
        if metadata.is_dir() {
            walk(&path, &format!("{name}/"), output, found)?;
        } else if metadata.is_file() {
            let file = input_file(path, name, &metadata);
            if file.holds_records() || kind_of(&file.name).is_some() {
                found.push(file);
            }
        }
    }
    Ok(())
}

fn input_file(path: PathBuf, name: String, metadata: &fs::Metadata) -> InputFile {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    InputFile { path, name, bytes: metadata.len(), modified: modified.map_or(0, |since| since.as_nanos()) }
}

/// Names, sizes and times of the inputs: part of a request's hash.
pub fn inputs_fingerprint(inputs: &[InputFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in inputs {
        hasher.update(format!("{}\0{}\0{}\n", file.name, file.bytes, file.modified).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
