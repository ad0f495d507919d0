//! Where runs live: `<run_dir>/<job>/<UTC time>/`, the link `latest` beside them, and the lock that keeps two processes from
//! training in one folder. What the files in a run mean is decided elsewhere.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use internevo_core::storage::{self, StorageError};

use crate::{error::UserError, user_bail};

/// Resolved configuration of a run, each value with the layer it came from.
pub const CONFIG_FILE: &str = "config.toml";
/// Versions, machine and command line of the newest launch.
pub const ENV_FILE: &str = "env.json";
/// One object per step.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Generated samples.
pub const SAMPLES_FILE: &str = "samples.json";
/// Folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// Folder of the Hugging Face export.
pub const EXPORT: &str = "export/hf";
/// Name of the link to the newest run of a job.
pub const LATEST: &str = "latest";

const LOCK_FILE: &str = ".lock";

/// Makes a new run folder under `job_folder`, named by the time, and points `latest` at it.
///
/// # Errors
/// When the folder cannot be made.
pub fn create(job_folder: &Path) -> anyhow::Result<PathBuf> {
    storage::create_dir_all(job_folder)?;
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ").to_string();
    for attempt in 1..1000 {
        let name = if attempt == 1 { time.clone() } else { format!("{time}-{attempt}") };
        let path = job_folder.join(&name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StorageError::at("create", path)(e).into()),
        }
    }
    anyhow::bail!("{} has 999 runs of the second {time}", job_folder.display())
}

/// Points `latest` of the job at `run`.
///
/// # Errors
/// When the link cannot be replaced.
pub fn mark_latest(run: &Path) -> anyhow::Result<()> {
    let (Some(job), Some(name)) = (run.parent(), run.file_name()) else { return Ok(()) };
    let link = job.join(LATEST);
    let fresh = job.join(format!(".{LATEST}.{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    #[cfg(unix)]
    std::os::unix::fs::symlink(name, &fresh).map_err(StorageError::at("create", &fresh))?;
    #[cfg(not(unix))]
    storage::write_atomic(&fresh, name.to_string_lossy().as_bytes())?;
    fs::rename(&fresh, &link).map_err(StorageError::at("replace", &link))?;
    Ok(())
}

/// Runs of a job, newest first. Folders without a `config.toml` are no runs.
pub fn list(job_folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(job_folder) else { return Vec::new() };
    let mut runs: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n != LATEST) && p.join(CONFIG_FILE).is_file())
        .collect();
    runs.sort_by_key(|run| std::cmp::Reverse(age_key(run)));
    runs
}

/// Sorts `2026-11-24T02-03-04Z-10` behind `…Z-9`.
fn age_key(run: &Path) -> (String, usize) {
    let name = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.split_once("Z-") {
        Some((time, attempt)) => (format!("{time}Z"), attempt.parse().unwrap_or(0)),
        None => (name, 1),
    }
}

/// The run directory that a user's path means: a run, a job's folder (its newest run) or a `latest` link.
///
/// # Errors
/// When there is no run at `path`.
pub fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.exists() {
        user_bail!("{} does not exist", path.display());
    }
    if path.is_file() && path.file_name().is_some_and(|n| n == LATEST) {
        // File systems without links: the file names the folder.
        let name = storage::read_to_string(path)?;
        return resolve(&path.with_file_name(name.trim()));
    }
    if path.join(CONFIG_FILE).is_file() {
        return fs::canonicalize(path).with_context(|| format!("cannot resolve {}", path.display()));
    }
    match list(path).into_iter().next() {
        Some(run) => Ok(run),
        None => user_bail!("{} is not a run directory: it has no {CONFIG_FILE}", path.display()),
    }
}

/// Holds a folder for this process until dropped; a killed process frees it too.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes a run folder for this process.
///
/// # Errors
/// A [`UserError`] when another process has it.
pub fn lock(run: &Path) -> anyhow::Result<Lock> {
    let (path, file) = open_lock(run)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(UserError::new(format!(
            "another process is training in {}; wait for it, or start a second run with --resume never",
            run.display()
        ))
        .into()),
        Err(TryLockError::Error(e)) => Err(StorageError::at("lock", path)(e).into()),
    }
}

/// Takes a folder, waiting for a process that has it; `waiting` is called once if there is one.
///
/// # Errors
/// When the folder cannot be locked.
pub fn lock_waiting(folder: &Path, waiting: impl FnOnce()) -> anyhow::Result<Lock> {
    let (path, file) = open_lock(folder)?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        waiting();
        file.lock().map_err(StorageError::at("lock", path))?;
    }
    Ok(Lock { _file: file })
}

fn open_lock(folder: &Path) -> anyhow::Result<(PathBuf, File)> {
    storage::create_dir_all(folder)?;
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).append(true).open(&path).map_err(StorageError::at("open", &path))?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job: &Path) -> PathBuf {
        let path = create(job).expect("run folder");
        storage::write_atomic(path.join(CONFIG_FILE), "").expect("config");
        path
    }

    #[test]
    fn the_newest_run_comes_first_even_within_one_second() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let runs: Vec<PathBuf> = (0..12).map(|_| run(dir.path())).collect();
        mark_latest(&runs[11]).expect("link");
        let listed = list(dir.path());
        assert_eq!(listed.len(), 12);
        assert_eq!(listed.first(), runs.last());
        assert_eq!(resolve(&dir.path().join(LATEST)).expect("latest"), fs::canonicalize(&runs[11]).expect("path"));
        assert_eq!(resolve(dir.path()).expect("job"), runs[11]);
    }

    #[test]
    fn a_run_is_held_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let held = lock(dir.path()).expect("free");
        let message = lock(dir.path()).expect_err("held").to_string();
        assert!(message.contains("another process"), "{message}");
        drop(held);
        lock(dir.path()).expect("free again");
    }
}
