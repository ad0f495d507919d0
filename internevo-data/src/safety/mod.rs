//! The `safe` stage's filters: words, addresses, personal data and trained classifiers.
//!
//! All count shares, not occurrences, and look at the context: a medical text names what a spam page repeats, and a filter that drops
//! whatever mentions a word removes the honest text with it (the InternLM2 report, section 3.1.1, tunes its safety filters against
//! such false positives).
//!
//! | file | filter |
//! |---|---|
//! | `blocked_words.rs` | `blocked_words`: hard and soft phrases per thousand words, honest contexts left out |
//! | `blocked_urls.rs` | `blocked_urls`: the document's own address, and the share of its links to blocked places |
//! | `personal_data/` | `personal_data`: masks or drops addresses and numbers of people |
//! | `trained.rs` | `toxicity`, `pornography`: what a classifier of any kind says |
//! | `policy.rs` | `safety_policy`: all of these in one decision |
//! | `domains/` | lists of millions of domains, in a mapped file |
//! | `lists.rs` | built-in lists and list files |
//! | `matcher.rs`, `address.rs`, `urls.rs` | word lists in text, addresses, what is blocked about them |

mod address;
mod blocked_urls;
mod blocked_words;
pub mod domains;
mod lists;
mod matcher;
pub mod personal_data;
mod policy;
mod trained;
mod urls;

use std::path::Path;

use internevo_core::plugin::PluginError;

pub use self::{
    address::{Address, addresses},
    blocked_urls::{BlockedUrls, BlockedUrlsConfig},
    blocked_words::{BlockedWords, BlockedWordsConfig, WordHits},
    lists::read_list,
    matcher::{WordMatch, WordMatcher, folded},
    personal_data::{PersonalData, PersonalDataConfig},
    policy::{SafetyPolicy, SafetyPolicyConfig, Signal, SourcePolicy},
    trained::{Pornography, Toxicity},
    urls::{Blocked, BlockedPart, UrlRules},
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
        let list = read_list(Path::new(file)).map_err(|e| refused(plugin, e))?;
        all.extend(list);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// A filter that cannot be built.
fn refused(plugin: &'static str, reason: impl std::fmt::Display) -> PluginError {
    PluginError::Build { plugin, reason: reason.to_string() }
}

/// The limit of a rule that has nothing to say where nothing is found, whatever the settings.
fn limit(setting: f64) -> f64 {
    setting.max(f64::MIN_POSITIVE)
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
