//! A whole training step of one rank on made-up tokens: forward, backward, clipping, AdamW. The same shapes, tokens and
//! settings as `xtask/peers/train_step.py`, so that the two can be timed side by side.

use internevo_core::{
    batch::PackedBatch,
    config::{Config, ModelConfig},
    layout::ParallelLayout,
};
use internevo_kernels::KernelSet;
use internevo_model::{Engine, ModelSpec};
use internevo_parallel::comm::local_world;

/// Dimensions of a measured step.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Feed-forward width.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Tokens per row.
    pub seq: usize,
    /// Rows.
    pub batch: usize,
}

/// 4 layers, 8 heads over 4 kv heads, 1024 tokens: hidden 256 (`tiny`) or 512 (`base`).
pub fn shape(name: &str) -> Option<Shape> {
    match name {
        "tiny" => Some(Shape { hidden: 256, ffn: 704, vocab: 4096, seq: 256, batch: 4 }),
        "base" => Some(Shape { hidden: 512, ffn: 1408, vocab: 8192, seq: 512, batch: 2 }),
        "test" => Some(Shape { hidden: 32, ffn: 64, vocab: 128, seq: 16, batch: 2 }),
        _ => None,
    }
}

/// A rank with its model, and the next step's number.
pub struct TrainStep {
    shape: Shape,
    engine: Engine,
    step: usize,
}

impl TrainStep {
    /// A freshly initialised model on one rank.
    pub fn new(shape: Shape, kernels: KernelSet) -> Self {
        let mut config = Config {
            model: ModelConfig {
                hidden_size: shape.hidden,
                num_layers: 4,
                num_attention_heads: 8.min(shape.hidden / 8),
                num_kv_attention_heads: 4,
                vocab_size: shape.vocab,
                mlp_ratio: shape.ffn as f64 / shape.hidden as f64,
                multiple_of: 1,
                ..ModelConfig::default()
            },
            ..Config::default()
        };
        config.adam.lr = 1e-3;
        config.adam.weight_decay = 0.1;
        let mut spec = ModelSpec::from_config(&config.model, shape.vocab, shape.seq).expect("a valid shape");
        spec.kernels = kernels;
        let layout = ParallelLayout::new(&config.parallel, 1).expect("one rank");
        let world = local_world(1).pop().expect("one communicator");
        let engine = Engine::new(&spec, &config, &layout, world).expect("one rank");
        Self { shape, engine, step: 0 }
    }

    /// Tokens of one step.
    pub fn tokens(&self) -> usize {
        self.shape.seq * self.shape.batch
    }

    /// One step; returns the mean loss.
    pub fn run(&mut self) -> f64 {
        let batch = self.next_batch();
        let labels = batch.label_count() as u64;
        let sums = self.engine.forward_backward(&[batch], labels).expect("one rank cannot lose another");
        self.engine.update(1e-3, 0.95).expect("one rank cannot lose another");
        sums.loss()
    }

    fn next_batch(&mut self) -> PackedBatch {
        let count = self.tokens();
        let token = |i: usize| (i * 7 + self.step * 3) % 97 % self.shape.vocab;
        let batch = PackedBatch {
            tokens: (0..count).map(|i| token(i) as u32).collect(),
            labels: (1..=count).map(|i| token(i) as i32).collect(),
            cu_seqlens: (0..=self.shape.batch).map(|row| (row * self.shape.seq) as u32).collect(),
            position_ids: (0..count).map(|i| (i % self.shape.seq) as u32).collect(),
        };
        self.step += 1;
        batch
    }
}
