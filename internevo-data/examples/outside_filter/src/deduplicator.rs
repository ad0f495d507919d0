//! A deduplicator outside the workspace: documents with the same first line are the same.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use internevo_data::{
    Document,
    dedup::{DeduplicatorContext, DeduplicatorPlugin, Repetition, StreamDeduplicator},
    plugin::{Plugin, PluginError},
    register_deduplicator,
};

/// Keeps the first document of each title.
struct SameTitle {
    config: Config,
    seen: HashSet<u64>,
}

#[derive(schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Titles that differ in case alone are equal.
    ignore_case: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { ignore_case: true }
    }
}

impl Plugin for SameTitle {
    const NAME: &'static str = "same_title";
    const ABOUT: &'static str = "Drops documents whose first line was the first line of an earlier one.";
    type Config = Config;
}

impl DeduplicatorPlugin for SameTitle {
    fn build(config: Config, _: &DeduplicatorContext) -> Result<Box<dyn StreamDeduplicator>, PluginError> {
        Ok(Box::new(Self { config, seen: HashSet::new() }))
    }
}

register_deduplicator!(SameTitle);

impl StreamDeduplicator for SameTitle {
    fn features(&self, document: &Document) -> Vec<u64> {
        let title = document.text.lines().next().unwrap_or_default();
        let title = if self.config.ignore_case { title.to_lowercase() } else { title.to_owned() };
        let mut hasher = DefaultHasher::new();
        title.hash(&mut hasher);
        vec![hasher.finish()]
    }

    fn take(&mut self, features: &[u64]) -> Option<Repetition> {
        let is_new = self.seen.insert(features[0]);
        (!is_new).then(|| Repetition { reason: "same_title".into(), value: 1.0 })
    }
}
