//! A model small enough to differentiate by hand, and a training loop on it: `y = W2 tanh(W1 x + b)` fitted to random pairs,
//! with micro-batches that depend on (step, global index) alone.
#![allow(dead_code)]

use std::sync::Arc;

use internevo_core::{
    config::{AdamConfig, Config, OptimizerConfig, ParallelConfig, Zero1Config},
    layout::ParallelLayout,
    plugin::Registry,
    rng::CounterRng,
};
use internevo_parallel::{
    MicroBatches, ParallelError, ParamSpec, ProcessGroups, ShardedOptimizer, StatePlan, ZeroConfig, comm::Communicator,
    optimizer::OptimizerChoice, zero::ReductionOrder,
};

const INPUT: usize = 64;
const HIDDEN: usize = 96;
const OUTPUT: usize = 65;
const SAMPLES: usize = 2;
/// Micro-batches of a step, over all ranks.
pub const MICRO_BATCHES: usize = 4;

/// The parameters, flat.
pub struct Mlp(pub Vec<f32>);

impl Mlp {
    pub fn specs(&self) -> Vec<ParamSpec> {
        let spec = |name: &str, shape: &[usize], decay| ParamSpec { name: name.into(), shape: shape.to_vec(), decay };
        vec![
            spec("w1.weight", &[HIDDEN, INPUT], true),
            spec("w1.bias", &[HIDDEN], false),
            spec("w2.weight", &[OUTPUT, HIDDEN], true),
        ]
    }

    pub fn new() -> Self {
        let rng = CounterRng::new(1, "init");
        Self((0..HIDDEN * INPUT + HIDDEN + OUTPUT * HIDDEN).map(|i| (rng.normal(i as u64) * 0.1) as f32).collect())
    }

    /// Gradient of `sum |y - t|^2 / 2 / (SAMPLES * MICRO_BATCHES)` over one micro-batch.
    pub fn gradient(&self, step: u64, micro_batch: usize) -> Vec<f32> {
        let rng = CounterRng::new(2, &format!("{step}/{micro_batch}"));
        let (w1, rest) = self.0.split_at(HIDDEN * INPUT);
        let (bias, w2) = rest.split_at(HIDDEN);
        let mut gradient = vec![0.0; self.0.len()];
        let (g1, rest) = gradient.split_at_mut(HIDDEN * INPUT);
        let (g_bias, g2) = rest.split_at_mut(HIDDEN);
        for sample in 0..SAMPLES {
            let draw = |i: usize| rng.normal((sample * (INPUT + OUTPUT) + i) as u64) as f32;
            let x: Vec<f32> = (0..INPUT).map(draw).collect();
            let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
            let hidden: Vec<f32> =
                (0..HIDDEN).map(|h| (dot(&w1[h * INPUT..(h + 1) * INPUT], &x) + bias[h]).tanh()).collect();
            let mut g_hidden = vec![0.0; HIDDEN];
            for o in 0..OUTPUT {
                let row = o * HIDDEN..(o + 1) * HIDDEN;
                let error = (dot(&w2[row.clone()], &hidden) - draw(INPUT + o)) / (SAMPLES * MICRO_BATCHES) as f32;
                for h in 0..HIDDEN {
                    g2[row.start + h] += error * hidden[h];
                    g_hidden[h] += error * w2[row.start + h];
                }
            }
            for h in 0..HIDDEN {
                let g = g_hidden[h] * (1.0 - hidden[h] * hidden[h]);
                g_bias[h] += g;
                for i in 0..INPUT {
                    g1[h * INPUT + i] += g * x[i];
                }
            }
        }
        gradient
    }
}

/// How a run is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub ranks: usize,
    pub zero1: i64,
    pub stage: usize,
    pub micro_num: usize,
    pub bucket_bytes: usize,
    pub reduction: ReductionOrder,
    /// `optimizer.kind`.
    pub kind: &'static str,
    /// `optimizer.settings`, as TOML.
    pub settings: &'static str,
}

impl Setup {
    pub fn new(ranks: usize, zero1: i64) -> Self {
        let micro_num = MICRO_BATCHES / ranks;
        let (bucket_bytes, reduction) = (10_000, ReductionOrder::Tree);
        Self { ranks, zero1, stage: 1, micro_num, bucket_bytes, reduction, kind: "adamw", settings: "" }
    }

    pub fn layout(&self) -> ParallelLayout {
        let zero1 = Zero1Config { size: self.zero1, stage: self.stage, ..Zero1Config::default() };
        let parallel = ParallelConfig { zero1, ..ParallelConfig::default() };
        ParallelLayout::new(&parallel, self.ranks).expect("a sound layout")
    }

    /// A rank's optimizer at the start of a run.
    pub fn optimizer(&self, comm: Arc<dyn Communicator>) -> Result<ShardedOptimizer, ParallelError> {
        let layout = self.layout();
        let groups = ProcessGroups::new(&layout, comm)?;
        let choice = choice(self.kind, self.settings)?;
        let zero = ZeroConfig { clip_grad_norm: 0.5, reduction: self.reduction, overlap_sync_grad: true };
        let model = Mlp::new();
        let plan = StatePlan::replicated(model.specs(), layout, self.bucket_bytes)?;
        ShardedOptimizer::new(plan, model.0, groups, &choice, zero)
    }
}

/// The optimizer `kind` with its table in `settings`.
pub fn choice(kind: &str, settings: &str) -> Result<OptimizerChoice, ParallelError> {
    let adam = AdamConfig { lr: 1e-2, weight_decay: 0.1, ..AdamConfig::default() };
    let optimizer = OptimizerConfig { kind: kind.into(), settings: toml::from_str(settings).expect("a table") };
    let config = Config { adam, optimizer, ..Config::default() };
    Ok(OptimizerChoice::from_config(&Registry::collect()?, &config)?)
}

/// Trains from `steps.start` to `steps.end` and returns the gradient norms.
pub fn train(
    optimizer: &mut ShardedOptimizer,
    setup: &Setup,
    rank: usize,
    steps: std::ops::Range<u64>,
) -> Result<Vec<u64>, ParallelError> {
    let mut model = Mlp(optimizer.params().to_vec());
    let order = MicroBatches::new(optimizer.plan().layout(), setup.micro_num);
    let mut norms = Vec::new();
    for step in steps {
        for local in 0..setup.micro_num {
            let gradient = model.gradient(step, order.index(rank, local));
            optimizer.accumulate(|flat| flat.copy_from_slice(&gradient))?;
        }
        norms.push(optimizer.step(1e-2, 0.95)?.grad_norm.to_bits());
        model.0.copy_from_slice(optimizer.params());
    }
    Ok(norms)
}

/// Bits of a slice, for exact comparison.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
