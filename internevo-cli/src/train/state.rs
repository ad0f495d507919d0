//! What a checkpoint holds beside the tensors, and how a run saves and restores its state.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use internevo_core::{
    config::{Config, ParallelConfig},
    layout::{GroupKind, ParallelLayout},
    metrics::StepRecord,
    plugin::Registry,
};
use internevo_data::loader::LoaderState;
use internevo_model::{ModelSpec, param_specs};
use internevo_parallel::{
    ProcessGroups, ShardedOptimizer, StatePlan, ZeroConfig,
    checkpoint::{self, CheckpointState, Content, Found, SaveRequest},
    comm::local_world,
    optimizer::OptimizerChoice,
};
use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::{error::OrUser as _, user_bail};

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens read by all ranks.
    pub consumed_tokens: u64,
    /// Micro-batches read by all ranks.
    pub consumed_micro_batches: u64,
    /// Record of the last step.
    pub last: Option<StepRecord>,
}

/// `trainer` of a checkpoint's `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TrainerState {
    model: ModelSpec,
    #[serde(default)]
    progress: Progress,
    /// Absent in imported weights, which no run has trained yet.
    loader: Option<LoaderState>,
}

impl Progress {
    /// Counts one step of all ranks.
    pub fn advance(&mut self, job: &Job<'_>) {
        self.step += 1;
        self.consumed_tokens += job.tokens_per_step();
        self.consumed_micro_batches += (job.config.data.micro_num * job.layout.size(GroupKind::Data)) as u64;
    }
}

/// Restores the newest whole checkpoint of the run, else the configured start, else nothing. Collective.
///
/// # Errors
/// A checkpoint of another model or other data, or one that cannot be read.
pub fn load(job: &Job<'_>, groups: &ProcessGroups, optimizer: &mut ShardedOptimizer) -> anyhow::Result<Progress> {
    let search = checkpoint::find(&*groups.world, &job.checkpoints)?;
    let speaks = groups.world.rank() == 0;
    for rejected in search.rejected.iter().filter(|_| speaks) {
        tracing::warn!("{} is not used: {}", rejected.path.display(), rejected.why);
    }
    if let Some(found) = search.found {
        let state = checkpoint::load(&found, optimizer, Content::Everything)?;
        if speaks {
            job.console.note(&format!("resuming from {}", found.path().display()));
        }
        return restore(job, &found, &state);
    }
    let Some(start) = &job.warm_start else { return Ok(Progress::default()) };
    let found = checkpoint::verify_together(&*groups.world, &start.checkpoint).or_user()?;
    if speaks {
        job.console.note(&format!("starting from {}", found.path().display()));
    }
    if start.everything {
        let state = checkpoint::load(&found, optimizer, Content::Everything)?;
        return restore(job, &found, &state);
    }
    checkpoint::load(&found, optimizer, Content::Model)?;
    Ok(Progress::default())
}

fn restore(job: &Job<'_>, found: &Found, state: &CheckpointState) -> anyhow::Result<Progress> {
    let trainer = trainer_state(found.path(), state)?;
    let Some(loader) = &trainer.loader else {
        user_bail!(
            "{} holds weights only; take them with ckpt.load_ckpt_content = [\"model\"]",
            found.path().display()
        );
    };
    let consumed_micro_batches = job.train.check(loader).or_user()?;
    Ok(Progress { step: state.step, consumed_micro_batches, ..trainer.progress })
}

fn trainer_state(path: &Path, state: &CheckpointState) -> anyhow::Result<TrainerState> {
    serde_json::from_value(state.trainer.clone())
        .with_context(|| format!("{}/state.json: `trainer` is not one of internevo", path.display()))
}

/// Saves the run's state and removes old checkpoints. Collective.
///
/// # Errors
/// When it cannot be written; older checkpoints are untouched.
pub fn save(
    job: &Job<'_>,
    groups: &ProcessGroups,
    optimizer: &ShardedOptimizer,
    progress: &Progress,
) -> anyhow::Result<()> {
    let loader = Some(job.train.state(progress.consumed_micro_batches));
    let trainer = TrainerState { model: job.spec.clone(), progress: progress.clone(), loader };
    let request = SaveRequest {
        dir: &job.checkpoints,
        step: progress.step,
        config_hash: &job.settings_hash,
        plugins: &job.plugins,
        trainer: &serde_json::to_value(&trainer)?,
    };
    let folder = checkpoint::save(&request, optimizer)?;
    if groups.world.rank() == 0 {
        tracing::info!(step = progress.step, folder = %folder.display(), "checkpoint saved");
        for removed in checkpoint::prune(&job.checkpoints, job.config.ckpt.keep_last)? {
            tracing::info!(folder = %removed.display(), "old checkpoint removed");
        }
    }
    Ok(())
}

/// Whether `path` looks like one checkpoint (and not a folder of them).
pub fn is_checkpoint(path: &Path) -> bool {
    path.join("state.json").is_file() && path.join("manifest.json").is_file()
}

/// Dimensions and parameters of a checkpoint.
///
/// # Errors
/// When it is damaged, or not written by a trainer.
pub fn load_weights(path: &Path) -> anyhow::Result<(ModelSpec, Vec<f32>)> {
    let (state, params) = checkpoint::read_model(path).or_user()?;
    Ok((trainer_state(path, &state).or_user()?.model, params))
}

/// Writes weights that no run has trained as a checkpoint of step 0 below `folder`; returns the checkpoint.
///
/// # Errors
/// When it cannot be written.
pub fn write_weights(folder: &Path, spec: &ModelSpec, params: &[f32]) -> anyhow::Result<PathBuf> {
    let config = Config::default();
    let layout = ParallelLayout::new(&ParallelConfig::default(), 1)?;
    let world = local_world(1).swap_remove(0);
    let groups = ProcessGroups::new(&layout, world)?;
    let choice = OptimizerChoice::from_config(&Registry::collect()?, &config)?;
    let zero = ZeroConfig::from_config(&config)?;
    let plan = StatePlan::replicated(param_specs(spec), layout, config.hybrid_zero_optimizer.reduce_bucket_size)?;
    let optimizer = ShardedOptimizer::new(plan, params.to_vec(), groups, &choice, zero)?;
    let trainer = TrainerState { model: spec.clone(), progress: Progress::default(), loader: None };
    let trainer = serde_json::to_value(&trainer)?;
    let request = SaveRequest { dir: folder, step: 0, config_hash: "", plugins: &[], trainer: &trainer };
    Ok(checkpoint::save(&request, &optimizer)?)
}
