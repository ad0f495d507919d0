//! Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, arXiv 2302.06675, program 1):
//!
//! ```text
//! c = beta1 m + (1 - beta1) g
//! p = p - lr (sign(c) + weight_decay p)
//! m = beta2 m + (1 - beta2) g
//! ```
//!
//! One state per element, half of AdamW's. Every step has the size `lr`, so the peak learning rate wants to be 3 to 10 times
//! smaller than AdamW's and the weight decay as much larger (section 5 of the paper).
//!
//! Elementwise: the result does not depend on the sharding or on the number of threads.

use internevo_core::plugin::{Plugin, PluginError};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CHUNK, Optimizer, OptimizerPlugin, ShardLayout, StepContext, settings::Rules};
use crate::{ParallelError, register_optimizer};

/// Settings of Lion; table `optimizer.settings.lion`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// Share of the momentum in the direction of a step.
    pub beta1: f64,
    /// Decay of the momentum; `beta2_scheduler` has no say here.
    pub beta2: f64,
    /// Decoupled weight decay of matrices (norm weights have none).
    pub weight_decay: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, weight_decay: 0.1 }
    }
}

/// The `lion` plugin.
pub struct LionPlugin;

impl Plugin for LionPlugin {
    const NAME: &'static str = "lion";
    const ABOUT: &'static str = "Lion: the sign of an interpolated momentum, with decoupled weight decay.";
    type Config = LionConfig;
}

impl OptimizerPlugin for LionPlugin {
    fn build(config: LionConfig, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        let rules = Rules::of(Self::NAME);
        rules.rate("beta1", config.beta1)?;
        rules.rate("beta2", config.beta2)?;
        rules.not_negative("weight_decay", config.weight_decay)?;
        Ok(Box::new(Lion::new(config, shard.len)))
    }
}

register_optimizer!(LionPlugin);

/// Lion on a flat shard.
#[derive(Clone, Debug)]
pub struct Lion {
    config: LionConfig,
    exp_avg: Vec<f32>,
}

impl Lion {
    /// An optimizer with its momentum at zero.
    pub fn new(config: LionConfig, shard_len: usize) -> Self {
        Self { config, exp_avg: vec![0.0; shard_len] }
    }
}

/// One update's constants, rounded once.
#[derive(Clone, Copy)]
struct Constants {
    lr: f32,
    decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
}

impl Optimizer for Lion {
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        let LionConfig { beta1, beta2, weight_decay } = self.config;
        for segment in &cx.shard.segments {
            let constants = Constants {
                lr: cx.lr as f32,
                decay: if segment.decay { (cx.lr * weight_decay) as f32 } else { 0.0 },
                beta1: beta1 as f32,
                one_minus_beta1: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                one_minus_beta2: (1.0 - beta2) as f32,
            };
            let range = segment.range.clone();
            let chunks = shard[range.clone()]
                .par_chunks_mut(CHUNK)
                .zip(grad[range.clone()].par_chunks(CHUNK))
                .zip(self.exp_avg[range].par_chunks_mut(CHUNK));
            chunks.for_each(|((p, g), m)| update_chunk(p, g, m, constants));
        }
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("exp_avg", &self.exp_avg)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("exp_avg", &mut self.exp_avg)]
    }
}

fn update_chunk(p: &mut [f32], g: &[f32], m: &mut [f32], c: Constants) {
    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
        let direction = c.beta1 * *m + c.one_minus_beta1 * *g;
        *p -= c.decay * *p + c.lr * sign(direction);
        *m = c.beta2 * *m + c.one_minus_beta2 * *g;
    }
}

/// 1, 0 or -1; `f32::signum` calls zero positive, which would move parameters that have no gradient.
fn sign(x: f32) -> f32 {
    f32::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::testing::{Alone, random, relative_error};

    #[test]
    fn two_updates_match_the_values_computed_by_hand() {
        // p = 1, lr = 0.1, weight decay 0.5, g = 2 then -1: c = 0.2, p = 1 - 0.1 - 0.05 = 0.85, m = 0.02;
        // c = 0.018 - 0.1 < 0: p = 0.85 + 0.1 - 0.0425 = 0.9075. The second parameter has neither decay nor gradient.
        let mut lion = Lion::new(LionConfig { weight_decay: 0.5, ..LionConfig::default() }, 2);
        let alone = Alone::new(&[("a", &[1], true), ("b", &[1], false)]);
        let mut p = [1.0, 1.0];
        lion.step(&mut p, &[2.0, 0.0], &alone.context(0.1, 0.0, 1)).expect("one rank");
        assert!((p[0] - 0.85).abs() < 1e-6 && p[1] == 1.0, "{p:?}");
        assert!((lion.exp_avg[0] - 0.02).abs() < 1e-8);
        lion.step(&mut p, &[-1.0, 0.0], &alone.context(0.1, 0.0, 2)).expect("one rank");
        assert!((p[0] - 0.9075).abs() < 1e-6 && p[1] == 1.0, "{p:?}");
    }

    #[test]
    fn fifty_updates_stay_with_the_f64_reference() {
        let len = 40_000;
        let (lr, config) = (3e-3, LionConfig::default());
        let mut lion = Lion::new(config.clone(), len);
        let mut p = random("p", len, 1.0);
        let mut reference: Vec<(f64, f64)> = p.iter().map(|p| (f64::from(*p), 0.0)).collect();
        let alone = Alone::new(&[("p", &[len], true)]);
        for update in 1..=50 {
            let g = random(&format!("g{update}"), len, 0.01);
            lion.step(&mut p, &g, &alone.context(lr, 0.95, update)).expect("one rank");
            for ((p, m), g) in reference.iter_mut().zip(&g) {
                let g = f64::from(*g);
                let c = config.beta1 * *m + (1.0 - config.beta1) * g;
                *p -= lr * (if c == 0.0 { 0.0 } else { c.signum() } + config.weight_decay * *p);
                *m = config.beta2 * *m + (1.0 - config.beta2) * g;
            }
        }
        // A direction that f32 and f64 round to different sides of zero is a whole step of difference: it must be rare.
        let apart = p.iter().zip(&reference).filter(|(p, r)| (f64::from(**p) - r.0).abs() > lr).count();
        assert!(apart <= 4, "{apart} of {len} took another direction");
        let near = p.iter().zip(&reference).filter(|(p, r)| (f64::from(**p) - r.0).abs() <= lr);
        let (near, expected): (Vec<f32>, Vec<f64>) = near.map(|(p, r)| (*p, r.0)).unzip();
        assert!(relative_error(&near, &expected) <= 1e-6, "{}", relative_error(&near, &expected));
    }

    #[test]
    fn a_rate_outside_its_range_is_an_error_that_names_the_key() {
        let config = LionConfig { beta2: 1.0, ..LionConfig::default() };
        let message = LionPlugin::build(config, &ShardLayout::default()).err().expect("refused").to_string();
        assert!(message.contains("`lion`: `beta2`: 1 must"), "{message}");
    }
}
