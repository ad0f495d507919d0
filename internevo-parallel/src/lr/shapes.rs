//! The built-in schedules. All share InternEvo's beginning (`FineTuneCosineAnnealingWarmupLR`): `init_steps` at zero, then
//! `warmup_ratio * total_steps` steps of linear warm-up; they differ in what follows.
//!
//! | name | after warm-up, with x from 0 to 1 over the rest |
//! |---|---|
//! | `cosine` | `eta_min + (peak - eta_min) (1 + cos(pi x)) / 2` |
//! | `linear` | `peak + (eta_min - peak) x` |
//! | `constant` | `peak` |
//! | `wsd` | `peak`, then linear to `eta_min` over the last `decay_ratio * total_steps` steps (MiniCPM, arXiv 2404.06395) |

use std::f64::consts::PI;

use internevo_core::{
    config::LrSchedulerConfig,
    plugin::{Plugin, PluginError},
};

use super::{LrContext, LrSchedule, LrSchedulePlugin};
use crate::register_lr_schedule;

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// No change.
    Constant,
    /// Warm-up, stable, decay.
    Wsd,
}

/// One of the built-in schedules, built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupSchedule {
    shape: Shape,
    peak: f64,
    eta_min: f64,
    init_steps: u64,
    warmup_steps: u64,
    decay_steps: u64,
    total_steps: u64,
}

impl WarmupSchedule {
    /// Resolves step counts: `warmup = trunc(total * warmup_ratio)`, as InternEvo does.
    ///
    /// # Errors
    /// Which key is out of range or leaves no steps.
    pub fn new(shape: Shape, config: &LrSchedulerConfig, cx: &LrContext) -> Result<Self, String> {
        let total_steps = if config.total_steps == 0 { cx.total_steps } else { config.total_steps as u64 };
        for (key, ratio) in [("warmup_ratio", config.warmup_ratio), ("decay_ratio", config.decay_ratio)] {
            if !(0.0..=1.0).contains(&ratio) {
                return Err(format!("lr_scheduler.{key} = {ratio}: must lie in [0, 1]"));
            }
        }
        for (key, rate) in [("lr_scheduler.eta_min", config.eta_min), ("adam.lr", cx.peak)] {
            if !(rate >= 0.0 && rate.is_finite()) {
                return Err(format!("{key} = {rate}: must be finite and not below 0"));
            }
        }
        let init_steps = config.init_steps as u64;
        let warmup_steps = (total_steps as f64 * config.warmup_ratio) as u64;
        let decay_steps = (total_steps as f64 * config.decay_ratio) as u64;
        if init_steps + warmup_steps > total_steps {
            return Err(format!(
                "lr_scheduler.init_steps = {init_steps} and {warmup_steps} warm-up steps exceed the {total_steps} steps \
                 of the schedule"
            ));
        }
        Ok(Self { shape, peak: cx.peak, eta_min: config.eta_min, init_steps, warmup_steps, decay_steps, total_steps })
    }

    fn after_warmup(&self, step: u64, begin: u64) -> f64 {
        let fraction = |from: u64, to: u64| match to.saturating_sub(from) {
            0 => 1.0,
            span => (step.saturating_sub(from) as f64 / span as f64).min(1.0),
        };
        let line = |x: f64| self.peak + (self.eta_min - self.peak) * x;
        match self.shape {
            Shape::Cosine => {
                let x = fraction(begin, self.total_steps);
                self.eta_min + (self.peak - self.eta_min) * (1.0 + (PI * x).cos()) / 2.0
            }
            Shape::Linear => line(fraction(begin, self.total_steps)),
            Shape::Constant => self.peak,
            Shape::Wsd => {
                let decay_begin = self.total_steps.saturating_sub(self.decay_steps).max(begin);
                if step < decay_begin { self.peak } else { line(fraction(decay_begin, self.total_steps)) }
            }
        }
    }
}

impl LrSchedule for WarmupSchedule {
    fn lr(&self, step: u64) -> f64 {
        let begin = self.init_steps + self.warmup_steps;
        if step < self.init_steps {
            0.0
        } else if step < begin {
            // The share first: at its end it is exactly 1, and the rate the peak.
            self.peak * ((step + 1 - self.init_steps) as f64 / self.warmup_steps as f64)
        } else {
            self.after_warmup(step, begin)
        }
    }
}

macro_rules! built_in {
    ($plugin:ident, $shape:ident, $name:literal, $about:literal) => {
        #[doc = concat!("The `", $name, "` plugin.")]
        pub struct $plugin;

        impl Plugin for $plugin {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;
            type Config = LrSchedulerConfig;
        }

        impl LrSchedulePlugin for $plugin {
            fn build(config: LrSchedulerConfig, cx: &LrContext) -> Result<Box<dyn LrSchedule>, PluginError> {
                match WarmupSchedule::new(Shape::$shape, &config, cx) {
                    Ok(schedule) => Ok(Box::new(schedule)),
                    Err(reason) => Err(PluginError::Build { plugin: $name, reason }),
                }
            }
        }

        register_lr_schedule!($plugin);
    };
}

built_in!(CosinePlugin, Cosine, "cosine", "Linear warm-up, then half a cosine down to eta_min (InternEvo's schedule).");
built_in!(LinearPlugin, Linear, "linear", "Linear warm-up, then a straight line down to eta_min.");
built_in!(ConstantPlugin, Constant, "constant", "Linear warm-up, then the peak learning rate.");
built_in!(
    WsdPlugin,
    Wsd,
    "wsd",
    "Warm-up, stable, then a linear decay to eta_min over the last decay_ratio of the steps."
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CX: LrContext = LrContext { peak: 3e-4, total_steps: 100 };

    fn config(init_steps: usize, warmup_ratio: f64) -> LrSchedulerConfig {
        LrSchedulerConfig { init_steps, warmup_ratio, eta_min: 3e-5, decay_ratio: 0.2, ..Default::default() }
    }

    fn schedule(shape: Shape) -> WarmupSchedule {
        WarmupSchedule::new(shape, &config(5, 0.1), &CX).expect("well-formed")
    }

    #[track_caller]
    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-15, "{a} against {b}");
    }

    #[test]
    fn all_shapes_begin_with_zero_and_a_linear_warm_up() {
        for shape in [Shape::Cosine, Shape::Linear, Shape::Constant, Shape::Wsd] {
            let s = schedule(shape);
            assert_eq!((0..5).map(|t| s.lr(t)).collect::<Vec<_>>(), [0.0; 5]);
            for t in 5..15 {
                close(s.lr(t), 3e-4 * (t - 4) as f64 / 10.0);
            }
            close(s.lr(15), 3e-4);
        }
    }

    #[test]
    fn each_shape_follows_its_closed_formula() {
        // Hand values: the rest is 85 steps; wsd decays over the last 20.
        close(schedule(Shape::Cosine).lr(15 + 17), 3e-5 + 2.7e-4 * (1.0 + (PI / 5.0).cos()) / 2.0);
        close(schedule(Shape::Linear).lr(15 + 34), 3e-4 - 2.7e-4 * 0.4);
        close(schedule(Shape::Constant).lr(99), 3e-4);
        close(schedule(Shape::Wsd).lr(79), 3e-4);
        close(schedule(Shape::Wsd).lr(90), 3e-4 - 2.7e-4 * 0.5);
        for shape in [Shape::Cosine, Shape::Linear, Shape::Wsd] {
            close(schedule(shape).lr(100), 3e-5);
            close(schedule(shape).lr(1_000), 3e-5);
        }
    }

    proptest! {
        #[test]
        fn the_rate_never_leaves_the_range_between_zero_and_the_peak(
            total in 1u64..500, init in 0usize..20, warmup in 0.0f64..1.0, decay in 0.0f64..=1.0, step in 0u64..600,
        ) {
            let config = LrSchedulerConfig { decay_ratio: decay, ..config(init, warmup) };
            for shape in [Shape::Cosine, Shape::Linear, Shape::Constant, Shape::Wsd] {
                if let Ok(s) = WarmupSchedule::new(shape, &config, &LrContext { peak: 3e-4, total_steps: total }) {
                    let lr = s.lr(step);
                    prop_assert!((0.0..=3e-4).contains(&lr), "{:?} {}", s, lr);
                    if step >= init as u64 + (total as f64 * warmup) as u64 {
                        prop_assert!(lr >= 3e-5 * (1.0 - 1e-12), "{:?} {}", s, lr);
                    }
                }
            }
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_is_an_error_that_names_the_steps() {
        let message = WarmupSchedule::new(Shape::Cosine, &config(95, 0.1), &CX).expect_err("too long");
        assert!(message.contains("init_steps = 95") && message.contains("100 steps"), "{message}");
    }

    #[test]
    fn a_rate_that_is_no_rate_is_an_error_that_names_the_key() {
        let refusal = |config: &LrSchedulerConfig, peak: f64| {
            WarmupSchedule::new(Shape::Wsd, config, &LrContext { peak, ..CX }).expect_err("refused")
        };
        let sound = config(0, 0.1);
        assert!(refusal(&sound, f64::NAN).contains("adam.lr = NaN"));
        assert!(refusal(&LrSchedulerConfig { eta_min: -1.0, ..sound }, 1e-3).contains("lr_scheduler.eta_min = -1"));
        let long = LrSchedulerConfig { decay_ratio: 1.5, ..config(0, 0.1) };
        assert!(refusal(&long, 1e-3).contains("lr_scheduler.decay_ratio = 1.5"));
    }
}
