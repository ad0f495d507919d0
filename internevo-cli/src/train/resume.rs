//! Which run a launch continues, if any. Two launches belong to one run when everything that decides its numbers is equal:
//! model, data, corpus, loss, optimizer, schedules, seed. Layout, length, logging and checkpoint settings may differ.

use std::path::{Path, PathBuf};

use internevo_core::{config::Config, storage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state;
use crate::{error::UserError, report::RunSummary, run_dir, user_bail};

/// Settings file of a run directory; see [`settings`].
pub const SETTINGS_FILE: &str = "settings.json";

/// `--resume`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResumeRequest {
    /// Continue the newest compatible run of the job, or start one.
    Auto,
    /// Start a new run.
    Never,
    /// Continue this run, or start a new one from this checkpoint.
    From(PathBuf),
}

impl std::str::FromStr for ResumeRequest {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "never" => Self::Never,
            path => Self::From(PathBuf::from(path)),
        })
    }
}

/// What a launch does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// A new run.
    New,
    /// A new run whose whole state is taken from a checkpoint.
    NewFrom(PathBuf),
    /// An unfinished run goes on.
    Continue(PathBuf),
    /// A run that already has all its steps and outputs.
    Finished(PathBuf),
}

/// Keys of `model` that say how it is computed, not what.
const LAYOUT_OF_MODEL: [&str; 3] = ["checkpoint", "parallel_output", "embed_split_hidden"];

/// Everything that decides the numbers of a run. `corpus` identifies the training data.
pub fn settings(config: &Config, corpus: &str) -> Value {
    let model_parallel = config.parallel.tensor.size.max(1) * config.parallel.pipeline.size.max(1);
    let data_parallel = (config.launch.ranks / model_parallel).max(1);
    let mut model = json!(config.model);
    if let Some(keys) = model.as_object_mut() {
        LAYOUT_OF_MODEL.iter().for_each(|key| drop(keys.remove(*key)));
    }
    json!({
        "seed": config.seed,
        "corpus": corpus,
        "model": model,
        "data": {
            "seq_len": config.data.seq_len,
            "micro_bsz": config.data.micro_bsz,
            "micro_batches_per_step": config.data.micro_num * data_parallel,
            "min_length": config.data.min_length,
            "pack_sample_into_one": config.data.pack_sample_into_one,
        },
        "clip_grad_norm": config.hybrid_zero_optimizer.clip_grad_norm,
        "reduction": config.hybrid_zero_optimizer.reduction,
        "loss": config.loss,
        "optimizer": config.optimizer,
        "adam": config.adam,
        "lr_scheduler": config.lr_scheduler,
        "beta2_scheduler": config.beta2_scheduler,
        "load_ckpt_folder": config.ckpt.load_ckpt_folder,
    })
}

/// Keys whose values differ, as `model.hidden_size: 64 there, 128 now`.
pub fn differences(there: &Value, now: &Value) -> Vec<String> {
    fn walk(path: &str, there: &Value, now: &Value, out: &mut Vec<String>) {
        match (there, now) {
            (Value::Object(a), Value::Object(b)) => {
                let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), out);
                }
            }
            _ if there == now => {}
            _ => out.push(format!("{path}: {there} there, {now} now")),
        }
    }
    let mut out = Vec::new();
    walk("", there, now, &mut out);
    out
}

/// Decides what this launch does.
///
/// # Errors
/// When a path was named that holds neither a run nor a checkpoint, or a run with other settings.
pub fn decide(request: &ResumeRequest, job_folder: &Path, now: &Value, total_steps: usize) -> anyhow::Result<Start> {
    match request {
        ResumeRequest::Never => Ok(Start::New),
        ResumeRequest::Auto => {
            let compatible =
                run_dir::list(job_folder).into_iter().find(|run| read_settings(run).is_some_and(|s| s == *now));
            Ok(compatible.map_or(Start::New, |run| continued(run, total_steps)))
        }
        ResumeRequest::From(path) if state::is_checkpoint(path) => Ok(Start::NewFrom(path.clone())),
        ResumeRequest::From(path) => {
            let run = run_dir::resolve(path)?;
            let Some(there) = read_settings(&run) else {
                user_bail!("{} has no {SETTINGS_FILE}: it cannot be continued", run.display());
            };
            let differences = differences(&there, now);
            if !differences.is_empty() {
                return Err(UserError::new(format!(
                    "{} was trained with other settings, so it cannot be continued:\n  {}",
                    run.display(),
                    differences.join("\n  ")
                ))
                .into());
            }
            Ok(continued(run, total_steps))
        }
    }
}

fn continued(run: PathBuf, total_steps: usize) -> Start {
    let finished = RunSummary::read(&run).is_ok_and(|s| s.finished && s.steps >= total_steps as u64);
    if finished { Start::Finished(run) } else { Start::Continue(run) }
}

fn read_settings(run: &Path) -> Option<Value> {
    serde_json::from_slice(&storage::read(run.join(SETTINGS_FILE)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job: &Path, settings: &Value, summary: Option<RunSummary>) -> PathBuf {
        let path = run_dir::create(job).expect("run folder");
        storage::write_atomic(path.join(run_dir::CONFIG_FILE), "").expect("config");
        storage::write_atomic(path.join(SETTINGS_FILE), settings.to_string()).expect("settings");
        if let Some(summary) = summary {
            summary.write(&path).expect("summary");
        }
        path
    }

    #[test]
    fn the_newest_run_with_equal_settings_is_continued_and_a_finished_one_is_not_repeated() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let config = Config::default();
        let now = settings(&config, "corpus-1");
        let decide = |total| decide(&ResumeRequest::Auto, dir.path(), &now, total).expect("decision");
        assert_eq!(decide(10), Start::New);
        let done = RunSummary { finished: true, steps: 10, ..RunSummary::default() };
        let older = run(dir.path(), &now, Some(done));
        let other = settings(&Config { seed: 7, ..Config::default() }, "corpus-1");
        run(dir.path(), &other, None);
        assert_eq!(decide(10), Start::Finished(older.clone()));
        assert_eq!(decide(20), Start::Continue(older), "more steps go on");
    }

    #[test]
    fn the_layout_may_change_but_not_the_batch() {
        let one = settings(&Config::default(), "c");
        let mut config = Config::default();
        config.launch.ranks = 2;
        assert_eq!(differences(&one, &settings(&config, "c")), ["data.micro_batches_per_step: 1 there, 2 now"]);
        config.data.micro_num = 2;
        let mut single = Config::default();
        single.data.micro_num = 4;
        assert_eq!(settings(&single, "c"), settings(&config, "c"));
    }

    #[test]
    fn a_named_run_with_other_settings_is_refused_with_every_difference() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut config = Config::default();
        let path = run(dir.path(), &settings(&config, "c"), None);
        config.adam.lr = 0.5;
        config.seed = 3;
        let request = ResumeRequest::From(path);
        let message = decide(&request, dir.path(), &settings(&config, "c"), 10).expect_err("differs").to_string();
        assert!(message.contains("adam.lr") && message.contains("seed: 1024 there, 3 now"), "{message}");
    }
}
