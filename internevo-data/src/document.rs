//! A document: one JSON object a line, `{"id", "text", …}`.
//!
//! Not here: compressed files and places of broken lines (`format/lines.rs`), HTML and source files (`format`).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use internevo_core::storage;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Map, Value};

use crate::{
    DataError,
    corpus::kind_of,
    format::{RawRecord, open_records},
};

/// A text with its name and whatever else its producer knows about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Stable name, unique in its corpus; passes through all stages unchanged.
    pub id: String,
    /// The text.
    pub text: String,
    /// All other fields, in their order. Known ones: `type` (`markdown`, `text`, `code`, …), `lang` (`en`, `zh`, …,
    /// `code:rust`), `source`, `url`.
    pub meta: Map<String, Value>,
}

impl Document {
    /// A document without further fields.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: text.into(), meta: Map::new() }
    }

    /// The string field `key` of `meta`.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.meta.get(key).and_then(Value::as_str)
    }

    /// Language of the text as the `format` stage or the producer names it: `en`, `zh`, …, `code:rust`.
    pub fn lang(&self) -> Option<&str> {
        self.field("lang").filter(|lang| !lang.is_empty())
    }

    /// Is this source code (`type` is `code`, or `lang` begins with `code:`)?
    pub fn is_code(&self) -> bool {
        self.field("type") == Some("code") || self.lang().is_some_and(|lang| lang.starts_with("code:"))
    }

    /// Reads one line of JSONL. A missing `id` becomes `default_id()`; a number is taken as its digits.
    ///
    /// # Errors
    /// [`LineFault`] when the line is not UTF-8, no JSON object, or has no string `text`.
    pub fn from_line(line: &[u8], default_id: impl FnOnce() -> String) -> Result<Self, LineFault> {
        let text = std::str::from_utf8(line).map_err(|e| LineFault {
            reason: LineFault::INVALID_UTF8,
            detail: format!("byte {} of the line is not UTF-8", e.valid_up_to() + 1),
        })?;
        let mut document: Self = serde_json::from_str(text).map_err(|e| LineFault {
            reason: LineFault::BROKEN_JSON,
            detail: e.to_string().replacen(" at line 1 column ", " at column ", 1),
        })?;
        if document.id.is_empty() {
            document.id = default_id();
        }
        Ok(document)
    }

    /// Appends the document as one line of JSONL, line end included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("strings and JSON values serialise into memory");
        out.push(b'\n');
    }
}

/// Why a line is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// One of the constants of this type.
    pub reason: &'static str,
    /// What exactly.
    pub detail: String,
}

impl LineFault {
    /// Not JSON, not an object, or no string `text`.
    pub const BROKEN_JSON: &'static str = "broken_json";
    /// Bytes that are not UTF-8.
    pub const INVALID_UTF8: &'static str = "invalid_utf8";
    /// A record of a file (WARC) that is not what it has to be.
    pub const MALFORMED_RECORD: &'static str = "malformed_record";
    /// A compressed or columnar file that ends early or is damaged.
    pub const TRUNCATED_ARCHIVE: &'static str = "truncated_archive";
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

/// The documents of a JSONL file (plain, `.gz`, `.zst`), streamed. Blank lines are skipped; a missing `id` becomes
/// `<file stem>:<line>`.
///
/// This is the strict reader: a broken line ends it. Stages use [`open_records`] and go on.
///
/// # Errors
/// When the file cannot be opened; the iterator yields [`DataError::Invalid`] for a broken line.
pub fn read_jsonl(path: &Path) -> Result<impl Iterator<Item = Result<Document, DataError>> + use<>, DataError> {
    let mut reader = open_records(path)?;
    let path = path.to_owned();
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let mut line = Vec::new();
        let result = match reader.next_record(&mut line) {
            Err(error) => Err(error.into()),
            Ok(RawRecord::End) => return None,
            Ok(RawRecord::Damaged(fault)) => Err(DataError::invalid(&path, reader.record(), fault.to_string())),
            Ok(RawRecord::Record) => Document::from_line(&line, || default_id(&path, reader.record()))
                .map_err(|fault| DataError::invalid(&path, reader.record(), fault.to_string())),
        };
        failed = result.is_err();
        Some(result)
    }))
}

/// Hands over the documents of `files`: of JSONL files each line, of others the whole file with its `type`. For training, which can do
/// without a broken line: such lines, and files that are not UTF-8, are passed over; the stages reject them.
///
/// # Errors
/// A file that cannot be read, and what `take` answers.
pub fn for_documents(
    files: &[PathBuf],
    mut take: impl FnMut(Document) -> Result<(), DataError>,
) -> Result<(), DataError> {
    for path in files {
        if let Some(kind) = kind_of(&path.to_string_lossy()) {
            if let Ok(text) = String::from_utf8(storage::read(path)?) {
                let mut document = Document::new(path.to_string_lossy(), text);
                document.meta.insert("type".into(), kind.name.into());
                take(document)?;
            }
            continue;
        }
        let mut reader = open_records(path)?;
        let mut line = Vec::new();
        loop {
            match reader.next_record(&mut line)? {
                RawRecord::End => break,
                RawRecord::Damaged(_) => {}
                RawRecord::Record => {
                    if let Ok(document) = Document::from_line(&line, || default_id(path, reader.record())) {
                        take(document)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// `<file stem>:<line>`, the id of a line that has none. The stem is what comes before the first dot.
pub fn default_id(path: &Path, line: u64) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split_once('.').map_or(&*name, |(stem, _)| stem);
    format!("{stem}:{line}")
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.meta.len()))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("text", &self.text)?;
        for (key, value) in &self.meta {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a string `text`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        let mut text = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => document.id = id_text(map.next_value()?),
                "text" if text.is_some() => drop(map.next_value::<IgnoredAny>()?),
                "text" => match map.next_value::<Value>()? {
                    Value::String(found) => text = Some(found),
                    other => {
                        return Err(A::Error::custom(format!("`text` is {}, not a string", kind_of_value(&other))));
                    }
                },
                _ => {
                    let value = map.next_value()?;
                    document.meta.insert(key, value);
                }
            }
        }
        document.text = text.ok_or_else(|| A::Error::missing_field("text"))?;
        Ok(document)
    }
}

fn id_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Document, LineFault> {
        Document::from_line(line.as_bytes(), || "file:7".into())
    }

    #[test]
    fn unknown_fields_keep_their_order_and_values() {
        let line = r#"{"id":"a","text":"x\ny","z":1,"a":[1.5,null],"meta":{"k":"v"}}"#;
        let mut out = Vec::new();
        parse(line).expect("a document").write_line(&mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), format!("{line}\n"));
    }

    #[test]
    fn a_missing_id_is_derived_and_a_number_is_kept_as_digits() {
        assert_eq!(parse(r#"{"text":""}"#).expect("a document").id, "file:7");
        assert_eq!(parse(r#"{"id":12,"text":""}"#).expect("a document").id, "12");
        assert_eq!(default_id(Path::new("/x/part-3.jsonl.gz"), 9), "part-3:9");
    }

    #[test]
    fn what_is_no_document_says_why() {
        for (line, says) in [
            (r#"{"id":"a""#, "EOF"),
            (r#"{"id":"a"}"#, "missing field `text`"),
            (r#"{"text":3}"#, "`text` is a number"),
            ("[1]", "an object with a string `text`"),
        ] {
            let fault = parse(line).expect_err(line);
            assert_eq!(fault.reason, LineFault::BROKEN_JSON);
            assert!(fault.detail.contains(says), "{line}: {fault}");
        }
        let fault = Document::from_line(b"{\"text\":\"\xff\"}", String::new).expect_err("not UTF-8");
        assert_eq!((fault.reason, fault.detail.contains("byte 10")), (LineFault::INVALID_UTF8, true));
    }
}
