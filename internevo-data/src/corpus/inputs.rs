//! Own files instead of the bundled corpus: JSONL (plain, gzip, zstd) and single documents (HTML, Markdown, text,
//! source).

use std::path::{Path, PathBuf};

use super::{
    MAX_FILE_BYTES,
    kinds::{Kind, kind_of},
    manifest::Skipped,
    packages::list_files,
};
use crate::DataError;

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// The input as configured, and the path below it: the id of its document.
    pub label: String,
    /// Where it is.
    pub path: PathBuf,
    /// `None` for JSONL.
    pub kind: Option<Kind>,
    /// Size in bytes.
    pub bytes: u64,
    /// Seconds since 1970 of the last change; only to notice changed inputs, never for the selection.
    pub modified: u64,
}

/// The files of `inputs` (relative to `project`), in the order of the hash of their label.
///
/// A file that is named itself is taken whatever its extension; in a folder, files of unknown extensions are left out.
///
/// # Errors
/// When an input does not exist or cannot be listed.
pub fn find(inputs: &[String], project: &Path, skipped: &mut Skipped) -> Result<Vec<InputFile>, DataError> {
    let mut found = Vec::new();
    for input in inputs {
        let root = project.join(input);
        let label = input.trim_end_matches('/');
        let metadata = std::fs::metadata(&root)
            .map_err(internevo_core::storage::StorageError::at("read the input of `corpus.inputs`", &root))?;
        if metadata.is_file() {
            let kind = kind_of(label).unwrap_or(Kind { class: 1, name: "text" });
            found.push(input_file(label.to_owned(), root, Some(kind), &metadata));
            continue;
        }
        for (path, size) in list_files(&root, skipped)? {
            let file = root.join(&path);
            let kind = kind_of(&path);
            if kind.is_none() && !is_jsonl(&path) {
                skipped.other_type += 1;
            } else if size > MAX_FILE_BYTES && !is_jsonl(&path) {
                skipped.too_large += 1;
            } else {
                let metadata =
                    std::fs::metadata(&file).map_err(internevo_core::storage::StorageError::at("read", &file))?;
                found.push(input_file(format!("{label}/{path}"), file, kind, &metadata));
            }
        }
    }
    found.sort_by_cached_key(|file| *blake3::hash(file.label.as_bytes()).as_bytes());
    found.dedup_by(|a, b| a.label == b.label);
    Ok(found)
}

fn input_file(label: String, path: PathBuf, kind: Option<Kind>, metadata: &std::fs::Metadata) -> InputFile {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_secs());
    let kind = if is_jsonl(&label) { None } else { kind };
    InputFile { label, path, kind, bytes: metadata.len(), modified }
}

fn is_jsonl(path: &str) -> bool {
    let path = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).unwrap_or(path);
    path.ends_with(".jsonl") || path.ends_with(".ndjson")
}
