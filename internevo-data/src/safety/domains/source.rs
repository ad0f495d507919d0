//! What lists of domains look like.
//!
//! | line | entry |
//! |---|---|
//! | `example.com`, `.example.com`, `*.example.com` | the domain with all below it |
//! | `0.0.0.0 a.example b.example` (hosts file) | each name; names of the machine itself are none |
//! | `\|\|example.com^` (filter rule) | the domain; rules with options are no entry |
//! | `http://example.com/path`, `example.com/path` | the path of this host, with all below it |
//! | `# …`, `! …` | none; `#` after white space also ends a line |
//!
//! A file is one category, named by the caller or by the file. A folder is a category for each folder in it that has a file
//! `domains` or `urls` (the form of the blacklists of the Université Toulouse Capitole), and for each other file in it. Files may be
//! compressed (`.gz`, `.zst`).

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use internevo_core::storage::StorageError;

use crate::safety::address::Address;

/// Names that hosts files give to the machine itself.
const OWN_NAMES: [&str; 6] =
    ["localhost", "localhost.localdomain", "local", "broadcasthost", "ip6-localhost", "0.0.0.0"];

/// A file of entries of one category.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListFile {
    /// Its category, in snake_case.
    pub category: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The lists at `path`, sorted: a file, or a folder as this file's head describes.
///
/// # Errors
/// A path that cannot be read.
pub fn list_files(path: &Path) -> Result<Vec<ListFile>, StorageError> {
    if !fs::metadata(path).map_err(StorageError::at("read", path))?.is_dir() {
        return Ok(vec![ListFile { category: category(path), path: path.to_owned() }]);
    }
    let mut found = Vec::new();
    for inner in children(path)? {
        if inner.is_dir() {
            let lists = children(&inner)?.into_iter().filter(|file| matches!(&*stem(file), "domains" | "urls"));
            found.extend(lists.map(|path| ListFile { category: category(&inner), path }));
        } else {
            found.push(ListFile { category: category(&inner), path: inner });
        }
    }
    found.sort();
    Ok(found)
}

/// Files and folders in `folder`, hidden ones and links left out: UT1 links old names of categories to new ones.
fn children(folder: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(StorageError::at("list", folder))? {
        let entry = entry.map_err(StorageError::at("list", folder))?;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link && !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The name before the first dot.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// A name for reports: letters and digits in lower case, `_` for everything else.
fn category(path: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = stem(path).chars().map(plain).collect();
    if name.is_empty() { "list".to_owned() } else { name }
}

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A comment, or nothing.
    Blank,
    /// Entries.
    Entries(Vec<Address>),
    /// Something else.
    Other,
}

/// Reads a line.
pub fn read_line(line: &str) -> Line {
    let line = line.trim_start_matches('\u{FEFF}').trim();
    let is_comment = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let end = line.match_indices('#').map(|(at, _)| at).find(|at| is_comment(*at));
    let line = line[..end.unwrap_or(line.len())].trim_end();
    if line.is_empty() || line.starts_with('!') {
        return Line::Blank;
    }
    let entry = |text: &str| Address::parse(text);
    if let Some(rule) = line.strip_prefix("||") {
        let domain = rule.strip_suffix('^').and_then(entry).filter(|address| address.path().is_empty());
        return domain.map_or(Line::Other, |domain| Line::Entries(vec![domain]));
    }
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let names: Vec<&str> = words.collect();
    if names.is_empty() {
        let plain = first.strip_prefix("*.").or(first.strip_prefix('.')).unwrap_or(first);
        return entry(plain).map_or(Line::Other, |address| Line::Entries(vec![address]));
    }
    if first.parse::<IpAddr>().is_err() {
        return Line::Other;
    }
    let own = |name: &&str| OWN_NAMES.contains(name) || name.starts_with("ip6-");
    Line::Entries(names.into_iter().filter(|name| !own(name)).filter_map(entry).collect())
}
