//! AdamW (Loshchilov and Hutter, ICLR 2019): Adam with decoupled weight decay, in the formulation of `torch.optim.AdamW`.
//!
//! Scalars are computed in f64, elements in f32, every element on its own: the result does not depend on the sharding or on
//! the number of threads. Not here: the kernel ([`internevo_kernels::adamw`]), beta2's schedule (`lr/`) and clipping (`zero/`).

use internevo_core::{
    config::AdamConfig,
    plugin::{Plugin, PluginError},
};
use internevo_kernels::adamw;

use super::{Optimizer, OptimizerPlugin, Segment, ShardLayout, StepContext, settings::Rules};
use crate::{ParallelError, register_optimizer};

/// The `adamw` plugin; its configuration is the section `adam`.
pub struct AdamWPlugin;

impl Plugin for AdamWPlugin {
    const NAME: &'static str = "adamw";
    const ABOUT: &'static str = "AdamW with decoupled weight decay and a beta2 schedule.";
    type Config = AdamConfig;
}

impl OptimizerPlugin for AdamWPlugin {
    fn build(config: AdamConfig, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        let rules = Rules::of(Self::NAME);
        rules.rate("adam_beta1", config.adam_beta1)?;
        rules.rate("adam_beta2", config.adam_beta2)?;
        rules.not_negative("adam_eps", config.adam_eps)?;
        rules.not_negative("weight_decay", config.weight_decay)?;
        rules.not_negative("lr", config.lr)?;
        Ok(Box::new(AdamW::new(&config, shard.len)))
    }
}

register_optimizer!(AdamWPlugin);

/// AdamW on a flat shard.
#[derive(Clone, Debug)]
pub struct AdamW {
    beta1: f64,
    eps: f64,
    weight_decay: f64,
    pub(super) exp_avg: Vec<f32>,
    pub(super) exp_avg_sq: Vec<f32>,
}

impl AdamW {
    /// An optimizer with moments at zero.
    pub fn new(config: &AdamConfig, shard_len: usize) -> Self {
        Self {
            beta1: config.adam_beta1,
            eps: config.adam_eps,
            weight_decay: config.weight_decay,
            exp_avg: vec![0.0; shard_len],
            exp_avg_sq: vec![0.0; shard_len],
        }
    }

    /// Updates these segments of the shard.
    pub(super) fn update<'a>(
        &mut self,
        segments: impl Iterator<Item = &'a Segment>,
        shard: &mut [f32],
        grad: &[f32],
        cx: &StepContext<'_>,
    ) {
        let decay = |segment: &Segment| if segment.decay { self.weight_decay } else { 0.0 };
        let segments: Vec<adamw::Segment> = segments
            .map(|segment| adamw::Segment { range: segment.range.clone(), weight_decay: decay(segment) })
            .collect();
        let update = adamw::Update {
            lr: cx.lr,
            beta1: self.beta1,
            beta2: cx.beta2,
            eps: self.eps,
            number: cx.update,
            grad_scale: 1.0,
        };
        let state = adamw::cpu::State {
            master: shard,
            exp_avg: &mut self.exp_avg,
            exp_avg_sq: &mut self.exp_avg_sq,
            copy: None,
        };
        adamw::cpu::step(state, grad, &segments, update);
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        self.update(cx.shard.segments.iter(), shard, grad, cx);
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("exp_avg", &self.exp_avg), ("exp_avg_sq", &self.exp_avg_sq)]
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("exp_avg", &mut self.exp_avg), ("exp_avg_sq", &mut self.exp_avg_sq)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::optimizer::testing::{Alone, random, relative_error};

    #[test]
    fn two_updates_match_the_values_computed_by_hand() {
        // p = 1, g = 0.5 then -0.25, lr = 0.1, betas (0.9, 0.95), weight decay 0.01:
        // 1 * 0.999 - 0.1 * 1 = 0.899, then 0.899 * 0.999 - 0.1 * (0.02 / 0.19) / sqrt(0.015 / 0.0975) = 0.8712642.
        // Without decay the first is 0.9.
        let mut adam = AdamW::new(&AdamConfig::default(), 2);
        let alone = Alone::new(&[("a", &[1], true), ("b", &[1], false)]);
        let mut p = [1.0, 1.0];
        let cx = alone.context(0.1, 0.95, 1);
        adam.step(&mut p, &[0.5, 0.5], &cx).expect("one rank");
        assert!((p[0] - 0.899).abs() < 1e-6 && (p[1] - 0.9).abs() < 1e-6, "{p:?}");
        adam.step(&mut p, &[-0.25, -0.25], &StepContext { update: 2, ..cx }).expect("one rank");
        assert!((p[0] - 0.871_264_2).abs() < 1e-6, "{p:?}");
    }

    #[test]
    fn a_hundred_updates_stay_with_the_f64_reference() {
        let len = 40_000;
        let (lr, wd, eps) = (3e-3, 0.1, 1e-8);
        let config = AdamConfig { weight_decay: wd, adam_eps: eps, ..AdamConfig::default() };
        let mut adam = AdamW::new(&config, len);
        let mut p = random("p", len, 1.0);
        let mut reference: Vec<(f64, f64, f64)> = p.iter().map(|p| (f64::from(*p), 0.0, 0.0)).collect();
        let alone = Alone::new(&[("p", &[len], true)]);
        for update in 1..=100u64 {
            let beta2 = 0.95f64.max(1.0 - (update as f64).powf(-0.8));
            let g = random(&format!("g{update}"), len, 0.01);
            adam.step(&mut p, &g, &alone.context(lr, beta2, update)).expect("one rank");
            for ((p, m, v), g) in reference.iter_mut().zip(&g) {
                let g = f64::from(*g);
                (*m, *v) = (0.9 * *m + 0.1 * g, beta2 * *v + (1.0 - beta2) * g * g);
                let (m, v) = (*m / (1.0 - 0.9f64.powf(update as f64)), *v / (1.0 - beta2.powf(update as f64)));
                *p = *p * (1.0 - lr * wd) - lr * m / (v.sqrt() + eps);
            }
        }
        let relative = relative_error(&p, &reference.iter().map(|r| r.0).collect::<Vec<_>>());
        assert!(relative <= 1e-6, "relative error {relative}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn cutting_the_shard_anywhere_changes_no_bit(cut in 1usize..70_000) {
            let len = 70_000;
            let run = |ranges: &[std::ops::Range<usize>]| {
                let mut p = random("p", len, 1.0);
                for range in ranges {
                    let mut adam = AdamW::new(&AdamConfig::default(), range.len());
                    let alone = Alone::new(&[("p", &[range.len()], true)]);
                    for update in 1..=2 {
                        let g = random(&format!("g{update}"), len, 0.1);
                        let cx = alone.context(1e-2, 0.95, update);
                        adam.step(&mut p[range.clone()], &g[range.clone()], &cx).expect("one rank");
                    }
                }
                p
            };
            let bits = |p: Vec<f32>| p.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            prop_assert!(bits(run(&[0..len, len..len])) == bits(run(&[0..cut, cut..len])));
        }
    }

    #[test]
    fn a_beta_outside_its_range_is_an_error_that_names_the_key() {
        let config = AdamConfig { adam_beta1: 1.0, ..AdamConfig::default() };
        let message = AdamWPlugin::build(config, &ShardLayout::default()).err().expect("refused").to_string();
        assert!(message.contains("`adam_beta1`: 1 must"), "{message}");
    }
}
