//! What all ranks of a run share, read-only, and what they return.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    batch::PackedBatch,
    config::Config,
    flops::{self, AttentionCount, ModelShape},
    layout::{GroupKind, ParallelLayout},
    metrics::StepRecord,
};
use internevo_data::loader::PackedLoader;
use internevo_model::ModelSpec;

use super::state::Progress;
use crate::{interrupt::Interrupt, terminal::Console};

/// A training run, ready to start.
pub struct Job<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// Who belongs to which group.
    pub layout: ParallelLayout,
    /// The model.
    pub spec: ModelSpec,
    /// Training micro-batches.
    pub train: Arc<PackedLoader>,
    /// Validation micro-batches, if there is a validation split.
    pub valid: Option<Arc<PackedLoader>>,
    /// The run directory.
    pub run_dir: &'a Path,
    /// Where its checkpoints are.
    pub checkpoints: PathBuf,
    /// Where to begin when `checkpoints` is empty.
    pub warm_start: Option<WarmStart>,
    /// Hash of what decides the numbers; stored in every checkpoint.
    pub settings_hash: String,
    /// Plugins that take part, `kind name crate version`; stored in every checkpoint.
    pub plugins: Vec<String>,
    /// Signals.
    pub interrupt: Interrupt,
    /// The terminal.
    pub console: Console,
}

/// A checkpoint that a new run begins with.
#[derive(Clone, Debug)]
pub struct WarmStart {
    /// Folder of the checkpoint.
    pub checkpoint: PathBuf,
    /// Take the whole state, not only the parameters.
    pub everything: bool,
}

/// What a rank returns.
pub struct Trained {
    /// All parameters, on the logging rank; empty on the others.
    pub params: Vec<f32>,
    /// How far the run is.
    pub progress: Progress,
    /// Someone stopped it before the last step.
    pub stopped: bool,
}

impl Job<'_> {
    /// Steps of the run.
    pub fn total_steps(&self) -> u64 {
        self.config.data.total_steps as u64
    }

    /// Tokens of one step on all ranks.
    pub fn tokens_per_step(&self) -> u64 {
        let data = &self.config.data;
        (data.seq_len * data.micro_bsz * data.micro_num * self.layout.size(GroupKind::Data)) as u64
    }

    /// The part of a step's record that follows from its duration; `batches` are this rank's.
    pub fn speed(&self, batches: &[PackedBatch], seconds: f64) -> StepRecord {
        let ranks = self.layout.world() as f64;
        let tgs = self.tokens_per_step() as f64 / (ranks * seconds);
        let shape = ModelShape::new(&self.config.model, self.spec.vocab);
        let flops = |batch: &PackedBatch| {
            let squares = flops::segment_squares(&batch.cu_seqlens);
            flops::model_flops(&shape, batch.tokens.len() as u64, squares, AttentionCount::Causal)
        };
        // The ranks of a tensor group share these micro-batches.
        let flops = batches.iter().map(flops).sum::<f64>() / self.layout.size(GroupKind::Tensor) as f64;
        let tflops = flops / seconds / 1e12;
        let peak = self.config.monitor.peak_tflops;
        StepRecord { tgs, tflops, mfu: (peak > 0.0).then(|| tflops / peak), time: seconds, ..StepRecord::default() }
    }
}
