//! Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) with the scaling and the weight decay
//! of Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, equation 4:
//!
//! ```text
//! M = momentum M + G
//! O = orthogonalize(G + momentum M)                              (Nesterov; else of M)
//! W = W - lr (rms sqrt(max(rows, columns)) O + weight_decay W)
//! ```
//!
//! An orthogonal step of a matrix has the root mean square `1 / sqrt(max(rows, columns))`; the factor makes it `rms = 0.2`, about
//! that of AdamW's steps, so that AdamW's learning rate and weight decay carry over.
//!
//! **Which parameters.** Matrices of hidden layers. Vectors, and parameters that `adamw_for` names (embedding and head), are
//! updated by AdamW in here, with the job's beta2.
//!
//! **`wqkv`** is one fused matrix and is orthogonalised as a whole: one product of the residual stream, like any other weight. Its
//! rows are interleaved by key/value head, so `row_blocks = { "*.wqkv.weight" = <key/value heads> }` makes each group of heads a
//! matrix of its own instead.
//!
//! **Ranks.** Momentum lives on shards. The matrices of a copy of the state are divided among its ranks by cost; each is brought
//! together on its owner, orthogonalised there and spread again, to every rank that holds a part or a copy. Matrices are always
//! computed whole, in one way, hence with the same bits in every layout.

mod newton_schulz;
mod owners;

use std::collections::BTreeMap;

use internevo_core::{
    config::AdamConfig,
    plugin::{Plugin, PluginError},
};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AdamW, CHUNK, Optimizer, OptimizerPlugin, Segment, ShardLayout, StepContext, settings::Rules};
use crate::{ParallelError, register_optimizer, state::ParamSpec};

/// Settings of Muon; table `optimizer.settings.muon`. In names of parameters, `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// Decay of the momentum.
    pub momentum: f64,
    /// Look one step ahead along the momentum.
    pub nesterov: bool,
    /// Newton-Schulz steps.
    pub steps: usize,
    /// Root mean square of a step, in learning rates.
    pub rms: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Matrices that AdamW updates.
    pub adamw_for: Vec<String>,
    /// Matrices whose rows are this many blocks of equal size, each orthogonalised on its own.
    pub row_blocks: BTreeMap<String, usize>,
    /// AdamW, for everything that is no matrix of a hidden layer.
    pub adam: MuonAdamConfig,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            steps: 5,
            rms: 0.2,
            weight_decay: 0.1,
            adamw_for: vec!["tok_embeddings.weight".into(), "output.weight".into()],
            row_blocks: BTreeMap::new(),
            adam: MuonAdamConfig::default(),
        }
    }
}

/// AdamW inside Muon; learning rate and beta2 are the job's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MuonAdamConfig {
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Added to the root of the second moment.
    pub adam_eps: f64,
    /// Decoupled weight decay of the embedding and the head (norm weights have none).
    pub weight_decay: f64,
}

impl Default for MuonAdamConfig {
    fn default() -> Self {
        Self { adam_beta1: 0.9, adam_eps: 1e-8, weight_decay: 0.1 }
    }
}

/// The `muon` plugin.
pub struct MuonPlugin;

impl Plugin for MuonPlugin {
    const NAME: &'static str = "muon";
    const ABOUT: &'static str = "Muon: orthogonalised momentum for hidden matrices, AdamW for everything else.";
    type Config = MuonConfig;
}

impl OptimizerPlugin for MuonPlugin {
    fn build(config: MuonConfig, shard: &ShardLayout) -> Result<Box<dyn Optimizer>, PluginError> {
        let rules = Rules::of(Self::NAME);
        rules.rate("momentum", config.momentum)?;
        rules.check("steps", config.steps, config.steps > 0, "must be at least 1")?;
        rules.positive("rms", config.rms)?;
        rules.not_negative("weight_decay", config.weight_decay)?;
        rules.rate("adam.adam_beta1", config.adam.adam_beta1)?;
        rules.positive("adam.adam_eps", config.adam.adam_eps)?;
        rules.not_negative("adam.weight_decay", config.adam.weight_decay)?;
        for (pattern, blocks) in &config.row_blocks {
            let key = format!("row_blocks.{pattern}");
            rules.check(&key, blocks, *blocks > 0, "must be at least 1")?;
            for spec in shard.params.iter().filter(|spec| matches(pattern, &spec.name) && spec.shape.len() == 2) {
                let rule = format!("blocks do not divide the {} rows of `{}` evenly", spec.shape[0], spec.name);
                rules.check(&key, blocks, spec.shape[0].is_multiple_of(*blocks), &rule)?;
            }
        }
        Ok(Box::new(Muon::new(config, shard)))
    }
}

register_optimizer!(MuonPlugin);

/// Whether `name` is `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(head) else { return false };
    let mut ends = tail.char_indices().map(|(end, _)| end).chain([tail.len()]);
    ends.any(|end| matches(rest, &tail[end..]))
}

/// A matrix of a hidden layer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Matrix {
    param: usize,
    rows: usize,
    columns: usize,
    /// Blocks of rows that are orthogonalised on their own.
    blocks: usize,
}

impl Matrix {
    fn of(config: &MuonConfig, param: usize, spec: &ParamSpec) -> Option<Self> {
        let [rows, columns] = *spec.shape else { return None };
        if rows * columns == 0 || config.adamw_for.iter().any(|pattern| matches(pattern, &spec.name)) {
            return None;
        }
        let blocks = config.row_blocks.iter().find(|(pattern, _)| matches(pattern, &spec.name));
        Some(Self { param, rows, columns, blocks: blocks.map_or(1, |(_, blocks)| *blocks) })
    }

    fn orthogonalize(&self, values: &mut [f32], steps: usize) {
        let rows = self.rows / self.blocks;
        for block in values.chunks_exact_mut(rows * self.columns) {
            newton_schulz::orthogonalize(block, rows, steps);
        }
    }

    /// What brings an orthogonal step to the root mean square 1.
    fn scale(&self) -> f64 {
        ((self.rows / self.blocks).max(self.columns) as f64).sqrt()
    }
}

/// Muon on a shard.
#[derive(Clone, Debug)]
pub struct Muon {
    config: MuonConfig,
    /// Matrices of hidden layers, held here or not.
    matrices: Vec<Matrix>,
    /// By parameter: its place in `matrices`.
    places: Vec<Option<usize>>,
    /// AdamW's moments; of matrices, the first is the momentum and the second stays zero.
    adam: AdamW,
}

impl Muon {
    /// An optimizer with momentum and moments at zero.
    pub fn new(config: MuonConfig, shard: &ShardLayout) -> Self {
        let MuonAdamConfig { adam_beta1, adam_eps, weight_decay } = config.adam;
        let adam = AdamConfig { adam_beta1, adam_eps, weight_decay, ..AdamConfig::default() };
        let specs = shard.params.iter().enumerate();
        let matrices: Vec<Matrix> = specs.filter_map(|(i, spec)| Matrix::of(&config, i, spec)).collect();
        let mut places = vec![None; shard.params.len()];
        matrices.iter().enumerate().for_each(|(place, matrix)| places[matrix.param] = Some(place));
        Self { adam: AdamW::new(&adam, shard.len), matrices, places, config }
    }

    fn matrix(&self, segment: &Segment) -> Option<&Matrix> {
        self.places[segment.param].map(|place| &self.matrices[place])
    }

    /// Takes the gradient of a segment into its momentum and writes where to go to `direction`.
    fn accelerate(&mut self, segment: &Segment, grad: &[f32], direction: &mut [f32]) {
        let (momentum, nesterov) = (self.config.momentum as f32, self.config.nesterov);
        let range = segment.range.clone();
        let chunks = direction[range.clone()]
            .par_chunks_mut(CHUNK)
            .zip(grad[range.clone()].par_chunks(CHUNK))
            .zip(self.adam.exp_avg[range].par_chunks_mut(CHUNK));
        chunks.for_each(|((direction, grad), average)| {
            for ((d, g), m) in direction.iter_mut().zip(grad).zip(average) {
                *m = momentum * *m + g;
                *d = if nesterov { g + momentum * *m } else { *m };
            }
        });
    }

    /// Orthogonalises all matrices of `direction`, a shard. Collective.
    fn orthogonalize(&self, direction: &mut [f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        for round in owners::rounds(&self.matrices, cx.exchange.ranks()) {
            let mut whole = cx.exchange.gather(&round, direction)?;
            for (param, values) in &mut whole {
                let place = self.places[*param].expect("only matrices are assigned");
                self.matrices[place].orthogonalize(values, self.config.steps);
            }
            cx.exchange.scatter_to_copies(&round, &whole, direction)?;
        }
        Ok(())
    }
}

impl Optimizer for Muon {
    fn step(&mut self, shard: &mut [f32], grad: &[f32], cx: &StepContext<'_>) -> Result<(), ParallelError> {
        let segments = cx.shard.segments.iter();
        let (hidden, other): (Vec<&Segment>, Vec<&Segment>) = segments.partition(|s| self.matrix(s).is_some());
        self.adam.update(other.into_iter(), shard, grad, cx);
        let mut direction = vec![0.0; shard.len()];
        hidden.iter().for_each(|segment| self.accelerate(segment, grad, &mut direction));
        self.orthogonalize(&mut direction, cx)?;
        for segment in hidden {
            let scale = self.matrix(segment).expect("partitioned above").scale();
            let step = (cx.lr * self.config.rms * scale) as f32;
            let decay = if segment.decay { (cx.lr * self.config.weight_decay) as f32 } else { 0.0 };
            let range = segment.range.clone();
            let chunks = shard[range.clone()].par_chunks_mut(CHUNK).zip(direction[range].par_chunks(CHUNK));
            chunks.for_each(|(params, direction)| {
                params.iter_mut().zip(direction).for_each(|(p, d)| *p -= decay * *p + step * d);
            });
        }
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        self.adam.state()
    }

    fn state_mut(&mut self) -> Vec<(&'static str, &mut [f32])> {
        self.adam.state_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::testing::{Alone, random, relative_error};

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("output.weight", "output.weight", true),
            ("output.weight", "layers.0.output.weight", false),
            ("*.wqkv.weight", "layers.11.attention.wqkv.weight", true),
            ("layers.*.wo.*", "layers.0.attention.wo.weight", true),
            ("layers.*.wo.*", "layers.0.attention.wqkv.weight", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn twenty_updates_stay_with_the_f64_reference() {
        // A diagonal gradient keeps momentum diagonal, and the quintic acts on each entry alone: a reference without matrices.
        let side = 12;
        let (lr, config) = (1e-2, MuonConfig::default());
        let alone = Alone::new(&[("layers.0.wo.weight", &[side, side], true)]);
        let mut muon = Muon::new(config.clone(), &alone.shard);
        let mut p = random("p", side * side, 0.1);
        let mut expected: Vec<f64> = p.iter().map(|p| f64::from(*p)).collect();
        let mut average = vec![0.0; side];
        for update in 1..=20 {
            let diagonal = random(&format!("g{update}"), side, 0.1);
            let mut grad = vec![0.0; side * side];
            (0..side).for_each(|i| grad[i * side + i] = diagonal[i]);
            muon.step(&mut p, &grad, &alone.context(lr, 0.95, update)).expect("one rank");
            let mut direction = vec![0.0; side];
            for i in 0..side {
                average[i] = config.momentum * average[i] + f64::from(diagonal[i]);
                direction[i] = f64::from(diagonal[i]) + config.momentum * average[i];
            }
            let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt() + 1e-7;
            let quintic = |x: f64| 3.4445 * x - 4.775 * x.powi(3) + 2.0315 * x.powi(5);
            for (at, p) in expected.iter_mut().enumerate() {
                let o = if at % (side + 1) == 0 {
                    (0..5).fold(direction[at / side] / norm, |x, _| quintic(x))
                } else {
                    0.0
                };
                *p -= lr * (0.2 * (side as f64).sqrt() * o + config.weight_decay * *p);
            }
        }
        let error = relative_error(&p, &expected);
        assert!(error <= 1e-6, "{error}");
    }

    #[test]
    fn everything_but_hidden_matrices_is_updated_by_adamw() {
        let params: [(&str, &[usize], bool); 4] = [
            ("tok_embeddings.weight", &[9, 4], true),
            ("layers.0.attention_norm.weight", &[4], false),
            ("layers.0.feed_forward.w1.weight", &[6, 4], true),
            ("output.weight", &[9, 4], true),
        ];
        let alone = Alone::new(&params);
        let config = MuonConfig::default();
        let mut muon = Muon::new(config.clone(), &alone.shard);
        let adam = AdamConfig { weight_decay: config.adam.weight_decay, ..AdamConfig::default() };
        let mut adamw = AdamW::new(&adam, alone.shard.len);
        let (mut p, mut q) = (random("p", alone.shard.len, 0.1), random("p", alone.shard.len, 0.1));
        for update in 1..=3 {
            let g = random(&format!("g{update}"), alone.shard.len, 0.1);
            let cx = alone.context(1e-2, 0.95, update);
            muon.step(&mut p, &g, &cx).expect("one rank");
            adamw.step(&mut q, &g, &cx).expect("one rank");
        }
        for segment in &alone.shard.segments {
            let same = p[segment.range.clone()] == q[segment.range.clone()];
            assert_eq!(same, segment.param != 2, "{}", segment.name);
            let second = &muon.adam.exp_avg_sq[segment.range.clone()];
            assert_eq!(second.iter().all(|v| *v == 0.0), segment.param == 2, "{}", segment.name);
        }
    }

    #[test]
    fn blocks_of_rows_are_matrices_of_their_own() {
        let row_blocks = BTreeMap::from([("*.wqkv.weight".to_owned(), 3)]);
        let config = MuonConfig { row_blocks, ..MuonConfig::default() };
        let alone = Alone::new(&[("layers.0.attention.wqkv.weight", &[12, 6], true)]);
        let (mut whole, g) = (random("p", 72, 0.1), random("g", 72, 0.1));
        let mut parts = whole.clone();
        Muon::new(config.clone(), &alone.shard).step(&mut whole, &g, &alone.context(1e-2, 0.95, 1)).expect("one rank");
        let block = Alone::new(&[("block", &[4, 6], true)]);
        for (p, g) in parts.chunks_mut(24).zip(g.chunks(24)) {
            Muon::new(config.clone(), &block.shard).step(p, g, &block.context(1e-2, 0.95, 1)).expect("one rank");
        }
        assert_eq!(whole, parts);
        let uneven = Alone::new(&[("layers.0.attention.wqkv.weight", &[10, 6], true)]);
        let message = MuonPlugin::build(config, &uneven.shard).err().expect("refused").to_string();
        assert!(
            message.contains("3 blocks do not divide the 10 rows of `layers.0.attention.wqkv.weight`"),
            "{message}"
        );
    }
}
