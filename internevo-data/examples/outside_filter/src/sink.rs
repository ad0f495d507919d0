//! A token sink outside the workspace: how many tokens each document has, as a table.

use std::{fmt::Write as _, path::PathBuf};

use internevo_core::storage;
use internevo_data::{
    plugin::Plugin,
    register_token_sink,
    store::{StoreError, TokenSink, TokenSinkContext, TokenSinkPlugin},
};

/// Writes `<split>.tsv`.
struct TokenCounts {
    path: PathBuf,
    separator: String,
    table: String,
}

#[derive(schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Between id and count.
    separator: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { separator: "\t".into() }
    }
}

impl Plugin for TokenCounts {
    const NAME: &'static str = "token_counts";
    const ABOUT: &'static str = "A table of ids and numbers of tokens.";
    type Config = Config;
}

impl TokenSinkPlugin for TokenCounts {
    fn build(config: Config, cx: &TokenSinkContext<'_>) -> Result<Box<dyn TokenSink>, StoreError> {
        let path = cx.prefix.with_extension("tsv");
        Ok(Box::new(Self { path, separator: config.separator, table: String::new() }))
    }
}

register_token_sink!(TokenCounts);

impl TokenSink for TokenCounts {
    fn push(&mut self, id: &str, tokens: &[i32]) -> Result<(), StoreError> {
        let _ = writeln!(self.table, "{id}{}{}", self.separator, tokens.len());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        Ok(storage::write_atomic(&self.path, self.table)?)
    }
}
