//! `internevo config show --origin`, `internevo config schema`, `internevo config import-py 7B_internlm2.py`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use internevo_core::{config, storage};
use serde_json::json;

use crate::{config_args::ConfigArgs, context::Context, error::OrUser as _};

/// Shows, describes or imports a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the resolved configuration
    Show(Show),
    /// Print the JSON schema of the configuration, for editors
    Schema(Schema),
    /// Translate an InternEvo Python configuration to TOML
    ImportPy(ImportPy),
}

/// Prints the resolved configuration.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo config show --preset internlm2-7b\n  internevo config show --config my.toml --set data.micro_num=4 --origin\n\nPresets: tiny (default), smoke, small, internlm2-1_8b, internlm2-7b, internlm2-20b"
)]
pub struct Show {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Say of every value where it comes from
    #[arg(long)]
    pub origin: bool,
}

/// Prints the JSON schema.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo config schema > internevo.schema.json")]
pub struct Schema {}

/// Translates an InternEvo Python configuration.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo config import-py configs/7B_internlm2.py > 7b.toml")]
pub struct ImportPy {
    /// The Python file; it is read, never executed
    pub file: PathBuf,
}

impl ConfigCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the configuration is wrong or the file cannot be read.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Show(c) => c.run(cx),
            Self::Schema(_) => {
                let schema = config::schema();
                let text = serde_json::to_string_pretty(&schema)?;
                cx.emit(&schema, || text)
            }
            Self::ImportPy(c) => c.run(cx),
        }
    }
}

impl Show {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let resolved = self.config.load_or_default_preset()?;
        if !self.origin {
            let text = toml::to_string_pretty(&resolved.config)?;
            return cx.emit(&resolved.config, || text);
        }
        let mut origins = serde_json::Map::new();
        let table = toml::Table::try_from(&resolved.config)?;
        walk(&toml::Value::Table(table), String::new(), &mut |key, value| {
            let origin = resolved.origin_of(key).map(ToString::to_string);
            origins.insert(key.to_owned(), json!({ "value": value, "origin": origin }));
        });
        cx.emit(&origins, || resolved.to_commented_toml())
    }
}

fn walk(value: &toml::Value, path: String, visit: &mut impl FnMut(&str, &toml::Value)) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(inner, path, visit);
            }
        }
        leaf => visit(&path, leaf),
    }
}

impl ImportPy {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let file = self.file.display();
        let source = storage::read_to_string(&self.file).or_user()?;
        let imported = config::import_py(&source).with_context(|| format!("cannot read {file}")).or_user()?;
        let parsed: toml::Table = toml::from_str(&imported.toml)?;
        cx.emit(&json!({ "config": parsed, "skipped": imported.skipped }), || {
            let comments: String = imported.skipped.iter().map(|s| format!("# left out: {file}: {s}\n")).collect();
            comments + &imported.toml
        })
    }
}
