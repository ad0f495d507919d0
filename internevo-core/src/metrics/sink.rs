//! What a metric sink is, and how one is registered. Not here: the sinks themselves.

use super::StepRecord;
use crate::plugin::{Plugin, PluginError};

/// Receives every step's record on the logging rank.
pub trait MetricSink: Send {
    /// One step. Records come in order of their step.
    ///
    /// # Errors
    /// When the sink cannot store the record (full disk, closed pipe).
    fn record(&mut self, record: &StepRecord) -> std::io::Result<()>;

    /// Makes everything recorded so far durable. Called before a checkpoint commits and at the end.
    ///
    /// # Errors
    /// When storing fails.
    fn flush(&mut self) -> std::io::Result<()>;
}

/// What a sink is told when it is built.
#[derive(Clone, Debug)]
pub struct SinkContext<'a> {
    /// The run directory.
    pub run_dir: &'a std::path::Path,
    /// Last step that is already part of the run: records after it are from an interrupted attempt and must go.
    pub resumed_step: u64,
}

/// A sink that can be named in `monitor.sinks`.
pub trait SinkPlugin: Plugin {
    /// Opens the sink.
    ///
    /// # Errors
    /// [`PluginError::Build`] when its files cannot be opened.
    fn build(config: Self::Config, cx: &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError>;
}

crate::plugin_kind! {
    /// A registered sink.
    pub struct SinkEntry("sink"): SinkPlugin::build(&SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError>;
    /// All sinks linked into this binary, by name.
    pub fn sinks;
}

/// Registers a [`SinkPlugin`].
#[macro_export]
macro_rules! register_sink {
    ($plugin:ty) => {
        $crate::submit_plugin!($crate::metrics::SinkEntry, $plugin);
    };
}
