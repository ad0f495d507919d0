//! `manifest.json`: what a collected corpus consists of, and the settings it answers to. Written last: a folder with a
//! manifest is complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Changes whenever the same settings would give other documents.
pub const FORMAT: u32 = 1;

/// A collected corpus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CorpusManifest {
    /// Version of the rules of collection.
    pub format: u32,
    /// blake3 of everything the selection depends on; equal hash = the corpus is reused.
    pub settings_hash: String,
    /// blake3 of the lock file; empty without one.
    pub lock_hash: String,
    /// Cap on the raw text, bytes; 0 = none.
    pub max_bytes: u64,
    /// Cap on one package, bytes; 0 = none.
    pub max_bytes_per_package: u64,
    /// Documents in all shards.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// What was used, by source: `packages`, `rust_docs`, `inputs`.
    pub sources: BTreeMap<String, SourceTotal>,
    /// Bytes by SPDX licence expression; `""` where none is stated.
    pub licenses: BTreeMap<String, u64>,
    /// What was looked for and not found: packages as `name-version`, the lock file, the toolchain's documentation.
    pub missing: Vec<String>,
    /// Packages that were present but not reached before the cap.
    pub over_cap_packages: u64,
    /// Files that were left out, by reason.
    pub skipped: Skipped,
    /// The first broken lines of JSONL inputs, as `file:line: reason`.
    pub broken_lines: Vec<String>,
    /// The JSONL files, in order.
    pub shards: Vec<Shard>,
    /// Every file that was read.
    pub files: Vec<ManifestFile>,
}

/// Documents and bytes of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTotal {
    /// Packages (books, input files) that gave at least one document.
    pub packages: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// Files that were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Not a text type of the extension table.
    pub other_type: u64,
    /// Larger than 1 MB.
    pub too_large: u64,
    /// Name begins with a dot.
    pub hidden: u64,
    /// Has a NUL byte.
    pub binary: u64,
    /// Not UTF-8.
    pub invalid_utf8: u64,
    /// Only white space.
    pub empty: u64,
    /// An archive entry whose path leaves its package.
    pub unsafe_path: u64,
    /// A line of a JSONL input that is no document.
    pub broken_line: u64,
    /// Does not fit under the cap of its package, or of the whole.
    pub over_cap: u64,
}

/// One JSONL file of raw documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Path relative to the manifest.
    pub file: String,
    /// Documents in it.
    pub documents: u64,
    /// Size of the file.
    pub bytes: u64,
    /// blake3 of the file.
    pub blake3: String,
}

/// One file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Id of its document; for JSONL inputs the path of the file.
    pub id: String,
    /// Package, book or input it belongs to.
    pub package: String,
    /// The document's `type`; `jsonl` for JSONL inputs.
    #[serde(rename = "type")]
    pub kind: String,
    /// SPDX licence expression, empty where none is stated.
    pub license: String,
    /// Bytes of text.
    pub bytes: u64,
    /// blake3 of the text; empty for JSONL inputs, whose documents the shards' hashes cover.
    pub blake3: String,
}
