//! Learning-rate schedules: the [`LrSchedule`] trait, how a crate offers one ([`LrSchedulePlugin`],
//! [`register_lr_schedule!`](crate::register_lr_schedule)), and the schedule of Adam's second beta ([`Beta2Schedule`]).
//!
//! The built-in shapes are in `shapes.rs`.

mod shapes;

use internevo_core::{
    config::Config,
    plugin::{Descriptor, Entry, Origin, Plugin, PluginError, Registry, parse_config},
};
pub use shapes::{ConstantPlugin, CosinePlugin, LinearPlugin, Shape, WarmupSchedule, WsdPlugin};

/// The learning rate as a pure function of the step, so that resuming needs no state.
pub trait LrSchedule: Send + Sync {
    /// Learning rate of step `step`, counted from 0 (the first step of a run is 0).
    fn lr(&self, step: u64) -> f64;
}

/// What a schedule is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct LrContext {
    /// Peak learning rate (`adam.lr`).
    pub peak: f64,
    /// Steps of the run (`data.total_steps`), for schedules whose own `total_steps` is 0.
    pub total_steps: u64,
}

/// A schedule that can be named in `lr_scheduler.kind`.
pub trait LrSchedulePlugin: Plugin {
    /// Makes the schedule.
    ///
    /// # Errors
    /// [`PluginError::Build`] when the settings contradict each other.
    fn build(config: Self::Config, cx: &LrContext) -> Result<Box<dyn LrSchedule>, PluginError>;
}

type Build = fn(&toml::Table, &LrContext) -> Result<Box<dyn LrSchedule>, PluginError>;

/// A registered schedule.
pub struct LrScheduleEntry {
    descriptor: Descriptor,
    build: Build,
}

impl LrScheduleEntry {
    /// The entry of plugin `P`; used by [`register_lr_schedule!`](crate::register_lr_schedule).
    pub const fn of<P: LrSchedulePlugin>(origin: Origin) -> Self {
        Self { descriptor: Descriptor::of::<P>(Self::KIND, origin), build: build_erased::<P> }
    }

    /// Builds the schedule from its table.
    ///
    /// # Errors
    /// A table that does not fit or makes no sense.
    pub fn build(&self, table: &toml::Table, cx: &LrContext) -> Result<Box<dyn LrSchedule>, PluginError> {
        (self.build)(table, cx)
    }
}

fn build_erased<P: LrSchedulePlugin>(table: &toml::Table, cx: &LrContext) -> Result<Box<dyn LrSchedule>, PluginError> {
    P::build(parse_config::<P>(table)?, cx)
}

impl Entry for LrScheduleEntry {
    const KIND: &'static str = "lr_schedule";
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

internevo_core::plugin::__inventory::collect!(LrScheduleEntry);

/// Registers a [`LrSchedulePlugin`].
#[macro_export]
macro_rules! register_lr_schedule {
    ($plugin:ty) => {
        $crate::__core::plugin::__inventory::submit! {
            $crate::lr::LrScheduleEntry::of::<$plugin>($crate::__core::origin!())
        }
    };
}

/// The schedule of a job: `lr_scheduler.kind` with section `lr_scheduler`, peak `adam.lr`.
///
/// # Errors
/// An unknown name, or settings that contradict each other.
pub fn from_config(registry: &Registry<LrScheduleEntry>, config: &Config) -> Result<Box<dyn LrSchedule>, PluginError> {
    let table = toml::Table::try_from(&config.lr_scheduler).expect("the section came from TOML");
    let cx = LrContext { peak: config.adam.lr, total_steps: config.data.total_steps as u64 };
    registry.get(&config.lr_scheduler.kind)?.build(&table, &cx)
}

/// InternEvo's Beta2Scheduler: `beta2 = max(init, 1 - t^-c)` with `t` the step from 1; constant for `c <= 0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beta2Schedule {
    /// Lower bound.
    pub init: f64,
    /// Exponent.
    pub c: f64,
}

impl Beta2Schedule {
    /// The schedule of a job; `init_beta2 = 0` stands for `adam.adam_beta2`.
    pub fn from_config(config: &Config) -> Self {
        let section = &config.beta2_scheduler;
        let init = if section.init_beta2 > 0.0 { section.init_beta2 } else { config.adam.adam_beta2 };
        Self { init, c: section.c }
    }

    /// beta2 of step `step`, counted from 0.
    pub fn beta2(&self, step: u64) -> f64 {
        if self.c <= 0.0 {
            return self.init;
        }
        self.init.max(1.0 - ((step + 1) as f64).powf(-self.c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta2_rises_from_its_lower_bound() {
        let schedule = Beta2Schedule { init: 0.95, c: 0.8 };
        assert_eq!(schedule.beta2(0), 0.95);
        assert!((schedule.beta2(9_999) - (1.0 - 1e4_f64.powf(-0.8))).abs() < 1e-15);
        assert_eq!(Beta2Schedule { init: 0.9, c: 0.0 }.beta2(1_000_000), 0.9);
    }

    #[test]
    fn the_registry_holds_the_built_in_schedules() {
        let schedules = Registry::<LrScheduleEntry>::collect().expect("no duplicates");
        assert_eq!(schedules.names().collect::<Vec<_>>(), ["constant", "cosine", "linear", "wsd"]);
        let mut config = Config::default();
        from_config(&schedules, &config).expect("the default builds");
        config.lr_scheduler.kind = "cosin".into();
        let message = from_config(&schedules, &config).err().expect("unknown").to_string();
        assert!(message.contains("did you mean `cosine`"), "{message}");
    }
}
