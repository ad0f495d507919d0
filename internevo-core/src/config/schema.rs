//! The typed configuration: InternEvo's sections and keys under their own names, plus `launch`, and `corpus`, `pipeline`
//! and `tokenizer` of `pipeline.rs`. Every field has a default and an effect.
//!
//! Not here: reading and merging layers, provenance, presets, cross-field checks (see the sibling files).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CorpusConfig, HybridZeroOptimizerConfig, ParallelConfig, PipelineConfig, Recompute, TokenizerConfig};

/// A whole job, resolved: what `config.toml` of a run directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Name of the job; its runs live in `runs/<job_name>/`.
    pub job_name: String,
    /// Model family. `INTERNLM2_PUBLIC` is the only one.
    pub model_type: String,
    /// Seed of initialisation, shuffling and sampling.
    pub seed: u64,
    /// Folder that holds the run directories.
    pub run_dir: String,
    /// How many ranks run, and on what.
    pub launch: LaunchConfig,
    /// Where raw text comes from when `data.train_folder` is not set.
    pub corpus: CorpusConfig,
    /// What each stage of the corpus pipeline does.
    pub pipeline: PipelineConfig,
    /// The tokenizer that is trained on the corpus.
    pub tokenizer: TokenizerConfig,
    /// Training data: batch shape, length of the run, evaluation.
    pub data: DataConfig,
    /// The decoder.
    pub model: ModelConfig,
    /// Parallel layout.
    pub parallel: ParallelConfig,
    /// Gradient reduction and clipping.
    pub hybrid_zero_optimizer: HybridZeroOptimizerConfig,
    /// The loss.
    pub loss: LossConfig,
    /// Which optimizer plugin, and the settings of each.
    pub optimizer: OptimizerConfig,
    /// AdamW, with InternEvo's key names.
    pub adam: AdamConfig,
    /// Learning-rate schedule.
    pub lr_scheduler: LrSchedulerConfig,
    /// Schedule of Adam's second beta.
    pub beta2_scheduler: Beta2SchedulerConfig,
    /// Checkpoints and resuming.
    pub ckpt: CkptConfig,
    /// Log lines and metric sinks.
    pub monitor: MonitorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            job_name: "internevo".into(),
            model_type: "INTERNLM2_PUBLIC".into(),
            seed: 1024,
            run_dir: "runs".into(),
            launch: LaunchConfig::default(),
            corpus: CorpusConfig::default(),
            pipeline: PipelineConfig::default(),
            tokenizer: TokenizerConfig::default(),
            data: DataConfig::default(),
            model: ModelConfig::default(),
            parallel: ParallelConfig::default(),
            hybrid_zero_optimizer: HybridZeroOptimizerConfig::default(),
            loss: LossConfig::default(),
            optimizer: OptimizerConfig::default(),
            adam: AdamConfig::default(),
            lr_scheduler: LrSchedulerConfig::default(),
            beta2_scheduler: Beta2SchedulerConfig::default(),
            ckpt: CkptConfig::default(),
            monitor: MonitorConfig::default(),
        }
    }
}

/// Ranks and their transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LaunchConfig {
    /// World size: ranks in this job.
    pub ranks: usize,
    /// Communicator: `local` (one thread per rank in one process), `mpi` (one process per rank, started by `mpirun` or
    /// `srun`), `dry` (one rank of the world; nothing is sent, what would be is counted).
    pub communicator: String,
    /// CPU threads of each process; 0 = its share of the cores.
    pub threads: usize,
    /// Seconds that a rank waits for the others in a collective before the job fails.
    pub timeout: u64,
    /// Calls of each rank that the flight recorder keeps for the case of a failure.
    pub recorded_calls: usize,
}

impl Default for LaunchConfig {
    fn default() -> Self {
        Self { ranks: 1, communicator: "local".into(), threads: 0, timeout: 600, recorded_calls: 32 }
    }
}

/// Batch shape and length of the run. `micro_bsz * seq_len * micro_num * data-parallel size` tokens per step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DataConfig {
    /// Folder with `train.bin`/`train.idx` or `*.bin`/`*.bin.meta`. Empty: the corpus is built first.
    pub train_folder: String,
    /// Likewise for validation. Empty: the corpus' validation split, or none with an own `train_folder`.
    pub valid_folder: String,
    /// Tokens per row.
    pub seq_len: usize,
    /// Rows per micro-batch; `packed_length` = `seq_len * micro_bsz`.
    pub micro_bsz: usize,
    /// Micro-batches per rank and step (gradient accumulation).
    pub micro_num: usize,
    /// Micro-batches per evaluation, over all ranks.
    pub valid_micro_num: usize,
    /// Steps between evaluations; 0 = only at the end.
    pub valid_every: usize,
    /// Documents with fewer tokens are dropped.
    pub min_length: usize,
    /// Ignore document boundaries inside a row (attention sees the whole row).
    pub pack_sample_into_one: bool,
    /// Optimizer steps of the run.
    pub total_steps: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train_folder: String::new(),
            valid_folder: String::new(),
            seq_len: 256,
            micro_bsz: 2,
            micro_num: 1,
            valid_micro_num: 16,
            valid_every: 0,
            min_length: 8,
            pack_sample_into_one: false,
            total_steps: 100,
        }
    }
}

/// The decoder (InternLM2 report, table 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads (GQA); divides `num_attention_heads`.
    pub num_kv_attention_heads: usize,
    /// Rows of the embedding and of the head. 0: the tokenizer's size, rounded up to `vocab_multiple`.
    pub vocab_size: usize,
    /// Rounding of an automatic `vocab_size`.
    pub vocab_multiple: usize,
    /// Feed-forward width = `hidden_size * mlp_ratio` rounded up to `multiple_of`.
    pub mlp_ratio: f64,
    /// Rounding of the feed-forward width.
    pub multiple_of: usize,
    /// Epsilon of RMSNorm.
    pub layer_norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Parameter and compute type: `torch.float32`.
    pub dtype: String,
    /// `fused` (the kernels of internevo-kernels) or `reference` (composed from burn's own operations).
    pub kernels: String,
    /// `normal` or `uniform`; the standard deviations below hold for both.
    pub init_type: String,
    /// Divide the standard deviation of `wo` and `w2` by sqrt(2 * num_layers).
    pub use_scaled_init: bool,
    /// Which activations are computed again in the backward pass instead of being kept: `false` = none, `true` = those of
    /// every block, a fraction = those of the first blocks, `"selective"` = those of attention alone.
    pub checkpoint: Recompute,
    /// With tensor parallelism: divide the head by vocabulary and keep its logits divided in the loss.
    pub parallel_output: bool,
    /// With tensor parallelism: divide the embedding by columns (hidden) instead of rows (vocabulary).
    pub embed_split_hidden: bool,
    /// Standard deviation of the embedding.
    pub embedding_init_std: f64,
    /// Standard deviation of `wqkv`.
    pub attn_wqkv_init_std: f64,
    /// Standard deviation of `wo`.
    pub attn_other_init_std: f64,
    /// Standard deviation of `w1` and `w3`.
    pub ffn_uplayer_init_std: f64,
    /// Standard deviation of `w2`.
    pub ffn_other_init_std: f64,
    /// Standard deviation of the head.
    pub out_head_init_std: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            hidden_size: 256,
            num_layers: 4,
            num_attention_heads: 8,
            num_kv_attention_heads: 4,
            vocab_size: 0,
            vocab_multiple: 64,
            mlp_ratio: 8.0 / 3.0,
            multiple_of: 64,
            layer_norm_epsilon: 1e-5,
            rope_base: 10_000.0,
            dtype: "torch.float32".into(),
            kernels: "fused".into(),
            init_type: "normal".into(),
            use_scaled_init: true,
            checkpoint: Recompute::default(),
            parallel_output: true,
            embed_split_hidden: false,
            embedding_init_std: 0.02,
            attn_wqkv_init_std: 0.02,
            attn_other_init_std: 0.02,
            ffn_uplayer_init_std: 0.02,
            ffn_other_init_std: 0.02,
            out_head_init_std: 0.02,
        }
    }
}

impl ModelConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Width of the feed-forward layer.
    pub fn ffn_size(&self) -> usize {
        let multiple = self.multiple_of.max(1);
        ((self.hidden_size as f64 * self.mlp_ratio - 1e-9).ceil() as usize).div_ceil(multiple) * multiple
    }

    /// Query heads that share one key/value head.
    pub fn q_per_kv(&self) -> usize {
        self.num_attention_heads / self.num_kv_attention_heads
    }
}

/// The loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LossConfig {
    /// Share of the target's mass that is spread over the vocabulary.
    pub label_smoothing: f64,
}

/// Choice of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OptimizerConfig {
    /// Name of a registered optimizer: `adamw`, `lion`, `adafactor`, `muon`. Its peak learning rate is `adam.lr`.
    pub kind: String,
    /// Settings of each optimizer, by its name; those of `adamw` are section `adam`.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { kind: "adamw".into(), settings: toml::Table::new() }
    }
}

/// AdamW (Loshchilov and Hutter 2019) with InternEvo's key names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment, where `beta2_scheduler` leaves it alone.
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_eps: f64,
    /// Decoupled weight decay of matrices (norm weights have none).
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { lr: 1e-4, adam_beta1: 0.9, adam_beta2: 0.95, adam_eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LrSchedulerConfig {
    /// Name of a registered schedule: `cosine`, `linear`, `constant`, `wsd`.
    pub kind: String,
    /// Steps of the schedule; 0 = `data.total_steps`.
    pub total_steps: usize,
    /// Steps with learning rate 0 at the start.
    pub init_steps: usize,
    /// Share of `total_steps` spent warming up.
    pub warmup_ratio: f64,
    /// Final learning rate.
    pub eta_min: f64,
    /// `wsd`: share of `total_steps` spent decaying at the end.
    pub decay_ratio: f64,
}

impl Default for LrSchedulerConfig {
    fn default() -> Self {
        Self {
            kind: "cosine".into(),
            total_steps: 0,
            init_steps: 0,
            warmup_ratio: 0.01,
            eta_min: 1e-5,
            decay_ratio: 0.1,
        }
    }
}

/// beta2 = max(init_beta2, 1 - step^-c); c = 0 keeps `init_beta2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Beta2SchedulerConfig {
    /// Lower bound of beta2. 0: `adam.adam_beta2`.
    pub init_beta2: f64,
    /// Exponent; 0 = constant.
    pub c: f64,
}

impl Default for Beta2SchedulerConfig {
    fn default() -> Self {
        Self { init_beta2: 0.0, c: 0.0 }
    }
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CkptConfig {
    /// Write checkpoints.
    pub enable_save_ckpt: bool,
    /// Folder, with or without InternEvo's `local:` prefix. Empty: `checkpoints/` of the run directory.
    pub save_ckpt_folder: String,
    /// Steps between checkpoints; 0 = only at the end.
    pub checkpoint_every: usize,
    /// How many of the newest checkpoints stay; 0 = all.
    pub keep_last: usize,
    /// Continue from the newest complete checkpoint of the job.
    pub auto_resume: bool,
    /// Start from this checkpoint when there is nothing to resume.
    pub load_ckpt_folder: String,
    /// What to take from `load_ckpt_folder`: `all`, or any of `model`, `optimizer`, `sampler`, `scheduler`.
    pub load_ckpt_content: Vec<String>,
    /// A file with a step number: positive = save at that step and stop, negative = save and go on.
    pub stop_file_path: String,
}

impl Default for CkptConfig {
    fn default() -> Self {
        Self {
            enable_save_ckpt: true,
            save_ckpt_folder: String::new(),
            checkpoint_every: 50,
            keep_last: 3,
            auto_resume: true,
            load_ckpt_folder: String::new(),
            load_ckpt_content: vec!["all".into()],
            stop_file_path: String::new(),
        }
    }
}

/// Log lines and sinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MonitorConfig {
    /// Steps between log lines; the first and the last step are always logged.
    pub log_every: usize,
    /// Registered sinks that receive every step.
    pub sinks: Vec<String>,
    /// Settings of each sink, by its name.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub sink: toml::Table,
    /// Peak of one rank in TFLOP/s, for MFU. 0: MFU is not reported.
    pub peak_tflops: f64,
    /// Prompts of the samples generated at the end.
    pub prompts: Vec<String>,
    /// Tokens per sample.
    pub sample_tokens: usize,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            log_every: 10,
            sinks: vec!["jsonl".into(), "tensorboard".into()],
            sink: toml::Table::new(),
            peak_tflops: 0.0,
            prompts: vec!["This crate provides".into(), "Permission is hereby granted".into(), "pub fn ".into()],
            sample_tokens: 48,
        }
    }
}
