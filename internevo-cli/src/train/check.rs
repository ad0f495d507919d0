//! What is checked before anything is written: the layout, the plugins that the configuration names, the job's name.

use internevo_core::{
    config::{ConfigError, ConfigErrors, FILTER_STAGES, Resolved},
    layout::ParallelLayout,
    metrics::SinkEntry,
    plugin::{PluginError, Registry},
};
use internevo_data::FilterEntry;
use internevo_parallel::{StrategyChoice, lr, optimizer::OptimizerChoice};

use crate::{corpus, user_bail};

/// The layout of a job that can be trained.
///
/// # Errors
/// Every unknown plugin with its place in the configuration; a layout that contradicts itself.
pub fn check(resolved: &Resolved) -> anyhow::Result<ParallelLayout> {
    let config = &resolved.config;
    let layout = ParallelLayout::new(&config.parallel, config.launch.ranks)?;
    let name = &config.job_name;
    if name.is_empty() || name == corpus::FOLDER || name.starts_with('.') || name.contains(['/', '\\']) {
        user_bail!("job_name: `{name}` cannot name a folder of runs");
    }
    let mistakes = unknown_plugins(resolved)?;
    if mistakes.is_empty() { Ok(layout) } else { Err(ConfigErrors(mistakes).into()) }
}

/// Names in the configuration that no linked plugin has, and settings that do not fit.
fn unknown_plugins(resolved: &Resolved) -> Result<Vec<ConfigError>, PluginError> {
    let config = &resolved.config;
    let (sinks, filters) = (Registry::<SinkEntry>::collect()?, Registry::<FilterEntry>::collect()?);
    let mut mistakes = Vec::new();
    let mut note =
        |section: &str, error: Option<PluginError>| mistakes.extend(error.map(|e| resolved.locate(section, &e)));
    note("parallel.tensor.mode", StrategyChoice::from_config(&Registry::collect()?, config).err());
    let optimizer = OptimizerChoice::from_config(&Registry::collect()?, config).err();
    let place = optimizer.as_ref().map_or_else(String::new, |error| OptimizerChoice::place(config, error));
    note(&place, optimizer);
    note("lr_scheduler.kind", lr::from_config(&Registry::collect()?, config).err());
    for name in &config.monitor.sinks {
        note("monitor.sinks", sinks.get(name).err());
    }
    if config.data.train_folder.is_empty() {
        for stage in FILTER_STAGES {
            for name in config.pipeline.all_filters(stage) {
                note(&format!("pipeline.{stage}"), filters.get(name).err());
            }
        }
    }
    Ok(mistakes)
}
