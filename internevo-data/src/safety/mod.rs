//! The `safe` stage's filters: words, addresses and personal data that a corpus should not hold in quantity.
//!
//! All three count shares, not occurrences: a medical text names what a spam page repeats, and a filter that drops
//! whatever mentions a word removes the honest text with it (the InternLM2 report, section 3.1.1, tunes its safety
//! filters against such false positives).
//!
//! | file | filter |
//! |---|---|
//! | `blocked_words.rs` | `blocked_words`: hard and soft phrases per thousand words |
//! | `blocked_urls.rs` | `blocked_urls`: the document's own address, and the share of its links to blocked places |
//! | `personal_data.rs` | `personal_data`: lists of e-mail and IP addresses |
//! | `lists.rs` | built-in lists and list files |
//! | `matcher.rs`, `urls.rs` | word lists in text, addresses |

mod blocked_urls;
mod blocked_words;
mod lists;
mod matcher;
mod personal_data;
mod urls;

use std::path::Path;

use internevo_core::plugin::PluginError;

pub use self::{
    blocked_urls::{BlockedUrls, BlockedUrlsConfig},
    blocked_words::{BlockedWords, BlockedWordsConfig},
    lists::read_list,
    matcher::WordMatcher,
    personal_data::{PersonalData, PersonalDataConfig},
    urls::{Blocked, UrlRules, addresses, host},
};

/// The entries a filter works with: built-in ones if wanted, those of the settings, and those of a file if one is
/// named.
fn entries(
    plugin: &'static str,
    built_in: Option<&[&str]>,
    own: &[String],
    file: &str,
) -> Result<Vec<String>, PluginError> {
    let mut all: Vec<String> = built_in.unwrap_or_default().iter().map(|word| (*word).to_owned()).collect();
    all.extend(own.iter().map(|word| word.trim().to_lowercase()).filter(|word| !word.is_empty()));
    if !file.is_empty() {
        let list = read_list(Path::new(file)).map_err(|e| PluginError::Build { plugin, reason: e.to_string() })?;
        all.extend(list);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Hash of a list's entries: a finished stage is redone when a list file changes.
fn fingerprint<'a>(entries: impl IntoIterator<Item = &'a String>) -> String {
    let mut hasher = blake3::Hasher::new();
    for entry in entries {
        hasher.update(entry.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
