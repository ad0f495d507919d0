//! One chunk's results on their way out: lines for `kept/` and `rejected/`, and their counts.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use super::report::{EditTotal, Example, FilterTotal, StageReport};
use crate::{
    document::{Document, LineFault},
    filter::Change,
    format::encoding::escaped,
};

/// The "filter" in the rejection of a line that is no document.
const READER: &str = "reader";

/// Characters of text in a report's example.
const EXCERPT_CHARS: usize = 200;

/// A document that a stage rejects: one line of `rejected/`.
#[derive(Clone, Debug, Serialize)]
pub struct Rejection<'a> {
    /// Its id; empty for a line that is no document.
    pub id: &'a str,
    /// Which rule, in snake_case.
    pub reason: &'a str,
    /// What the rule measured.
    pub value: f64,
    /// Name of the filter, or of the stage where no filter decided.
    pub filter: &'a str,
    /// `file:line` of the input.
    pub place: &'a str,
    /// More for a human reader, for example the id of the copy that stays. Left out when empty.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
    /// The whole text (or line).
    pub text: &'a str,
    /// The document's other fields.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub meta: &'a Map<String, Value>,
}

impl<'a> Rejection<'a> {
    /// `document` at `place` is rejected by `filter` for `reason`.
    pub fn of(document: &'a Document, place: &'a str, filter: &'a str, reason: &'a str, value: f64) -> Self {
        let Document { id, text, meta } = document;
        Self { id, reason, value, filter, place, detail: "", text, meta }
    }
}

/// What a stage decided about some consecutive documents of one input file, ready to be appended to the output.
#[derive(Clone, Debug, Default)]
pub struct ChunkOutput {
    pub(super) kept: Vec<u8>,
    pub(super) rejected: Vec<u8>,
    pub(super) counts: StageReport,
}

impl ChunkOutput {
    /// Keeps a document of `text_bytes` bytes of text, to be written as `line` (JSON without line end).
    pub fn keep(&mut self, line: &[u8], text_bytes: usize) {
        self.kept.extend_from_slice(line);
        self.kept.push(b'\n');
        self.count(text_bytes);
        self.counts.documents_kept += 1;
        self.counts.bytes_kept += text_bytes as u64;
        self.counts.bytes_written += text_bytes as u64;
    }

    /// Keeps a document whose text of `text_bytes` bytes was edited: `document` is what is written.
    pub fn keep_edited<'a>(
        &mut self,
        document: &Document,
        text_bytes: usize,
        changes: impl IntoIterator<Item = (&'a Cow<'static, str>, &'a Change)>,
    ) {
        document.write_line(&mut self.kept);
        self.count(text_bytes);
        self.counts.documents_kept += 1;
        self.counts.documents_edited += 1;
        self.counts.bytes_kept += text_bytes as u64;
        self.counts.bytes_written += document.text.len() as u64;
        for (reason, change) in changes {
            self.counts.edits.entry(reason.to_string()).or_default().add(&EditTotal::of(change));
        }
    }

    /// Rejects a line that is no document, with its bytes.
    pub fn reject_broken(&mut self, line: &[u8], place: &str, fault: &LineFault) {
        let (text, meta) = (escaped(line), Map::new());
        let LineFault { reason, detail } = fault;
        self.reject(&Rejection { id: "", reason, value: 0.0, filter: READER, place, detail, text: &text, meta: &meta });
    }

    /// Rejects a document.
    pub fn reject(&mut self, rejection: &Rejection<'_>) {
        serde_json::to_writer(&mut self.rejected, rejection).expect("strings and JSON values serialise into memory");
        self.rejected.push(b'\n');
        self.count(rejection.text.len());
        *self.counts.reasons.entry(rejection.reason.to_owned()).or_default() += 1;
        let rule = self.counts.rules.entry(rejection.reason.to_owned()).or_default();
        rule.count(rejection.text.len() as u64, rejection.value);
        self.counts.add_example(rejection.reason, || Example {
            id: rejection.id.to_owned(),
            place: rejection.place.to_owned(),
            value: rejection.value,
            excerpt: rejection.text.chars().take(EXCERPT_CHARS).collect(),
        });
    }

    /// Adds a document to a filter's totals.
    pub fn charge(&mut self, filter: &str, seconds: f64, dropped: bool, edited: bool) {
        let totals = &mut self.counts.per_filter;
        let index = totals.iter().position(|total| total.filter == filter).unwrap_or_else(|| {
            totals.push(FilterTotal { filter: filter.to_owned(), ..FilterTotal::default() });
            totals.len() - 1
        });
        totals[index].documents += 1;
        totals[index].dropped += u64::from(dropped);
        totals[index].edited += u64::from(edited);
        totals[index].seconds += seconds;
    }

    fn count(&mut self, text_bytes: usize) {
        self.counts.documents_in += 1;
        self.counts.bytes_in += text_bytes as u64;
    }
}
