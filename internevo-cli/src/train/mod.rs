//! A whole training job, in the order in which it happens: corpus → which run → model → ranks → outputs.
//!
//! | file | holds |
//! |---|---|
//! | `check.rs` | what is refused before anything is written |
//! | `session.rs` | which data, which run; the outputs at the end |
//! | `rank.rs` | **the loop**: one rank's steps |
//! | `ranks.rs`, `processes.rs` | ranks as threads of this process; a process per rank |
//! | `dry.rs` | what one rank of any world would send |
//! | `job.rs` | what all ranks share |
//! | `evaluate.rs` | validation loss and unigram entropy |
//! | `record.rs`, `throughput.rs` | log line, sinks, remaining time |
//! | `state.rs` | what a checkpoint holds; saving and restoring |
//! | `resume.rs` | which run a launch continues |
//! | `control.rs` | signals and the stop file |
//! | `outputs.rs` | export, samples, summary, report |

mod check;
mod control;
mod dry;
mod evaluate;
mod job;
mod outputs;
#[cfg(feature = "mpi")]
mod processes;
mod rank;
mod ranks;
mod record;
mod resume;
mod session;
pub(crate) mod state;
mod throughput;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    config::{Config, FILTER_STAGES, Resolved},
    layout::ParallelLayout,
};
use internevo_data::loader::{LoaderConfig, LoaderError, PackedLoader};
use internevo_model::ModelSpec;

pub use self::resume::ResumeRequest;
use self::{job::WarmStart, resume::Start, session::Session};
use crate::{
    commands::plugins, context::Context, corpus::Prepared, error::OrUser as _, run_dir, system, terminal, user_bail,
};

/// Trains as `resolved` says.
///
/// # Errors
/// The user's mistakes before anything is written; afterwards whatever stopped the job, with how to continue it.
pub fn run(cx: &Context, resolved: &Resolved, resume: &ResumeRequest) -> anyhow::Result<()> {
    let layout = check::check(resolved)?;
    match resolved.config.launch.communicator.as_str() {
        "mpi" => as_processes(cx, resolved, resume, layout),
        "dry" => dry::run(cx, &resolved.config, &layout),
        _ => as_threads(cx, resolved, resume, layout),
    }
}

/// All ranks in this process.
fn as_threads(cx: &Context, resolved: &Resolved, resume: &ResumeRequest, layout: ParallelLayout) -> anyhow::Result<()> {
    let threads = use_threads(resolved.config.launch.threads);
    let mut session = Session::begin(cx, resolved, resume, threads)?;
    if let Start::Finished(run) = &session.start {
        return session.show_finished(run);
    }
    let mut phases = session.take_phases();
    let job = session.job(layout)?;
    session.announce(&job);
    let trained = session.train(&job, &mut phases, || ranks::as_threads(&job))?;
    session.finish(&job, &mut phases, &trained)
}

#[cfg(feature = "mpi")]
use processes::run as as_processes;

/// This program cannot talk to MPI.
#[cfg(not(feature = "mpi"))]
fn as_processes(_: &Context, _: &Resolved, _: &ResumeRequest, _: ParallelLayout) -> anyhow::Result<()> {
    user_bail!(
        "launch.communicator: this program was built without MPI; build it with `--features mpi` (Open MPI and libclang)"
    )
}

/// Sizes the pool that all ranks share; returns its threads.
fn use_threads(wanted: usize) -> usize {
    let threads = if wanted == 0 { system::cores() } else { wanted };
    if let Err(reason) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        tracing::warn!("launch.threads has no effect: {reason}");
    }
    rayon::current_num_threads()
}

/// The validation micro-batches; a split that does not fill one row is worth a warning, not the end of the job.
fn valid_loader(
    cx: &Context,
    data: &Prepared,
    shape: LoaderConfig,
    vocab: usize,
) -> anyhow::Result<Option<Arc<PackedLoader>>> {
    let Some(store) = &data.valid else { return Ok(None) };
    match PackedLoader::new(Arc::clone(store), shape) {
        Ok(valid) => Ok(Some(Arc::new(valid.with_vocab_size(vocab)))),
        Err(too_small @ LoaderError::TooSmall { .. }) => {
            cx.console.warn(&format!("no validation: {too_small}"));
            Ok(None)
        }
        Err(error) => Err(error).or_user(),
    }
}

/// The plugins that this configuration names.
fn plugins_in_use(config: &Config) -> anyhow::Result<Vec<String>> {
    let named = |kind: &str, name: &str| match kind {
        "optimizer" => config.optimizer.kind == name,
        "strategy" => config.parallel.tensor.mode == name,
        "lr_schedule" => config.lr_scheduler.kind == name,
        "sink" => config.monitor.sinks.iter().any(|s| s == name),
        "filter" => FILTER_STAGES.iter().any(|stage| config.pipeline.all_filters(stage).any(|f| f == name)),
        _ => false,
    };
    let all = plugins::list()?.into_iter().filter(|p| named(p.kind, p.name));
    Ok(all.map(|p| format!("{} {} {} {}", p.kind, p.name, p.crate_name, p.version)).collect())
}

/// `ckpt.load_ckpt_folder`: a checkpoint, or a folder of which the newest complete one is taken.
fn configured_warm_start(config: &Config) -> anyhow::Result<Option<WarmStart>> {
    let folder = local_path(&config.ckpt.load_ckpt_folder);
    if folder.as_os_str().is_empty() {
        return Ok(None);
    }
    let has = |what: &str| config.ckpt.load_ckpt_content.iter().any(|c| c == what);
    let everything = has("all") || (has("model") && has("optimizer") && has("sampler") && has("scheduler"));
    if !everything && !has("model") {
        user_bail!("ckpt.load_ckpt_content: it must name `all` or `model`");
    }
    if !everything && (has("optimizer") || has("sampler") || has("scheduler")) {
        user_bail!("ckpt.load_ckpt_content: either `all`, or `model` alone: half of a state cannot be continued");
    }
    let checkpoint = crate::model_source::find_checkpoint(&folder)?;
    Ok(Some(WarmStart { checkpoint, everything }))
}

fn checkpoints_folder(config: &Config, run: &Path) -> PathBuf {
    let folder = local_path(&config.ckpt.save_ckpt_folder);
    if folder.as_os_str().is_empty() {
        return run.join(run_dir::CHECKPOINTS);
    }
    // Runs must not mix in one folder: the newest checkpoint there would be another run's.
    folder.join(run.file_name().unwrap_or_default())
}

/// A path with or without InternEvo's `local:` prefix.
fn local_path(text: &str) -> PathBuf {
    PathBuf::from(text.strip_prefix("local:").unwrap_or(text))
}

fn model_in_words(spec: &ModelSpec) -> String {
    let ModelSpec { hidden, layers, heads, kv_heads, ffn, vocab, .. } = spec;
    let parameters = terminal::count(spec.parameter_count() as u64);
    format!(
        "{parameters} parameters: hidden {hidden}, {layers} layers, {heads} heads / {kv_heads} kv heads, ffn {ffn}, \
         vocabulary {vocab}"
    )
}

/// This process's command line, as a shell takes it.
fn command_line() -> String {
    let quoted = |arg: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    std::env::args().map(quoted).collect::<Vec<_>>().join(" ")
}
