//! One training step's numbers, and the sinks that receive them.

use serde::{Deserialize, Serialize};

use crate::plugin::{Descriptor, Entry, Plugin, PluginError};

/// One line of `metrics.jsonl`; the names are InternEvo's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Mean negative log-likelihood per labelled token of the whole step, nats.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens per rank and second (InternEvo's tgs).
    pub tgs: f64,
    /// Model TFLOP/s per rank: no recompute, causal attention.
    pub tflops: f64,
    /// `tflops` over the configured peak; absent without one.
    pub mfu: Option<f64>,
    /// Tokens of this step, all ranks.
    pub tokens: u64,
    /// Tokens since the first step, all ranks.
    pub num_consumed_tokens: u64,
    /// Share of labelled tokens whose most likely next token was right.
    pub acc: f64,
    /// exp(loss).
    pub perplexity: f64,
    /// Seconds in forward and backward.
    pub fwd_bwd_time: f64,
    /// Seconds waiting for data.
    pub data_time: f64,
    /// Resident memory of the process, GiB.
    pub mem_gib: f64,
    /// Steps skipped so far because a gradient was not finite.
    pub inf_nan_skip_batches: u64,
    /// Seconds of the whole step.
    pub time: f64,
    /// Validation loss, on steps that evaluated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub valid_loss: Option<f64>,
}

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
    build: fn(&toml::Table, &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError>,
}

impl SinkEntry {
    /// The entry of plugin `P`; used by [`register_sink!`](crate::register_sink).
    pub const fn of<P: SinkPlugin>(origin: crate::plugin::Origin) -> Self {
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
    P::build(crate::plugin::parse_config::<P>(table)?, cx)
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
