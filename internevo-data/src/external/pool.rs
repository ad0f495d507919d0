//! The processes of a filter: one is taken for each batch of documents, a new one is started while there are fewer than allowed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::worker::{Talk, Worker};
use crate::{Document, Verdict};

/// Processes that run the same command.
pub(super) struct Pool {
    command: Vec<String>,
    /// Most processes; 0: one for each thread.
    limit: usize,
    talk: Talk,
    state: Mutex<State>,
    /// A process came back, or all have failed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    started: usize,
    failure: Option<String>,
}

impl Pool {
    /// Starts the first process. The error names the command.
    pub fn start(command: Vec<String>, limit: usize, talk: Talk) -> Result<Self, String> {
        let first = Worker::start(&command, talk)?;
        let state = Mutex::new(State { idle: vec![first], started: 1, failure: None });
        Ok(Self { command, limit, talk, state, changed: Condvar::new() })
    }

    /// The verdicts on documents; `None` after the first failure of any process.
    pub fn judge_all(&self, documents: &[&Document]) -> Option<Vec<Verdict>> {
        let mut worker = self.take()?;
        match worker.judge_all(documents) {
            Ok(verdicts) => {
                self.state().idle.push(worker);
                self.changed.notify_one();
                Some(verdicts)
            }
            Err((id, reason)) => {
                self.fail(format!("`{}`, asked about document `{id}`: {reason}", self.command.join(" ")));
                None
            }
        }
    }

    /// Why judging ended.
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    fn take(&self) -> Option<Worker> {
        let limit = if self.limit == 0 { rayon::current_num_threads() } else { self.limit };
        let mut state = self.state();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(worker) = state.idle.pop() {
                return Some(worker);
            }
            if state.started < limit {
                state.started += 1;
                drop(state);
                return Worker::start(&self.command, self.talk).map_err(|reason| self.fail(reason)).ok();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first failure is the one that is told: later ones follow from it.
    fn fail(&self, reason: String) {
        self.state().failure.get_or_insert(reason);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
