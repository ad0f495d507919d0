//! Labelled documents, and which of them train, calibrate and measure.

use std::path::PathBuf;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::ClassifierSettings;
use crate::{
    DataError, Document,
    document::default_id,
    format::{RawRecord, open_records},
};

/// A text and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// Its class.
    pub label: String,
}

impl Labelled {
    /// `text` is a `label`.
    pub fn new(text: impl Into<String>, label: impl Into<String>) -> Self {
        Self { text: text.into(), label: label.into() }
    }
}

/// What a document is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Train,
    Calibrate,
    Test,
}

/// The documents of JSONL files whose field `field` holds the label: a string, a number or a boolean.
///
/// # Errors
/// A file that cannot be read; [`DataError::Invalid`] for a line that is no document or has no label.
pub fn read_labelled(files: &[PathBuf], field: &str) -> Result<Vec<Labelled>, DataError> {
    let mut found = Vec::new();
    for path in files {
        let mut reader = open_records(path)?;
        let mut line = Vec::new();
        loop {
            let invalid = |line: u64, reason: String| DataError::invalid(path, line, reason);
            match reader.next_record(&mut line)? {
                RawRecord::End => break,
                RawRecord::Damaged(fault) => return Err(invalid(reader.record(), fault.to_string())),
                RawRecord::Record => {
                    let at = reader.record();
                    let document = Document::from_line(&line, || default_id(path, at))
                        .map_err(|fault| invalid(at, fault.to_string()))?;
                    let label = match document.meta.get(field) {
                        Some(Value::String(label)) if !label.is_empty() => label.clone(),
                        Some(label @ (Value::Number(_) | Value::Bool(_))) => label.to_string(),
                        _ => return Err(invalid(at, format!("no label: `{field}` is missing or no name"))),
                    };
                    found.push(Labelled { text: document.text, label });
                }
            }
        }
    }
    Ok(found)
}

/// Brings documents into an order of their own: the same for the same documents, and without any pattern.
pub fn order(documents: &mut [Labelled]) {
    documents.sort_unstable();
    documents.sort_by_cached_key(|document| xxh3_64(document.text.as_bytes()));
}

/// The labels, sorted.
pub fn labels(documents: &[Labelled]) -> Result<Vec<String>, DataError> {
    let mut labels: Vec<&str> = documents.iter().map(|document| document.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    if labels.len() < 2 {
        let reason = format!("the examples have the labels {labels:?}; a classifier needs two at least");
        return Err(DataError::Setting { key: "labels".into(), reason });
    }
    Ok(labels.into_iter().map(str::to_owned).collect())
}

/// The side of each document, by its text alone.
pub fn sides(documents: &[Labelled], settings: &ClassifierSettings) -> Vec<Side> {
    let side = |document: &Labelled| {
        let place = xxh3_64(document.text.as_bytes()).wrapping_mul(0x9E37_79B9_7F4A_7C15) as f64 / u64::MAX as f64;
        match place {
            place if place < settings.held_out => Side::Calibrate,
            place if place < 2.0 * settings.held_out => Side::Test,
            _ => Side::Train,
        }
    };
    documents.iter().map(side).collect()
}
