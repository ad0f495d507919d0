//! Optimizers on flat shards: the [`Optimizer`] trait, how a crate offers one ([`OptimizerPlugin`],
//! [`register_optimizer!`](crate::register_optimizer)), and the built-in ones:
//!
//! | name | state of a matrix of `r x c` | needs of other ranks | settings |
//! |---|---|---|---|
//! | `adamw` ([`AdamW`]) | `2 r c` | nothing | `adam` |
//! | `lion` ([`Lion`]) | `r c` | nothing | `optimizer.settings.lion` |
//! | `adafactor` ([`Adafactor`]) | `r + c` | sums over rows, columns and parameters | `optimizer.settings.adafactor` |
//! | `muon` ([`Muon`]) | `r c` | whole matrices | `optimizer.settings.muon` |
//!
//! Each gives the same bits in every layout whose gradients are the same bits.
//!
//! Not here: reduction, clipping and sharding (`zero/`); an optimizer sees only its own slice.

mod adafactor;
mod adamw;
mod exact;
mod lion;
mod muon;
mod settings;
#[cfg(test)]
mod testing;

use std::ops::Range;

pub use adafactor::{Adafactor, AdafactorConfig, AdafactorPlugin};
pub use adamw::{AdamW, AdamWPlugin};
use internevo_core::{
    config::Config,
    plugin::{Descriptor, Entry, Origin, Plugin, PluginError, Registry, parse_config},
};
pub use lion::{Lion, LionConfig, LionPlugin};
pub use muon::{Muon, MuonAdamConfig, MuonConfig, MuonPlugin};

use crate::{
    ParallelError,
    state::{Exchange, LocalParam, ParamSpec, Piece, Slab},
};

/// Elements one thread updates at a time: four streams of this length fit a second-level cache.
const CHUNK: usize = 16 * 1024;

/// Updates a rank's shard of the parameters.
///
/// An update must not depend on the sharding: either it treats every element by its own value, gradient and state alone, or it
/// brings whole parameters together with [`StepContext::exchange`].
pub trait Optimizer: Send {
    /// Replaces `shard` by its value after one update. `grad` is the clipped gradient of the same elements. Collective over the
    /// ranks that together hold one copy of the state.
    ///
    /// # Errors
    /// A failed world.
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError>;

    /// The state that has an element for each of the shard's: buffers of its length under stable names (`exp_avg`). The order
    /// is stable too.
    fn state(&self) -> Vec<(&'static str, &[f32])>;

    /// The same buffers for resuming.
    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])>;

    /// State that belongs to parameters as a whole (factors of a matrix), for every parameter of [`ShardLayout::params`] that has
    /// any, and equal on all ranks of a copy of the state: any of them may write it into a checkpoint.
    fn whole_state(&self) -> Vec<WholeState<&[f32]>> {
        Vec::new()
    }

    /// The same for resuming.
    fn whole_state_mut(&mut self) -> Vec<WholeState<&mut [f32]>> {
        Vec::new()
    }
}

/// A vector of state of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeState<T> {
    /// Stable name of the kind of state: `exp_avg_sq_row`.
    pub name: &'static str,
    /// Index of the parameter, in the order of the model.
    pub param: usize,
    /// Its values.
    pub values: T,
}

/// What an update is told beside the gradient.
#[derive(Clone, Copy)]
pub struct StepContext<'a> {
    /// Learning rate of this step.
    pub lr: f64,
    /// Second-moment decay of this step, from the beta2 schedule.
    pub beta2: f64,
    /// Number of this update, from 1; skipped steps do not count.
    pub update: u64,
    /// What the shard holds.
    pub shard: &'a ShardLayout,
    /// Brings whole parameters together.
    pub exchange: &'a Exchange,
}

/// What a rank's shard holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLayout {
    /// Elements, padding included.
    pub len: usize,
    /// The parts of parameters in it, in order. Elements outside all segments are padding and stay as they are.
    pub segments: Vec<Segment>,
    /// Every parameter of the model, in its order, also those that have no part here.
    pub params: Vec<ParamSpec>,
}

/// One parameter's part of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the parameter, in the order of the model.
    pub param: usize,
    /// Global name of the parameter.
    pub name: String,
    /// Elements within the shard.
    pub range: Range<usize>,
    /// Which elements of the whole parameter they are: elements [`Segment::flat`] of this flattened slab.
    pub slab: Slab,
    /// Elements of the flattened slab.
    pub flat: Range<usize>,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Whether these elements count, or are a copy of what another rank of the same copy of the state holds.
    pub primary: bool,
}

impl Segment {
    /// The segment of a piece of `param`.
    pub fn of(piece: &Piece, param: &LocalParam) -> Self {
        Self {
            param: piece.param,
            name: param.spec.name.clone(),
            range: piece.at.clone(),
            slab: param.slab.clone(),
            flat: piece.flat.clone(),
            decay: param.spec.decay,
            primary: param.primary,
        }
    }
}

/// An optimizer that can be named in `optimizer.kind`.
pub trait OptimizerPlugin: Plugin {
    /// Makes an optimizer for a shard, with its state at zero.
    ///
    /// # Errors
    /// [`PluginError::Build`] when the configuration makes no sense.
    fn build(config: Self::Config, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError>;
}

type Build = fn(&toml::Table, &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError>;

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
    pub fn build(&self, table: &toml::Table, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        (self.build)(table, shard)
    }
}

fn build_erased<P: OptimizerPlugin>(
    table: &toml::Table,
    shard: &ShardLayout,
) -> Result<Box<dyn Optimizer>, PluginError> {
    P::build(parse_config::<P>(table)?, shard)
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
        choice.build(&ShardLayout::default())?;
        Ok(choice)
    }

    /// The optimizer of a job: `optimizer.kind` with its settings: `adam` for `adamw`, `optimizer.settings.<name>` for any other.
    /// Tables of other optimizers are not read.
    ///
    /// # Errors
    /// As [`OptimizerChoice::new`], and a table `optimizer.settings.adamw`, which nobody would read.
    pub fn from_config(registry: &Registry<OptimizerEntry>, config: &Config) -> Result<Self, PluginError> {
        let (kind, settings) = (&config.optimizer.kind, &config.optimizer.settings);
        let table = settings.get(kind).and_then(toml::Value::as_table);
        if kind != AdamWPlugin::NAME {
            return Self::new(registry, kind, table.cloned().unwrap_or_default());
        }
        if table.is_some() {
            let reason = "takes its settings from section `adam`, not from `optimizer.settings.adamw`".to_owned();
            return Err(PluginError::Build { plugin: AdamWPlugin::NAME, reason });
        }
        let table = toml::Table::try_from(&config.adam).expect("the section came from TOML");
        Self::new(registry, kind, table)
    }

    /// The key of the configuration that an error of [`OptimizerChoice::from_config`] is about, or the table that it is in: see
    /// [`Resolved::locate`](internevo_core::config::Resolved::locate).
    pub fn place(config: &Config, error: &PluginError) -> String {
        match (error, config.optimizer.kind.as_str()) {
            (PluginError::Config { .. }, AdamWPlugin::NAME) => "adam".to_owned(),
            (PluginError::Config { .. } | PluginError::Build { .. }, kind) => format!("optimizer.settings.{kind}"),
            _ => "optimizer.kind".to_owned(),
        }
    }

    /// Name of the optimizer.
    pub fn name(&self) -> &'static str {
        self.entry.descriptor().name
    }

    /// Makes the optimizer of a shard.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub fn build(&self, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        self.entry.build(&self.table, shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: &str, settings: &str) -> Config {
        let mut config = Config::default();
        config.optimizer.kind = kind.into();
        config.optimizer.settings = toml::from_str(settings).expect("a table");
        config
    }

    fn refusal(config: &Config) -> String {
        let registry = Registry::collect().expect("no duplicates");
        OptimizerChoice::from_config(&registry, config).err().expect("refused").to_string()
    }

    #[test]
    fn every_built_in_optimizer_is_registered_and_builds_from_its_defaults() {
        let registry = Registry::<OptimizerEntry>::collect().expect("no duplicates");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["adafactor", "adamw", "lion", "muon"]);
        for name in registry.names() {
            let choice = OptimizerChoice::from_config(&registry, &config(name, "")).expect("defaults build");
            assert_eq!(choice.name(), name);
            let defaults = registry.get(name).expect("registered").descriptor().default_config();
            OptimizerChoice::new(&registry, name, defaults).expect("the defaults that are shown can be written down");
        }
    }

    #[test]
    fn a_key_or_value_that_does_not_fit_is_an_error_that_names_it() {
        let message = refusal(&config("lion", "lion.beta = 0.9"));
        assert!(message.contains("`beta`") && message.contains("`beta1`"), "{message}");
        let message = refusal(&config("muon", "muon.adam.adam_beta1 = 'x'"));
        assert!(message.contains("`adam.adam_beta1`") && message.contains("f64"), "{message}");
        let message = refusal(&config("adafactor", "adafactor.eps1 = 0"));
        assert!(message.contains("`eps1`: 0 must"), "{message}");
        let message = refusal(&config("adamw", "adamw.lr = 1.0"));
        assert!(message.contains("section `adam`"), "{message}");
        let message = refusal(&config("muno", ""));
        assert!(message.contains("did you mean `muon`?"), "{message}");
    }

    #[test]
    fn the_table_of_another_optimizer_is_not_read() {
        let registry = Registry::collect().expect("no duplicates");
        let config = config("lion", "lion.beta1 = 0.95\nmuon.momentum = 7");
        OptimizerChoice::from_config(&registry, &config).expect("lion's table is sound");
    }
}
