//! The flags that choose a configuration, shared by every command that needs one.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use internevo_core::config::{self, LoadRequest, Resolved};

use crate::error::OrUser as _;

/// Layers: defaults < preset < files in order < `INTERNEVO_*` < `--set`.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// A TOML file; later files win over earlier ones
    #[arg(long, short, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// A built-in configuration (`internevo config show --help` lists them)
    #[arg(long, short, value_name = "NAME")]
    pub preset: Option<String>,
    /// One value, for example `--set data.micro_num=4`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// What is trained when nobody says otherwise.
pub const DEFAULT_PRESET: &str = "tiny";

/// The settings of a plugin, from lines of TOML that the user gave one by one as `flag`.
///
/// # Errors
/// When they are no TOML.
pub fn settings(flag: &str, lines: &[String]) -> anyhow::Result<toml::Table> {
    let example = || format!("{flag} is a line of TOML such as `size = 1000` or `name = \"x\"`");
    toml::from_str(&lines.join("\n")).with_context(example).or_user()
}

impl ConfigArgs {
    /// Merges and checks the layers.
    ///
    /// # Errors
    /// Every mistake at once, each with file, line and column.
    pub fn load(&self) -> anyhow::Result<Resolved> {
        let request = LoadRequest {
            preset: self.preset.clone(),
            files: self.config.clone(),
            sets: self.sets.clone(),
            env: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        };
        Ok(config::load(&request)?)
    }

    /// Likewise, starting from the default preset when neither a file nor a preset is named.
    ///
    /// # Errors
    /// Like [`ConfigArgs::load`].
    pub fn load_or_default_preset(&self) -> anyhow::Result<Resolved> {
        let mut args = self.clone();
        if args.config.is_empty() && args.preset.is_none() {
            args.preset = Some(DEFAULT_PRESET.to_owned());
        }
        args.load()
    }
}
