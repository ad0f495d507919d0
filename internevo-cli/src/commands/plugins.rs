//! `internevo plugins` lists what this binary can be configured with; also the start-up check for duplicate names.

use clap::Args;
use internevo_core::plugin::{Descriptor, Entry as _, PluginError, Registry};
use serde::Serialize;

use crate::{context::Context, terminal};

/// Lists registered plugins.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo plugins\n  internevo plugins --json | jq '.[] | select(.kind == \"filter\").name'"
)]
pub struct Plugins {}

/// One plugin, as `internevo plugins --json` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PluginInfo {
    /// `filter`, `lr_schedule`, `optimizer` or `sink`.
    pub kind: &'static str,
    /// Its name in a configuration.
    pub name: &'static str,
    /// Package that registers it.
    #[serde(rename = "crate")]
    pub crate_name: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Source file and line.
    pub place: String,
    /// Its settings with their defaults.
    pub default: toml::Table,
    /// JSON schema of its settings.
    pub schema: serde_json::Value,
    /// One sentence for the text listing.
    #[serde(skip)]
    pub about: &'static str,
}

impl From<&Descriptor> for PluginInfo {
    fn from(d: &Descriptor) -> Self {
        Self {
            kind: d.kind,
            name: d.name,
            crate_name: d.origin.crate_name,
            version: d.origin.version,
            place: format!("{}:{}", d.origin.file, d.origin.line),
            default: d.default_config(),
            schema: d.schema(),
            about: d.about,
        }
    }
}

/// Every plugin linked into this binary, sorted by kind and name.
///
/// # Errors
/// When two plugins of a kind share a name; names both places.
pub fn list() -> Result<Vec<PluginInfo>, PluginError> {
    let mut all = Vec::new();
    all.extend(Registry::<internevo_data::FilterEntry>::collect()?.iter().map(|e| PluginInfo::from(e.descriptor())));
    all.extend(
        Registry::<internevo_parallel::lr::LrScheduleEntry>::collect()?
            .iter()
            .map(|e| PluginInfo::from(e.descriptor())),
    );
    all.extend(
        Registry::<internevo_parallel::optimizer::OptimizerEntry>::collect()?
            .iter()
            .map(|e| PluginInfo::from(e.descriptor())),
    );
    all.extend(
        Registry::<internevo_core::metrics::SinkEntry>::collect()?.iter().map(|e| PluginInfo::from(e.descriptor())),
    );
    all.sort_by_key(|p| (p.kind, p.name));
    Ok(all)
}

impl Plugins {
    /// Runs the command.
    ///
    /// # Errors
    /// When two plugins share a name.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let plugins = list()?;
        cx.emit(&plugins, || {
            let head = ["kind", "name", "crate", "about"].map(str::to_owned).to_vec();
            let rows = plugins.iter().map(|p| {
                vec![
                    p.kind.to_owned(),
                    p.name.to_owned(),
                    format!("{} {}", p.crate_name, p.version),
                    p.about.to_owned(),
                ]
            });
            terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
        })
    }
}
