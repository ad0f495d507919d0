//! A checked configuration with the origin of every value, and its dumps as TOML.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{error::ConfigError, layer::dotted, origin::Origin, schema::Config};
use crate::plugin::PluginError;

/// The merged configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The typed values.
    pub config: Config,
    origins: BTreeMap<String, Origin>,
}

impl Resolved {
    pub(super) fn new(config: Config, origins: BTreeMap<String, Origin>) -> Self {
        Self { config, origins }
    }

    /// Where the value of a dotted key was written; `None` for sections and unknown keys.
    pub fn origin_of(&self, key: &str) -> Option<&Origin> {
        self.origins.get(key)
    }

    /// Where a mistake about `key` is to be corrected: the key's origin, else that of the first key below it, else that of
    /// the nearest key above it.
    pub fn location(&self, key: &str) -> Option<String> {
        let below = format!("{key}.");
        let origin = self.origin_of(key).or_else(|| {
            let inside = self.origins.iter().filter(|(k, _)| k.starts_with(&below)).map(|(_, origin)| origin);
            inside.min_by_key(|origin| (origin.position.is_none(), origin.position))
        });
        match origin {
            Some(origin) => Some(origin.to_string()),
            None => self.location(key.rsplit_once('.')?.0),
        }
    }

    /// A plugin's complaint about its table `section` (`pipeline.filter.gopher_quality`) with the place to correct.
    pub fn locate(&self, section: &str, error: &PluginError) -> ConfigError {
        let key = match error {
            PluginError::Config { key, .. } if key != "." => format!("{section}.{key}"),
            _ => section.to_owned(),
        };
        let message = match error {
            PluginError::Config { reason, .. } | PluginError::Build { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        ConfigError { location: self.location(&key).unwrap_or_else(|| "default".to_owned()), key, message }
    }

    /// The configuration as TOML; loading it gives the same configuration.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.config).expect("every value of a configuration has a form in TOML")
    }

    /// Likewise, with a comment behind every value that names its origin.
    pub fn to_commented_toml(&self) -> String {
        let text = self.to_toml();
        let document = DeTable::parse(&text).expect("what was just written is TOML");
        let mut comments = BTreeMap::new();
        self.comments(&mut Vec::new(), document.get_ref(), &mut comments);
        let mut out = String::with_capacity(text.len() * 2);
        let mut at = 0;
        for (end, comment) in comments {
            let line_end = text[end..].find('\n').map_or(text.len(), |n| end + n);
            out.push_str(&text[at..line_end]);
            out.push_str("  # ");
            out.push_str(&comment);
            at = line_end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// Origin of each value, by the offset where the value ends.
    fn comments(&self, path: &mut Vec<String>, table: &DeTable<'_>, out: &mut BTreeMap<usize, String>) {
        for (name, value) in table.iter() {
            path.push(name.get_ref().to_string());
            match value.get_ref() {
                DeValue::Table(inner) => self.comments(path, inner, out),
                _ => {
                    let origin = self.origin_of(&dotted(path)).map(ToString::to_string);
                    // A line break in a `--set` argument would end the comment.
                    let origin = origin.unwrap_or_else(|| "set by the program".to_owned()).replace('\n', " ");
                    out.insert(value.span().end, origin);
                }
            }
            path.pop();
        }
    }
}
