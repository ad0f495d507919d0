//! `internevo plugins` lists what this binary can be configured with; also the start-up check for duplicate names.

use clap::Args;
use internevo_core::plugin::{PluginError, PluginInfo, Registry};

use crate::{context::Context, terminal};

/// Lists registered plugins.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo plugins\n  internevo plugins --json | jq '.[] | select(.kind == \"filter\").name'"
)]
pub struct Plugins {}

/// Every plugin linked into this binary, sorted by kind and name.
///
/// # Errors
/// When two plugins of a kind share a name; names both places.
pub fn list() -> Result<Vec<PluginInfo>, PluginError> {
    let mut all = internevo_data::plugins()?;
    all.extend(Registry::<internevo_parallel::lr::LrScheduleEntry>::collect()?.list());
    all.extend(Registry::<internevo_parallel::optimizer::OptimizerEntry>::collect()?.list());
    all.extend(Registry::<internevo_parallel::strategy::StrategyEntry>::collect()?.list());
    all.extend(internevo_core::metrics::sinks()?);
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
