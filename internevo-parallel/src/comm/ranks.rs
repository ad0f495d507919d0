//! Ranks as threads of this process: spawning them, catching what goes wrong, ending the others.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{Communicator, LocalOptions, local_world_with};

/// Stack of a rank's thread: autodiff recurses over the tape. Address space only, until it is used.
const STACK_BYTES: usize = 64 << 20;

/// Why a run of ranks failed: the rank that failed first, not those that were ended because of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E: fmt::Debug + fmt::Display> {
    /// A rank returned an error.
    #[error("rank {rank}: {error}")]
    Failed {
        /// The rank.
        rank: usize,
        /// What it returned.
        error: E,
    },
    /// A rank panicked.
    #[error("rank {rank} panicked: {message}")]
    Panicked {
        /// The rank.
        rank: usize,
        /// The panic's message.
        message: String,
    },
    /// The system gave no thread.
    #[error("cannot start the thread of rank {rank}: {source}")]
    Spawn {
        /// The rank.
        rank: usize,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Runs `body` once per rank, each on its own thread with its own communicator, and returns the results in rank order.
///
/// # Errors
/// The first rank that failed. The others are ended at their next communication.
pub fn run_ranks<T, E>(
    ranks: usize,
    body: impl Fn(Arc<dyn Communicator>) -> Result<T, E> + Sync,
) -> Result<Vec<T>, RunError<E>>
where
    T: Send,
    E: fmt::Debug + fmt::Display + Send,
{
    run_ranks_with(ranks, LocalOptions::default(), body)
}

/// [`run_ranks`] with settings of the local world.
///
/// # Errors
/// As [`run_ranks`].
pub fn run_ranks_with<T, E>(
    ranks: usize,
    options: LocalOptions,
    body: impl Fn(Arc<dyn Communicator>) -> Result<T, E> + Sync,
) -> Result<Vec<T>, RunError<E>>
where
    T: Send,
    E: fmt::Debug + fmt::Display + Send,
{
    let first_failure = Mutex::new(None);
    let fail = |error: RunError<E>, comm: &dyn Communicator| {
        let mut first = first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match &error {
            RunError::Failed { error, .. } => error.to_string(),
            other => other.to_string(),
        };
        first.get_or_insert(error);
        drop(first);
        comm.abort(&text);
    };
    let run = |rank: usize, comm: Arc<dyn Communicator>| match catch_unwind(AssertUnwindSafe(|| body(comm.clone()))) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            fail(RunError::Failed { rank, error }, &*comm);
            None
        }
        Err(panic) => {
            fail(RunError::Panicked { rank, message: panic_message(&*panic) }, &*comm);
            None
        }
    };
    let results: Vec<Option<T>> = thread::scope(|scope| {
        let spawn = |(rank, comm): (usize, Arc<dyn Communicator>)| {
            let (builder, run, body_comm) = (thread::Builder::new(), &run, comm.clone());
            let builder = builder.name(format!("rank-{rank}")).stack_size(STACK_BYTES);
            let handle = builder.spawn_scoped(scope, move || run(rank, body_comm));
            handle.map_err(|source| fail(RunError::Spawn { rank, source }, &*comm)).ok()
        };
        let handles: Vec<_> = local_world_with(ranks, options).into_iter().enumerate().map(spawn).collect();
        handles.into_iter().map(|handle| handle?.join().ok()?).collect()
    });
    match first_failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(results.into_iter().map(|r| r.expect("a rank without a failure has a result")).collect()),
    }
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
