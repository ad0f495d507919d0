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

use crate::{
    ParallelError,
    state::{Exchange, LocalParam, Piece, Slab},
};

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

    /// State that belongs to parameters as a whole (factors of a matrix) and is equal on all ranks that hold a part of them.
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
    pub fn build(&self, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        self.entry.build(&self.table, shard)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A rank that holds everything, for tests of update rules.

    use internevo_core::{config::ParallelConfig, layout::ParallelLayout};

    use super::*;
    use crate::{
        comm::local_world,
        state::{ParamSpec, StatePlan},
    };

    /// Parameters on one rank.
    pub(crate) struct Alone {
        pub(crate) shard: ShardLayout,
        exchange: Exchange,
    }

    impl Alone {
        /// Parameters of these names, shapes and decay, one after the other.
        pub(crate) fn new(params: &[(&str, &[usize], bool)]) -> Self {
            let spec = |(name, shape, decay): &(&str, &[usize], bool)| ParamSpec {
                name: (*name).into(),
                shape: shape.to_vec(),
                decay: *decay,
            };
            let layout = ParallelLayout::new(&ParallelConfig::default(), 1).expect("one rank");
            let plan = StatePlan::replicated(params.iter().map(spec).collect(), layout, 1 << 30).expect("names differ");
            let (table, pieces) = plan.pieces(0).expect("names differ");
            let segments = pieces.iter().map(|p| Segment::of(p, &table.params()[p.param])).collect();
            let exchange = Exchange::new(&plan, local_world(1).swap_remove(0)).expect("names differ");
            Self { shard: ShardLayout { len: table.total(), segments }, exchange }
        }

        pub(crate) fn context(&self, lr: f64, beta2: f64, update: u64) -> StepContext<'_> {
            StepContext { lr, beta2, update, shard: &self.shard, exchange: &self.exchange }
        }
    }
}
