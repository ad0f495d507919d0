//! Playing the ranks of a job: all of them as threads of this process, or one of them in a process that a launcher started.
//! What a rank does is in `rank.rs`.

use std::{path::Path, sync::Arc};

use internevo_parallel::comm::{CommError, Communicator, LocalOptions, RunError, run_ranks_with, write_flight};

use super::{
    job::{Job, Trained},
    rank,
};
use crate::error::chain;

/// Runs every rank, each on a thread of its own; returns what the logging rank gave.
///
/// # Errors
/// The first rank that failed, named unless it is alone.
pub fn as_threads(job: &Job<'_>) -> anyhow::Result<Trained> {
    let launch = &job.config.launch;
    let options =
        LocalOptions { timeout: std::time::Duration::from_secs(launch.timeout), recorded_calls: launch.recorded_calls };
    let outcome = run_ranks_with(job.layout.world(), options, |world| one(job, world));
    let mut ranks = outcome.map_err(|failure| match failure {
        RunError::Failed { error, .. } if job.layout.world() == 1 => error,
        RunError::Failed { rank, error } => error.context(format!("rank {rank} failed")),
        other => anyhow::anyhow!(chain(&other.into())),
    })?;
    Ok(ranks.swap_remove(0))
}

/// One rank, with its own log; when it fails, with its flight record in `logs/`.
///
/// # Errors
/// What stopped it.
pub fn one(job: &Job<'_>, world: Arc<dyn Communicator>) -> anyhow::Result<Trained> {
    let dispatch = crate::logging::rank_dispatch(&job.console, job.run_dir, world.rank())?;
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info!(world = world.size(), process = std::process::id(), "rank starts");
        let outcome = rank::train(job, world.clone());
        match &outcome {
            Ok(trained) => tracing::info!(step = trained.progress.step, stopped = trained.stopped, "rank ends"),
            // The terminal gets it once, at the end of the command.
            Err(error) => {
                tracing::info!("rank failed: {}", chain(error));
                let failure = error.downcast_ref::<CommError>();
                save_flight(job.run_dir, &*world, failure);
            }
        }
        outcome
    })
}

/// Writes what this rank knows of every rank's last calls to `logs/flight-rank-N.jsonl`.
fn save_flight(run_dir: &Path, world: &dyn Communicator, failure: Option<&CommError>) {
    let flight = failure.map_or_else(|| world.flight(), |error| error.flight().to_vec());
    if let Err(error) = write_flight(&run_dir.join("logs"), world.rank(), &flight, failure) {
        tracing::warn!(%error, "the flight record cannot be written");
    }
}
