//! Strategies as plugins.

use std::sync::Arc;

use internevo_core::{
    config::Config,
    plugin::{Descriptor, Entry, Origin, Plugin, PluginError, Registry, parse_config},
};

use super::{Strategy, StrategyContext};

/// A strategy that can be named in `parallel.tensor.mode`.
pub trait StrategyPlugin: Plugin {
    /// Makes the strategy of one rank. Not collective: the groups exist already.
    ///
    /// # Errors
    /// [`PluginError::Build`] when the configuration makes no sense.
    fn build(config: Self::Config, cx: &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError>;
}

type Build = fn(&toml::Table, &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError>;

/// A registered strategy.
pub struct StrategyEntry {
    descriptor: Descriptor,
    build: Build,
}

impl StrategyEntry {
    /// The entry of plugin `P`; used by [`register_strategy!`](crate::register_strategy).
    pub const fn of<P: StrategyPlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), build: build_erased::<P> }
    }
}

fn build_erased<P: StrategyPlugin>(
    table: &toml::Table,
    cx: &StrategyContext<'_>,
) -> Result<Arc<dyn Strategy>, PluginError> {
    P::build(parse_config::<P>(table)?, cx)
}

impl Entry for StrategyEntry {
    const KIND: &'static str = "strategy";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

internevo_core::plugin::__inventory::collect!(StrategyEntry);

/// Registers a [`StrategyPlugin`].
#[macro_export]
macro_rules! register_strategy {
    ($plugin:ty) => {
        $crate::__core::plugin::__inventory::submit! {
            $crate::strategy::StrategyEntry::of::<$plugin>($crate::__core::origin!())
        }
    };
}

/// A chosen strategy, not yet bound to a rank.
#[derive(Clone, Copy)]
pub struct StrategyChoice {
    entry: &'static StrategyEntry,
}

impl StrategyChoice {
    /// The strategy of a job: `parallel.tensor.mode`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn from_config(registry: &Registry<StrategyEntry>, config: &Config) -> Result<Self, PluginError> {
        Ok(Self { entry: registry.get(&config.parallel.tensor.mode)? })
    }

    /// Makes the strategy of one rank; a rank that is alone in its tensor group divides nothing, whatever the strategy.
    ///
    /// # Errors
    /// A configuration that makes no sense.
    pub fn build(&self, cx: &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError> {
        if cx.groups.tensor.size() == 1 {
            return Ok(super::alone());
        }
        (self.entry.build)(&self.entry.descriptor.default_config(), cx)
    }
}
