//! Optimizers on flat shards: the [`Optimizer`] trait, how a crate offers one ([`OptimizerPlugin`],
//! [`register_optimizer!`](crate::register_optimizer)), and [`AdamW`].
//!
//! Not here: reduction, clipping and sharding (`zero/`); an optimizer sees only its own slice.

mod adamw;

use std::ops::Range;

pub use adamw::{AdamW, AdamWPlugin};
use internevo_core::{
    config::Config,
    plugin::{Descriptor, Entry, Origin, Plugin, PluginError, Registry, parse_config},
};

/// Updates a flat shard of parameters.
///
/// To be independent of the sharding, an update must treat every element by its own value, gradient and state alone.
pub trait Optimizer: Send {
    /// Replaces `shard` by its value after one update. `grad` is the clipped gradient of the same elements.
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>);

    /// The state: buffers of the shard's length under stable names (`exp_avg`). The order is stable too.
    fn state(&self) -> Vec<(&'static str, &[f32])>;

    /// The same buffers for resuming.
    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])>;
}

/// What an update is told beside the gradient.
#[derive(Clone, Copy, Debug)]
pub struct StepContext<'a> {
    /// Learning rate of this step.
    pub lr: f64,
    /// Second-moment decay of this step, from the beta2 schedule.
    pub beta2: f64,
    /// Number of this update, from 1; skipped steps do not count.
    pub update: u64,
    /// Parameters in the shard, in order. Elements outside all segments are padding and stay as they are.
    pub segments: &'a [Segment],
}

/// One parameter's part of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Global name of the parameter.
    pub name: String,
    /// Elements within the shard.
    pub range: Range<usize>,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// An optimizer that can be named in `optimizer.kind`.
pub trait OptimizerPlugin: Plugin {
    /// Makes an optimizer for a shard of `shard_len` elements, with its state at zero.
    ///
    /// # Errors
    /// [`PluginError::Build`] when the configuration makes no sense.
    fn build(config: Self::Config, shard_len: usize) -> Result<Box<dyn Optimizer>, PluginError>;
}

type Build = fn(&toml::Table, usize) -> Result<Box<dyn Optimizer>, PluginError>;

/// A registered optimizer.
pub struct OptimizerEntry {
    descriptor: Descriptor,
    build: Build,
}

impl OptimizerEntry {
    /// The entry of plugin `P`; used by [`register_optimizer!`](crate::register_optimizer).
    pub const fn of<P: OptimizerPlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), build: build_erased::<P> }
    }

    /// Builds the optimizer from its table.
    ///
    /// # Errors
    /// A table that does not fit or makes no sense.
    pub fn build(&self, table: &toml::Table, shard_len: usize) -> Result<Box<dyn Optimizer>, PluginError> {
        (self.build)(table, shard_len)
    }
}

fn build_erased<P: OptimizerPlugin>(table: &toml::Table, shard_len: usize) -> Result<Box<dyn Optimizer>, PluginError> {
    P::build(parse_config::<P>(table)?, shard_len)
}

impl Entry for OptimizerEntry {
    const KIND: &'static str = "optimizer";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

internevo_core::plugin::__inventory::collect!(OptimizerEntry);

/// Registers an [`OptimizerPlugin`].
#[macro_export]
macro_rules! register_optimizer {
    ($plugin:ty) => {
        $crate::__core::plugin::__inventory::submit! {
            $crate::optimizer::OptimizerEntry::of::<$plugin>($crate::__core::origin!())
        }
    };
}

/// A chosen optimizer with its settings, not yet bound to a shard.
#[derive(Clone)]
pub struct OptimizerChoice {
    entry: &'static OptimizerEntry,
    table: toml::Table,
}

impl OptimizerChoice {
    /// The optimizer called `kind` with settings `table`.
    ///
    /// # Errors
    /// An unknown name, or settings that do not fit.
    pub fn new(registry: &Registry<OptimizerEntry>, kind: &str, table: toml::Table) -> Result<Self, PluginError> {
        let choice = Self { entry: registry.get(kind)?, table };
        choice.build(0)?;
        Ok(choice)
    }

    /// The optimizer of a job: `optimizer.kind`, with section `adam` for `adamw` and defaults for any other.
    ///
    /// # Errors
    /// As [`OptimizerChoice::new`].
    pub fn from_config(registry: &Registry<OptimizerEntry>, config: &Config) -> Result<Self, PluginError> {
        let kind = &config.optimizer.kind;
        let table = if kind == AdamWPlugin::NAME {
            toml::Table::try_from(&config.adam).expect("the section came from TOML")
        } else {
            registry.get(kind)?.descriptor().default_config()
        };
        Self::new(registry, kind, table)
    }

    /// Name of the optimizer.
    pub fn name(&self) -> &'static str {
        self.entry.descriptor().name
    }

    /// Makes the optimizer of a shard.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn build(&self, shard_len: usize) -> Result<Box<dyn Optimizer>, PluginError> {
        self.entry.build(&self.table, shard_len)
    }
}
