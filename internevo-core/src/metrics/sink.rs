//! What a metric sink is, and how one is registered. Not here: the sinks themselves.

use super::StepRecord;
use crate::plugin::{self, Descriptor, Entry, Plugin, PluginError};

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

/// A registered sink.
pub struct SinkEntry {
    descriptor: Descriptor,
    build: BuildSink,
}

type BuildSink = fn(&toml::Table, &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError>;

impl SinkEntry {
    /// The entry of plugin `P`; used by [`register_sink!`](crate::register_sink).
    pub const fn of<P: SinkPlugin>(origin: plugin::Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), build: build_erased::<P> }
    }

    /// Builds the sink from its table.
    ///
    /// # Errors
    /// A table that does not fit, or files that cannot be opened.
    pub fn build(&self, table: &toml::Table, cx: &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError> {
        (self.build)(table, cx)
    }
}

fn build_erased<P: SinkPlugin>(table: &toml::Table, cx: &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError> {
    P::build(plugin::parse_config::<P>(table)?, cx)
}

impl Entry for SinkEntry {
    const KIND: &'static str = "sink";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

inventory::collect!(SinkEntry);

/// Registers a [`SinkPlugin`].
#[macro_export]
macro_rules! register_sink {
    ($plugin:ty) => {
        $crate::plugin::__inventory::submit! { $crate::metrics::SinkEntry::of::<$plugin>($crate::origin!()) }
    };
}
