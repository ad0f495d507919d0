//! From files to documents: JSONL in three encodings, WARC, Parquet, HTML, Markdown, plain text and source files become documents with `type`,
//! `lang` and `source`; HTML becomes Markdown, source code a fenced block under its path.
//!
//! | file | holds |
//! |---|---|
//! | `records.rs` | what all readers of files with many documents have in common |
//! | `plugin.rs` | readers of other crates |
//! | `lines.rs` | lines of plain, gzip and zstd files |
//! | `warc/`, `http.rs` | the pages of web archives |
//! | `parquet.rs` | rows of Parquet files (feature `parquet`) |
//! | `encoding.rs` | bytes to text, and text that was decoded wrongly |
//! | `extractor.rs` | what finds the text of an HTML page, by name |
//! | `html.rs`, `blocks.rs` | the built-in one, `main_content` |
//! | `source.rs` | source code as Markdown |

mod blocks;
pub mod encoding;
mod extractor;
mod html;
mod http;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod plugin;
mod records;
mod source;
#[cfg(test)]
mod tests;
mod warc;

use serde_json::Value;

#[cfg(feature = "parquet")]
pub use self::parquet::ParquetReader;
pub use self::{
    extractor::{Extractor, ExtractorContext, ExtractorEntry, ExtractorPlugin, Page, extractor, extractors},
    html::{MainContent, MainContentConfig},
    lines::LineReader,
    plugin::{RecordReaderEntry, RecordReaderPlugin, record_readers},
    records::{RawRecord, RecordFormat, RecordReader, open_records},
    source::{code_body, code_markdown, fenced},
    warc::WarcReader,
};
use crate::{
    corpus::{is_source_type, kind_of},
    document::Document,
    lang::detect,
};

/// A file that is one document, not yet converted: `name` becomes its id, path and source.
pub fn raw_document(name: &str, text: String) -> Document {
    let mut document = Document::new(name, text);
    let kind = kind_of(name).map_or("text", |kind| kind.name);
    document.meta.insert("type".into(), Value::from(kind));
    document
}

/// Brings a document into the common form. `extractor` finds the text of pages; `forced_lang` is the language where the user named it; `source` says where the
/// document came from, where it does not say so itself.
///
/// * `type` `html`: the text is extracted and the type becomes `markdown`;
/// * `type` of a source language (`rust`, `python`, …): the text becomes Markdown under its path, the type `code`, `lang`
///   `code:<language>`;
/// * other text: CRLF becomes LF;
/// * a text that was clearly decoded with the wrong encoding ([`encoding::undo_mojibake`]) is repaired, and `repaired` says so.
///
/// `type`, `lang` and `source` are added where they are missing; a `lang` that cannot be told stays missing. Converting twice
/// changes nothing more.
pub fn convert(document: &mut Document, extractor: &dyn Extractor, forced_lang: Option<&str>, source: &str) {
    let kind = document.field("type").unwrap_or("text").to_owned();
    let mut declared = String::new();
    if let Some(repaired) = encoding::undo_mojibake(&document.text) {
        document.text = repaired;
        set(document, "repaired", "mojibake");
    }
    if kind == "html" {
        let page = extractor.extract(&document.text, document.field("url"));
        document.text = page.text;
        declared = page.lang;
        set(document, "type", "markdown");
        if !page.title.is_empty() {
            set_missing(document, "title", &page.title);
        }
    } else {
        if document.text.contains('\r') {
            document.text = document.text.replace("\r\n", "\n");
        }
        if is_source_type(&kind) {
            let path = document.field("path").unwrap_or(&document.id);
            document.text = code_markdown(path, &kind, &document.text);
            set(document, "type", "code");
            set(document, "lang", &format!("code:{kind}"));
        }
    }
    set_missing(document, "type", "text");
    if !document.is_code()
        && let Some(lang) = prose_lang(document, forced_lang, &declared)
    {
        set(document, "lang", &lang);
    }
    set_missing(document, "source", source);
}

/// The user's word, else the document's, else what the script shows, else what the page declares, else a reliable guess.
fn prose_lang(document: &Document, forced: Option<&str>, declared: &str) -> Option<String> {
    /// Below this whatlang's guess is as good as a coin.
    const MIN_CONFIDENCE: f64 = 0.5;
    if let Some(lang) = forced.or(document.lang()) {
        return Some(lang.to_owned());
    }
    let guess = detect(&document.text);
    if let Some(guess) = guess.as_ref().filter(|guess| guess.confidence >= 1.0) {
        return Some(guess.lang.to_owned());
    }
    if !declared.is_empty() {
        return Some(declared.to_owned());
    }
    guess.filter(|guess| guess.confidence >= MIN_CONFIDENCE).map(|guess| guess.lang.to_owned())
}

fn set(document: &mut Document, key: &str, value: &str) {
    document.meta.insert(key.to_owned(), Value::from(value));
}

fn set_missing(document: &mut Document, key: &str, value: &str) {
    if document.field(key).is_none_or(str::is_empty) {
        set(document, key, value);
    }
}
