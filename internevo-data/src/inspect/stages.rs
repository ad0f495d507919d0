//! The stages whose output lies in a folder, and their funnel by source.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, StorageError};
use serde::Serialize;

use super::{Count, for_documents, inputs_or_none};
use crate::{
    DataError,
    dedup::{DUPLICATES, DuplicateReport},
    stage::{REPORT, STAGES, StageReport},
};

/// Documents of one source on both sides of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceFlow {
    /// In `kept/`.
    pub kept: Count,
    /// In `rejected/`.
    pub rejected: Count,
}

/// A finished stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageView {
    /// Its output folder.
    pub folder: PathBuf,
    /// Its report.
    pub report: StageReport,
    /// Documents by `source`.
    pub sources: BTreeMap<String, SourceFlow>,
    /// What a deduplication found.
    pub duplicates: Option<DuplicateReport>,
}

/// The output folders of finished stages: `folder` itself, or those in it, in the order of the pipeline.
///
/// # Errors
/// When the folder cannot be listed.
pub fn stage_folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    if folder.join(REPORT).is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(StorageError::at("list", folder))? {
        let path = entry.map_err(StorageError::at("list", folder))?.path();
        if let Some(report) = read_report(&path)? {
            let place = STAGES.iter().position(|stage| *stage == report.stage).unwrap_or(STAGES.len());
            found.push((place, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Looks at the output folder of a stage; `None` when it is none.
///
/// # Errors
/// When a file cannot be read.
pub fn view_stage(folder: &Path) -> Result<Option<StageView>, DataError> {
    let Some(report) = read_report(folder)? else { return Ok(None) };
    let mut sources: BTreeMap<String, SourceFlow> = BTreeMap::new();
    for (part, is_kept) in [("kept", true), ("rejected", false)] {
        let source = |document: Result<crate::Document, _>| {
            let document = document.ok()?;
            // A rejection keeps the document's fields apart from its own.
            let fields =
                if is_kept { Some(&document.meta) } else { document.meta.get("meta").and_then(|m| m.as_object()) };
            let source = fields.and_then(|fields| fields.get("source")?.as_str()).unwrap_or("unknown");
            Some((source.to_owned(), document.text.len()))
        };
        for_documents(&inputs_or_none(&folder.join(part))?, source, |found| {
            let Some((source, bytes)) = found else { return };
            let flow = sources.entry(source).or_default();
            if is_kept { flow.kept.add(bytes) } else { flow.rejected.add(bytes) }
        })?;
    }
    let duplicates = read_json(&folder.join(DUPLICATES))?;
    Ok(Some(StageView { folder: folder.to_owned(), report, sources, duplicates }))
}

/// Another tool's report of the same name says nothing about a stage.
fn read_report(folder: &Path) -> Result<Option<StageReport>, DataError> {
    read_json(&folder.join(REPORT))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, DataError> {
    if !path.is_file() {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&storage::read(path)?).ok())
}
