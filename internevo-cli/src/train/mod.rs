//! A whole training job, in the order in which it happens: corpus → which run → model → ranks → outputs.
//!
//! | file | holds |
//! |---|---|
//! | `check.rs` | what is refused before anything is written |
//! | `rank.rs` | **the loop**: one rank's steps |
//! | `job.rs` | what all ranks share |
//! | `evaluate.rs` | validation loss and unigram entropy |
//! | `record.rs`, `throughput.rs` | log line, sinks, remaining time |
//! | `state.rs` | what a checkpoint holds; saving and restoring |
//! | `resume.rs` | which run a launch continues |
//! | `control.rs` | signals and the stop file |
//! | `outputs.rs` | export, samples, summary, report |

mod check;
mod control;
mod evaluate;
mod job;
mod outputs;
mod rank;
mod record;
mod resume;
pub(crate) mod state;
mod throughput;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    config::{Config, Resolved},
    layout::{GroupKind, ParallelLayout},
    storage,
};
use internevo_data::loader::{LoaderConfig, LoaderError, PackedLoader};
use internevo_model::ModelSpec;
use internevo_parallel::comm::{RunError, run_ranks};

pub use self::resume::ResumeRequest;
use self::{
    job::{Job, Trained, WarmStart},
    outputs::Outputs,
    resume::Start,
};
use crate::{
    commands::plugins,
    context::Context,
    corpus::{self, Prepared},
    error::{OrUser as _, chain},
    interrupt::Interrupt,
    phases::{Outcome, Phases},
    run_dir, system, terminal, user_bail,
};

/// Trains as `resolved` says.
///
/// # Errors
/// The user's mistakes before anything is written; afterwards whatever stopped the job, with how to continue it.
pub fn run(cx: &Context, resolved: &Resolved, resume: &ResumeRequest) -> anyhow::Result<()> {
    let config = &resolved.config;
    let layout = check::check(resolved)?;
    let interrupt = Interrupt::install(&cx.console, "the same command continues where it stopped");
    let threads = use_threads(config.launch.threads);
    let mut phases = Phases::new(&cx.console);
    let data = corpus::prepare(cx, config, &interrupt, &mut phases)?;

    let settings = resume::settings(config, &data.identity);
    let job_folder = Path::new(&config.run_dir).join(&config.job_name);
    let start = resume::decide(resume, &job_folder, &settings, config.data.total_steps)?;
    if let Start::Finished(run) = &start {
        cx.console.note(&format!(
            "all {} steps were done before; --steps N goes on, --resume never starts anew",
            config.data.total_steps
        ));
        return outputs::show_finished(cx, run);
    }
    let run = match &start {
        Start::Continue(run) => run.clone(),
        _ => run_dir::create(&job_folder)?,
    };
    let _lock = run_dir::lock(&run)?;
    prepare_run(resolved, &run, &settings, &data, threads)?;

    let job = make_job(cx, config, layout, &data, &run, &start, settings, interrupt)?;
    announce(cx, &job, &start);
    let outputs = Outputs { cx, job: &job, data: &data, threads };
    let trained = phases.run("training", || train(&job))?;
    if trained.stopped {
        outputs.write_summary(&phases, &trained.progress, false, &[])?;
        anyhow::bail!(
            "stopped after step {} of {}, everything is saved; continue with: {}",
            trained.progress.step,
            job.total_steps(),
            command_line()
        );
    }
    outputs.finish(&mut phases, &trained)
}

/// Sizes the pool that all ranks share; returns its threads.
fn use_threads(wanted: usize) -> usize {
    let threads = if wanted == 0 { system::cores() } else { wanted };
    if let Err(reason) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        tracing::warn!("launch.threads has no effect: {reason}");
    }
    rayon::current_num_threads()
}

fn prepare_run(
    resolved: &Resolved,
    run: &Path,
    settings: &serde_json::Value,
    data: &Prepared,
    threads: usize,
) -> anyhow::Result<()> {
    if let Some(tokenizer) = &data.tokenizer {
        crate::model_source::copy_tokenizer(tokenizer, run)?;
    }
    storage::write_atomic(run.join(run_dir::ENV_FILE), serde_json::to_vec_pretty(&system::environment(threads))?)?;
    storage::write_atomic(run.join(resume::SETTINGS_FILE), serde_json::to_vec_pretty(settings)?)?;
    // Last: a folder with this file is a run.
    storage::write_atomic(run.join(run_dir::CONFIG_FILE), resolved.to_commented_toml())?;
    run_dir::mark_latest(run)
}

fn make_job<'a>(
    cx: &Context,
    config: &'a Config,
    layout: ParallelLayout,
    data: &Prepared,
    run: &'a Path,
    start: &Start,
    settings: serde_json::Value,
    interrupt: Interrupt,
) -> anyhow::Result<Job<'a>> {
    let spec = ModelSpec::from_config(&config.model, data.vocab_size, config.data.seq_len).or_user()?;
    let shape = LoaderConfig {
        seq_len: config.data.seq_len,
        micro_bsz: config.data.micro_bsz,
        seed: config.seed,
        min_length: config.data.min_length,
        pack_sample_into_one: config.data.pack_sample_into_one,
        shuffle: true,
    };
    let train = PackedLoader::new(Arc::clone(&data.train), shape.clone()).or_user()?.with_vocab_size(spec.vocab);
    let valid = valid_loader(cx, data, shape, spec.vocab)?;
    let warm_start = match start {
        Start::NewFrom(checkpoint) => Some(WarmStart { checkpoint: checkpoint.clone(), everything: true }),
        Start::New => configured_warm_start(config)?,
        _ => None,
    };
    Ok(Job {
        checkpoints: checkpoints_folder(config, run),
        console: cx.console.clone(),
        run_dir: run,
        config,
        layout,
        spec,
        train: Arc::new(train),
        valid,
        warm_start,
        settings_hash: blake3::hash(settings.to_string().as_bytes()).to_hex().to_string(),
        plugins: plugins_in_use(config)?,
        interrupt,
    })
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
        "filter" => {
            let pipeline = &config.pipeline;
            [&pipeline.clean, &pipeline.safe, &pipeline.quality].into_iter().flatten().any(|f| f == name)
        }
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

fn announce(cx: &Context, job: &Job<'_>, start: &Start) {
    let data = &job.config.data;
    let rows = [
        ("run", job.run_dir.display().to_string()),
        ("model", model_in_words(&job.spec)),
        ("layout", format!("{} on {} threads", outputs::layout_in_words(&job.layout), rayon::current_num_threads())),
        (
            "batch",
            format!(
                "{} tokens per step ({} rows of {} x {} micro-batches x {} ranks)",
                terminal::count(job.tokens_per_step()),
                data.micro_bsz,
                data.seq_len,
                data.micro_num,
                job.layout.size(GroupKind::Data)
            ),
        ),
        (
            "length",
            format!(
                "{} steps, {} tokens; one epoch is {} tokens",
                job.total_steps(),
                terminal::count(job.total_steps() * job.tokens_per_step()),
                terminal::count(job.train.tokens())
            ),
        ),
        (
            "start",
            match start {
                Start::New => "new run".to_owned(),
                Start::NewFrom(checkpoint) => format!("new run from {}", checkpoint.display()),
                Start::Continue(_) | Start::Finished(_) => "continues this run".to_owned(),
            },
        ),
    ];
    let rows: Vec<[String; 2]> = rows.map(|(name, value)| [name.to_owned(), value]).into();
    cx.console.note(terminal::table(&rows).trim_end());
}

fn model_in_words(spec: &ModelSpec) -> String {
    let ModelSpec { hidden, layers, heads, kv_heads, ffn, vocab, .. } = spec;
    let parameters = terminal::count(spec.parameter_count() as u64);
    format!(
        "{parameters} parameters: hidden {hidden}, {layers} layers, {heads} heads / {kv_heads} kv heads, ffn {ffn}, \
         vocabulary {vocab}"
    )
}

/// Runs the ranks, each on a thread of its own.
fn train(job: &Job<'_>) -> anyhow::Result<Outcome<Trained>> {
    let _polling = job.interrupt.polling();
    let body = |world: Arc<dyn internevo_parallel::comm::Communicator>| {
        let dispatch = crate::logging::rank_dispatch(&job.console, job.run_dir, world.rank())?;
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(world = world.size(), process = std::process::id(), "rank starts");
            let outcome = rank::train(job, world);
            match &outcome {
                Ok(trained) => tracing::info!(step = trained.progress.step, stopped = trained.stopped, "rank ends"),
                // The terminal gets it once, at the end of the command.
                Err(error) => tracing::info!("rank failed: {}", chain(error)),
            }
            outcome
        })
    };
    let outcome = run_ranks(job.layout.world(), body);
    let mut ranks = outcome.map_err(|failure| match failure {
        RunError::Failed { error, .. } if job.layout.world() == 1 => error,
        RunError::Failed { rank, error } => error.context(format!("rank {rank} failed")),
        other => anyhow::anyhow!(chain(&other.into())),
    })?;
    let trained = ranks.swap_remove(0);
    let note = match &trained.progress.last {
        Some(last) => format!("step {} of {}, loss {:.4} nats", last.step, job.total_steps(), last.loss),
        None => "no step was made".to_owned(),
    };
    Ok(Outcome::fresh(trained, note))
}

/// This process's command line, as a shell takes it.
fn command_line() -> String {
    let quoted = |arg: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    std::env::args().map(quoted).collect::<Vec<_>>().join(" ")
}
