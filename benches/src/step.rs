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
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Feed-forward width.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Tokens per row.
    pub seq: usize,
    /// Rows.
    pub batch: usize,
}

impl Shape {
    /// The same model over `tokens` tokens, in rows of the shape's length or one shorter row.
    ///
    /// # Panics
    /// If the rows do not divide the tokens.
    pub fn with_tokens(self, tokens: usize) -> Self {
        let seq = self.seq.min(tokens);
        assert!(tokens > 0 && tokens.is_multiple_of(seq), "{tokens} tokens in rows of {seq}");
        Self { seq, batch: tokens / seq, ..self }
    }
}

/// Names of the shapes, for messages.
pub const SHAPES: [&str; 5] = ["tiny", "base", "5m", "30m", "125m"];

/// 1,024 tokens through 4 layers (`tiny`: hidden 256, `base`: 512), or models of 5, 30 and 125 million parameters; `test` is
/// for checks. `xtask/peers/train_step.py` has the same table.
pub fn shape(name: &str) -> Option<Shape> {
    let sizes = match name {
        "tiny" | "5m" => [256, 4, 8, 4, 704, 4096, 256, 4],
        "base" => [512, 4, 8, 4, 1408, 8192, 512, 2],
        "30m" => [512, 8, 8, 4, 1280, 8192, 512, 2],
        "125m" => [768, 12, 12, 4, 2048, 32_000, 512, 2],
        "test" => [32, 4, 4, 4, 64, 128, 16, 2],
        _ => return None,
    };
    let [hidden, layers, heads, kv_heads, ffn, vocab, seq, batch] = sizes;
    Some(Shape { hidden, layers, heads, kv_heads, ffn, vocab, seq, batch })
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
                num_layers: shape.layers,
                num_attention_heads: shape.heads,
                num_kv_attention_heads: shape.kv_heads,
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
