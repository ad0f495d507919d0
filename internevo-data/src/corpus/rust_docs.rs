//! The HTML documentation that rustup installs: books first, in several languages.
//!
//! Pages of one tier come in the order of the hash of their path, so that a cap takes an even sample of all books and
//! translations. The 41 000 near-identical pages of `core` and `std` are left out.

use std::path::Path;

use super::{
    MAX_FILE_BYTES,
    manifest::Skipped,
    packages::{list_files, text_of},
};
use crate::DataError;

/// Licence of all of it, as the Rust project states.
pub const LICENSE: &str = "MIT OR Apache-2.0";

/// Books, by tier: prose first, then reference material with much repetition.
const TIERS: [&[&str]; 2] = [
    &["book", "reference", "cargo", "nomicon", "edition-guide", "rust-by-example"],
    &["rustc", "rustdoc", "style-guide", "embedded-book", "clippy", "error_codes", "unstable-book"],
];

/// Pages of every mdBook that repeat the others or say nothing.
const REPEATING_PAGES: [&str; 3] = ["print.html", "toc.html", "404.html"];

/// A page of the documentation that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Folder of the book.
    pub book: &'static str,
    /// Path below `share/doc/rust/html`, `/`-separated.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The pages below `html`, in the order in which they are taken.
///
/// # Errors
/// When a folder cannot be listed.
pub fn pages(html: &Path, skipped: &mut Skipped) -> Result<Vec<Page>, DataError> {
    let mut found = Vec::new();
    for books in TIERS {
        let mut tier = Vec::new();
        for &book in books {
            let folder = html.join(book);
            if !folder.is_dir() {
                continue;
            }
            for (path, bytes) in list_files(&folder, skipped)? {
                let name = path.rsplit('/').next().unwrap_or_default();
                if !name.ends_with(".html") || REPEATING_PAGES.contains(&name) {
                    skipped.other_type += 1;
                } else if bytes > MAX_FILE_BYTES {
                    skipped.too_large += 1;
                } else {
                    tier.push(Page { book, path: format!("{book}/{path}"), bytes });
                }
            }
        }
        tier.sort_by_cached_key(|page| *blake3::hash(page.path.as_bytes()).as_bytes());
        found.append(&mut tier);
    }
    Ok(found)
}

/// The HTML of a page; `None` where it only redirects to another or is not text.
///
/// # Errors
/// When the file cannot be read.
pub fn read_page(html: &Path, page: &Page, skipped: &mut Skipped) -> Result<Option<String>, DataError> {
    let text = text_of(internevo_core::storage::read(html.join(&page.path))?, skipped);
    if text.as_ref().is_some_and(|text| text.contains("http-equiv=\"refresh\"")) {
        skipped.empty += 1;
        return Ok(None);
    }
    Ok(text)
}
