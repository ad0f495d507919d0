//! Adafactor (Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018, arXiv 1804.04235,
//! algorithms 4 and 5). A matrix keeps the mean square of each row and column instead of one value per element:
//!
//! ```text
//! R_i = beta2 R_i + (1 - beta2) (mean_j g_ij² + eps1)       C_j likewise over i
//! u_ij = g_ij / sqrt(R_i C_j / mean(R))
//! p_ij = p_ij - step u_ij / max(1, rms(u) / clip_threshold) - lr weight_decay p_ij
//! ```
//!
//! With one row this is a second moment per element, so vectors need no rule of their own. `beta2 = 1 - t^-decay_rate`; with
//! `decay_rate = 0` it is the job's beta2, corrected for its start (section 7.1). There is no first moment: beside the
//! parameters and gradients, a rank keeps rows plus columns of each matrix.
//!
//! Factors belong to whole parameters and are equal on all ranks. Sums over rows, columns and parameters do not depend on the
//! division among ranks (`exact.rs`), hence neither does any bit of the result.

mod part;

use internevo_core::plugin::{Plugin, PluginError};
use part::{Part, RowRun, Squares};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Optimizer, OptimizerPlugin, ShardLayout, StepContext, WholeState, exact::exact_sums, settings::Rules};
use crate::{ParallelError, register_optimizer};

/// Settings of Adafactor; table `optimizer.settings.adafactor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdafactorConfig {
    /// Step by the paper's `min(0.01, 1 / sqrt(t))` instead of the job's learning rate.
    pub relative_step: bool,
    /// Multiply the step by the root mean square of the parameter (at least `eps2`), as the paper does.
    pub scale_parameter: bool,
    /// Exponent of `beta2 = 1 - t^-decay_rate`; 0 = the job's beta2.
    pub decay_rate: f64,
    /// Added to squared gradients.
    pub eps1: f64,
    /// Least scale of a parameter with `scale_parameter`.
    pub eps2: f64,
    /// Root mean square to which an update is clipped.
    pub clip_threshold: f64,
    /// Decoupled weight decay of matrices (norm weights have none).
    pub weight_decay: f64,
}

impl Default for AdafactorConfig {
    /// The paper's constants, but steps of the size of the learning rate: `adam.lr` means what it means for AdamW.
    fn default() -> Self {
        Self {
            relative_step: false,
            scale_parameter: false,
            decay_rate: 0.8,
            eps1: 1e-30,
            eps2: 1e-3,
            clip_threshold: 1.0,
            weight_decay: 0.01,
        }
    }
}

/// The `adafactor` plugin.
pub struct AdafactorPlugin;

impl Plugin for AdafactorPlugin {
    const NAME: &'static str = "adafactor";
    const ABOUT: &'static str = "Adafactor: second moments factored into rows and columns, with clipped updates.";
    type Config = AdafactorConfig;
}

impl OptimizerPlugin for AdafactorPlugin {
    fn build(config: AdafactorConfig, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        let rules = Rules::of(Self::NAME);
        rules.rate("decay_rate", config.decay_rate)?;
        rules.check("eps1", config.eps1, (1e-37..1.0).contains(&config.eps1), "must be at least 1e-37 and below 1")?;
        rules.positive("eps2", config.eps2)?;
        rules.positive("clip_threshold", config.clip_threshold)?;
        rules.not_negative("weight_decay", config.weight_decay)?;
        Ok(Box::new(Adafactor::new(config, shard)))
    }
}

register_optimizer!(AdafactorPlugin);

/// Adafactor on a shard.
#[derive(Clone, Debug)]
pub struct Adafactor {
    config: AdafactorConfig,
    params: Vec<Factored>,
}

/// One parameter with its factored second moment.
#[derive(Clone, Debug)]
struct Factored {
    param: usize,
    decay: bool,
    part: Part,
    /// Mean squares of rows; empty when there is but one.
    rows: Vec<f32>,
    /// Mean squares of columns.
    columns: Vec<f32>,
}

impl Adafactor {
    /// An optimizer with second moments at zero.
    pub fn new(config: AdafactorConfig, shard: &ShardLayout) -> Self {
        let parts = Part::all(shard).into_iter().enumerate().zip(&shard.params);
        let factored = |((param, part), spec): ((usize, Part), &crate::ParamSpec)| Factored {
            param,
            decay: spec.decay,
            rows: vec![0.0; if part.rows > 1 { part.rows } else { 0 }],
            columns: vec![0.0; part.columns],
            part,
        };
        let params = parts.map(factored).filter(|f| f.part.elements() > 0).collect();
        Self { config, params }
    }

    /// Decay of the second moments in update `t`; 0 in the first.
    fn beta2(&self, cx: &StepContext<'_>) -> f64 {
        let t = cx.update as f64;
        if self.config.decay_rate > 0.0 {
            return 1.0 - t.powf(-self.config.decay_rate);
        }
        cx.beta2 * (1.0 - cx.beta2.powf(t - 1.0)) / (1.0 - cx.beta2.powf(t))
    }

    /// Takes the gradient into the second moments. Collective.
    fn observe(&mut self, grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        let value = |at: usize, _: usize, _: usize| grad[at];
        let squares = self.params.iter().map(|f| Squares { part: &f.part, columns: true, value: &value });
        let sums = exact_sums(cx.exchange, &squares.collect::<Vec<_>>())?;
        let (beta2, eps1) = (self.beta2(cx), self.config.eps1);
        let average = |moments: &mut [f32], sums: &[f64], terms: usize| {
            for (moment, sum) in moments.iter_mut().zip(sums) {
                let mean = sum / terms as f64 + eps1;
                *moment = (beta2 * f64::from(*moment) + (1.0 - beta2) * mean) as f32;
            }
        };
        for (f, sums) in self.params.iter_mut().zip(sums) {
            let (rows, columns) = sums.split_at(f.part.rows);
            average(&mut f.rows, rows, f.part.columns);
            average(&mut f.columns, columns, f.part.rows);
        }
        Ok(())
    }

    /// Root mean square of each whole parameter, whose values are `values(element of the shard, row, column)`. Collective.
    fn rms<F>(&self, values: &[F], cx: &StepContext<'_>) -> Result<Vec<f64>, ParallelError>
    where
        F: Fn(usize, usize, usize) -> f32 + Sync,
    {
        let squares = self.params.iter().zip(values).map(|(f, value)| Squares { part: &f.part, columns: false, value });
        let sums = exact_sums(cx.exchange, &squares.collect::<Vec<_>>())?;
        let root = |(f, rows): (&Factored, Vec<f64>)| (rows.iter().sum::<f64>() / f.part.elements() as f64).sqrt();
        Ok(self.params.iter().zip(sums).map(root).collect())
    }

    /// Sizes of this update's steps, parameter by parameter, before clipping. Collective.
    fn step_sizes(&self, shard: &[f32], cx: &StepContext<'_>) -> Result<Vec<f64>, ParallelError> {
        let size = self.rate(cx);
        if !self.config.scale_parameter {
            return Ok(vec![size; self.params.len()]);
        }
        let value = |at: usize, _: usize, _: usize| shard[at];
        let scales = self.rms(&vec![value; self.params.len()], cx)?;
        Ok(scales.into_iter().map(|rms| size * rms.max(self.config.eps2)).collect())
    }

    fn rate(&self, cx: &StepContext<'_>) -> f64 {
        if self.config.relative_step { (cx.update as f64).powf(-0.5).min(1e-2) } else { cx.lr }
    }
}

/// What a gradient is multiplied by: `rows[i] * columns[j]`.
struct Scales {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Factored {
    fn scales(&self) -> Scales {
        let mean = self.rows.iter().map(|r| f64::from(*r)).sum::<f64>() / self.part.rows as f64;
        let mut rows: Vec<f32> = self.rows.iter().map(|r| (mean / f64::from(*r)).sqrt() as f32).collect();
        rows.resize(self.part.rows, 1.0);
        Scales { rows, columns: self.columns.iter().map(|c| (1.0 / f64::from(*c).sqrt()) as f32).collect() }
    }

    /// Names of the two kinds of factors.
    fn names(&self) -> [&'static str; 2] {
        if self.rows.is_empty() { ["", "exp_avg_sq"] } else { ["exp_avg_sq_row", "exp_avg_sq_col"] }
    }
}

/// Adjacent elements of a row that are about to be updated.
struct Own<'a> {
    params: &'a mut [f32],
    index: usize,
    run: &'a RowRun,
}

/// The parts of `shard` that `params` hold, each with what it is.
fn own_runs<'a>(mut shard: &'a mut [f32], params: &'a [Factored]) -> Vec<Own<'a>> {
    let runs = params.iter().enumerate().flat_map(|(index, f)| f.part.runs.iter().map(move |run| (index, run)));
    let mut runs: Vec<_> = runs.collect();
    runs.sort_unstable_by_key(|(_, run)| run.at.start);
    let mut taken = 0;
    let own = runs.into_iter().map(|(index, run)| {
        let (params, rest) = std::mem::take(&mut shard)[run.at.start - taken..].split_at_mut(run.at.len());
        (shard, taken) = (rest, run.at.end);
        Own { params, index, run }
    });
    own.collect()
}

impl Optimizer for Adafactor {
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        self.observe(grad, cx)?;
        let scales: Vec<Scales> = self.params.par_iter().map(Factored::scales).collect();
        let update = |s| move |at: usize, row: usize, column: usize| scaled(grad[at], s, row, column);
        let sizes = self.step_sizes(shard, cx)?;
        let rms = self.rms(&scales.iter().map(update).collect::<Vec<_>>(), cx)?;
        let decay = self.rate(cx) * self.config.weight_decay;
        own_runs(shard, &self.params).into_par_iter().for_each(|Own { params, index, run }| {
            let clip = (rms[index] / self.config.clip_threshold).max(1.0);
            let step = (sizes[index] / clip) as f32;
            let decay = if self.params[index].decay { decay as f32 } else { 0.0 };
            for (i, (p, g)) in params.iter_mut().zip(&grad[run.at.clone()]).enumerate() {
                *p -= decay * *p + step * scaled(*g, &scales[index], run.row, run.column + i);
            }
        });
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        Vec::new()
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        Vec::new()
    }

    fn whole_state(&self) -> Vec<WholeState<&[f32]>> {
        let of = |f: &Factored| (f.names(), f.param);
        let factors = self.params.iter().flat_map(|f| name(of(f), [f.rows.as_slice(), &f.columns]));
        factors.filter(|state| !state.values.is_empty()).collect()
    }

    fn whole_state_mut(&mut self) -> Vec<WholeState<&mut [f32]>> {
        let of = |f: &Factored| (f.names(), f.param);
        let factors = self.params.iter_mut().flat_map(|f| name(of(f), [f.rows.as_mut_slice(), &mut f.columns]));
        factors.filter(|state| !state.values.is_empty()).collect()
    }
}

/// The factors of a parameter with their names.
fn name<T>((names, param): ([&'static str; 2], usize), factors: [T; 2]) -> impl Iterator<Item = WholeState<T>> {
    names.into_iter().zip(factors).map(move |(name, values)| WholeState { name, param, values })
}

#[inline(always)]
fn scaled(gradient: f32, scales: &Scales, row: usize, column: usize) -> f32 {
    gradient * (scales.rows[row] * scales.columns[column])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::testing::{Alone, random, relative_error};

    /// The rule in f64, written from the paper for one `rows x columns` matrix. `second` is the running average of each row's and
    /// column's *sum* of squares, as in algorithm 4.
    struct Reference {
        p: Vec<f64>,
        row_sums: Vec<f64>,
        column_sums: Vec<f64>,
    }

    impl Reference {
        fn step(&mut self, g: &[f32], t: u64, lr: f64, config: &AdafactorConfig) {
            let (rows, columns) = (self.row_sums.len(), self.column_sums.len());
            let beta2 = 1.0 - (t as f64).powf(-config.decay_rate);
            let square = |i: usize, j: usize| f64::from(g[i * columns + j]).powi(2) + config.eps1;
            for i in 0..rows {
                let sum: f64 = (0..columns).map(|j| square(i, j)).sum();
                self.row_sums[i] = beta2 * self.row_sums[i] + (1.0 - beta2) * sum;
            }
            for j in 0..columns {
                let sum: f64 = (0..rows).map(|i| square(i, j)).sum();
                self.column_sums[j] = beta2 * self.column_sums[j] + (1.0 - beta2) * sum;
            }
            let total: f64 = self.row_sums.iter().sum();
            let second = |at: usize| self.row_sums[at / columns] * self.column_sums[at % columns] / total;
            let u: Vec<f64> = (0..g.len()).map(|at| f64::from(g[at]) / second(at).sqrt()).collect();
            let rms = |v: &[f64]| (v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64).sqrt();
            let rho = if config.relative_step { (1.0 / (t as f64).sqrt()).min(1e-2) } else { lr };
            let alpha = rho * if config.scale_parameter { rms(&self.p).max(config.eps2) } else { 1.0 };
            let clip = (rms(&u) / config.clip_threshold).max(1.0);
            for (p, u) in self.p.iter_mut().zip(&u) {
                *p -= rho * config.weight_decay * *p + alpha * u / clip;
            }
        }
    }

    #[test]
    fn thirty_updates_stay_with_the_f64_reference() {
        let paper = AdafactorConfig { relative_step: true, scale_parameter: true, ..AdafactorConfig::default() };
        let unclipped = AdafactorConfig { clip_threshold: 1e9, decay_rate: 0.5, ..AdafactorConfig::default() };
        for config in [AdafactorConfig::default(), paper, unclipped] {
            for (rows, columns) in [(37, 81), (1, 300), (64, 1)] {
                let alone = Alone::new(&[("p", &[rows, columns], true)]);
                let mut adafactor = Adafactor::new(config.clone(), &alone.shard);
                let mut p = random("p", rows * columns, 0.5);
                let mut reference = Reference {
                    p: p.iter().map(|p| f64::from(*p)).collect(),
                    row_sums: vec![0.0; rows],
                    column_sums: vec![0.0; columns],
                };
                for t in 1..=30 {
                    let mut g = random(&format!("g{t}"), rows * columns, 0.01);
                    g.iter_mut().enumerate().for_each(|(at, g)| *g *= 1.0 + (at / columns) as f32);
                    adafactor.step(&mut p, &g, &alone.context(3e-3, 0.95, t)).expect("one rank");
                    reference.step(&g, t, 3e-3, &config);
                }
                let error = relative_error(&p, &reference.p);
                assert!(error <= 1e-6, "{rows}x{columns}, {config:?}: {error}");
            }
        }
    }

    #[test]
    fn a_vector_keeps_one_value_an_element_and_a_matrix_one_a_row_and_column() {
        let alone = Alone::new(&[("m", &[3, 5], true), ("v", &[4], false), ("s", &[], false), ("none", &[0, 3], true)]);
        let adafactor = Adafactor::new(AdafactorConfig::default(), &alone.shard);
        let state = adafactor.whole_state();
        let kept: Vec<_> = state.iter().map(|w| (w.name, w.param, w.values.len())).collect();
        let expected = [("exp_avg_sq_row", 0, 3), ("exp_avg_sq_col", 0, 5), ("exp_avg_sq", 1, 4), ("exp_avg_sq", 2, 1)];
        assert_eq!(kept, expected);
        assert!(adafactor.state().is_empty());
    }

    #[test]
    fn without_a_decay_rate_the_jobs_beta2_is_corrected_for_its_start() {
        let config = AdafactorConfig { decay_rate: 0.0, clip_threshold: 1e9, weight_decay: 0.0, ..Default::default() };
        let alone = Alone::new(&[("v", &[1], false)]);
        let mut adafactor = Adafactor::new(config, &alone.shard);
        // v = 4 after g = 2. With beta2 = 0.9 and g = 1: beta2' = 0.9 * 0.1 / 0.19, v = beta2' 4 + (1 - beta2') 1 = 46/19, which
        // is Adam's (0.9 * 0.4 + 0.1) / 0.19. Steps: 2 / sqrt(4) and 1 / sqrt(46/19).
        let mut p = [1.0];
        adafactor.step(&mut p, &[2.0], &alone.context(0.1, 0.9, 1)).expect("one rank");
        assert!((p[0] - 0.9).abs() < 1e-6, "{p:?}");
        adafactor.step(&mut p, &[1.0], &alone.context(0.1, 0.9, 2)).expect("one rank");
        assert!((f64::from(p[0]) - (0.9 - 0.1 / (46.0f64 / 19.0).sqrt())).abs() < 1e-6, "{p:?}");
    }

    #[test]
    fn a_threshold_of_zero_is_an_error_that_names_the_key() {
        let config = AdafactorConfig { clip_threshold: 0.0, ..AdafactorConfig::default() };
        let message = AdafactorPlugin::build(config, &ShardLayout::default()).err().expect("refused").to_string();
        assert!(message.contains("`adafactor`: `clip_threshold`: 0 must"), "{message}");
    }
}
