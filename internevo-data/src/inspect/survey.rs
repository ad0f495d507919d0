//! What a file or folder of documents holds: [`Survey`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use super::{excerpt, for_documents, inputs_or_none};
use crate::{
    DataError, Document,
    stage::{REPORT, find_inputs},
};

/// Documents shown.
const SHOWN: usize = 3;
/// Characters of each of them.
const SHOWN_CHARS: usize = 200;
/// Values of a field that are remembered while there are few.
const MAX_VALUES: usize = 20;
/// Name of what has no language or source.
const UNKNOWN: &str = "unknown";

/// Documents and their bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Documents.
    pub documents: u64,
    /// Bytes of UTF-8 text.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, text_bytes: usize) {
        self.documents += 1;
        self.bytes += text_bytes as u64;
    }
}

/// What a field of the documents holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FieldSurvey {
    /// Its name.
    pub name: String,
    /// Documents that have it.
    pub documents: u64,
    /// How many of its values are of each JSON type.
    pub types: BTreeMap<&'static str, u64>,
    /// How often each string occurs, as long as there are few.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, u64>,
    #[serde(skip)]
    many: bool,
}

/// One of the first documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SurveySample {
    /// Its id.
    pub id: String,
    /// The beginning of its text.
    pub excerpt: String,
    /// Its other fields.
    pub meta: serde_json::Map<String, Value>,
}

/// What an input holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Survey {
    /// The file or folder.
    pub path: PathBuf,
    /// Files with documents.
    pub files: usize,
    /// Their size as stored, bytes.
    pub stored_bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Bytes of UTF-8 text.
    pub bytes: u64,
    /// Records that are no documents, by reason.
    pub broken: BTreeMap<String, u64>,
    /// By `lang`.
    pub languages: BTreeMap<String, Count>,
    /// By `source`.
    pub sources: BTreeMap<String, Count>,
    /// Documents by bytes of text: least number of bytes (0 or a power of two) and documents, ascending.
    pub lengths: Vec<(u64, u64)>,
    /// The fields besides `id` and `text`, in the order in which they appear.
    pub fields: Vec<FieldSurvey>,
    /// The first documents.
    pub samples: Vec<SurveySample>,
}

/// Reads all of `path`: a file or folder of JSONL, WARC, Parquet or single documents, or a stage's output folder (its `kept/`).
/// `progress` is told the number of documents so far.
///
/// # Errors
/// When there is nothing to read (a stage may have kept nothing), or a file cannot be read. Broken records are counted.
pub fn survey(path: &Path, progress: &dyn Fn(u64)) -> Result<Survey, DataError> {
    // A stage may have kept nothing.
    let is_stage = path.join(REPORT).is_file();
    let inputs = if is_stage { inputs_or_none(path)? } else { find_inputs(path, "".as_ref())? };
    let mut survey = Survey {
        path: path.to_owned(),
        files: inputs.len(),
        stored_bytes: inputs.iter().map(|file| file.bytes).sum(),
        ..Survey::default()
    };
    let mut lengths = BTreeMap::new();
    for_documents(
        &inputs,
        |document| document,
        |document| {
            match document {
                Ok(document) => survey.count(document, &mut lengths),
                Err(fault) => *survey.broken.entry(fault.reason.to_owned()).or_default() += 1,
            }
            progress(survey.documents);
        },
    )?;
    survey.lengths = lengths.into_iter().collect();
    Ok(survey)
}

impl Survey {
    fn count(&mut self, document: Document, lengths: &mut BTreeMap<u64, u64>) {
        let bytes = document.text.len();
        self.documents += 1;
        self.bytes += bytes as u64;
        let named = |name: Option<&str>| name.filter(|name| !name.is_empty()).unwrap_or(UNKNOWN).to_owned();
        self.languages.entry(named(document.lang())).or_default().add(bytes);
        self.sources.entry(named(document.field("source"))).or_default().add(bytes);
        *lengths.entry(if bytes == 0 { 0 } else { 1 << bytes.ilog2() }).or_default() += 1;
        for (name, value) in &document.meta {
            let at = self.fields.iter().position(|field| field.name == *name).unwrap_or_else(|| {
                self.fields.push(FieldSurvey { name: name.clone(), ..FieldSurvey::default() });
                self.fields.len() - 1
            });
            self.fields[at].count(value);
        }
        if self.samples.len() < SHOWN {
            let excerpt = excerpt(&document.text, SHOWN_CHARS);
            self.samples.push(SurveySample { id: document.id, excerpt, meta: document.meta });
        }
    }
}

impl FieldSurvey {
    fn count(&mut self, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        self.documents += 1;
        *self.types.entry(kind).or_default() += 1;
        if let (Value::String(text), false) = (value, self.many) {
            *self.values.entry(text.clone()).or_default() += 1;
            if self.values.len() > MAX_VALUES {
                self.many = true;
                self.values.clear();
            }
        }
    }
}
