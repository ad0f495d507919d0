//! `external`: a filter that is a program of your own, in any language, run as several processes that read documents as JSON lines and
//! answer with a verdict a line.
//!
//! ```toml
//! [pipeline]
//! clean = ["gopher_quality", "external"]
//!
//! [pipeline.filter.external]
//! command = ["python3", "my_filter.py"]
//! ```
//!
//! The program gets one document a line on its standard input, `{"id": …, "text": …}` with all other fields of the document, and
//! answers each one, in order and before it waits for the next, with one line on its standard output: `{"id": …, "keep": true}` or
//! `{"id": …, "keep": false, "reason": "too_long", "value": 4711}`. It must flush each answer; messages belong on its standard error,
//! whose end is shown when it fails. At the end of its input it should end. `examples/external_filter` has a filter in Python.
//!
//! A process has up to `window` documents before it at a time: while it judges one, the next ones are on their way and its answers are
//! read, so that neither side waits for the other. No more than that is ever held of a process, however much or little it says. A run
//! keeps as many processes busy as it has threads.
//!
//! The same document must always get the same answer: resumed runs and the promise that output does not depend on threads rest on it.
//! A process that ends, does not answer in time or answers with anything else stops the run with an error that names the command and
//! the first document without an answer.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the filter and its settings |
//! | `pool.rs` | the processes |
//! | `worker.rs` | one of them |

mod pool;
mod worker;

use std::time::Duration;

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{pool::Pool, worker::Talk};
use crate::{Document, Features, Filter, FilterContext, FilterPlugin, Verdict, register_filter};

/// Settings of `external`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    /// The program and its arguments, for example `["python3", "my_filter.py"]`.
    pub command: Vec<String>,
    /// Most processes; 0: one for each thread.
    pub workers: usize,
    /// Longest time between two answers, seconds; the first one of a process includes its start.
    pub timeout_seconds: f64,
    /// Documents that a process has before it at a time, at most.
    pub window: usize,
}

impl Default for ExternalConfig {
    fn default() -> Self {
        Self { command: Vec::new(), workers: 0, timeout_seconds: 60.0, window: 32 }
    }
}

/// The filter.
pub struct External {
    pool: Pool,
    fingerprint: String,
    window: usize,
}

impl Plugin for External {
    const NAME: &'static str = "external";
    const ABOUT: &'static str = "Asks a program of your own, which reads and writes JSON lines; for filters in Python.";
    type Config = ExternalConfig;
}

impl FilterPlugin for External {
    fn build(config: ExternalConfig, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        if config.command.is_empty() {
            return Err(Self::refused(
                "command is empty: name a program, for example `[\"python3\", \"my_filter.py\"]`",
            ));
        }
        let timeout = Duration::try_from_secs_f64(config.timeout_seconds).ok().filter(|timeout| !timeout.is_zero());
        let timeout = timeout.ok_or_else(|| Self::refused(format!("timeout_seconds is {}", config.timeout_seconds)))?;
        if config.window == 0 {
            return Err(Self::refused("window is 0: a process needs a document to judge"));
        }
        let (fingerprint, window) = (fingerprint(&config.command), config.window);
        // The first process starts now: a program that cannot be started is a mistake in the configuration.
        let pool = Pool::start(config.command, config.workers, Talk { window, timeout }).map_err(Self::refused)?;
        Ok(Box::new(Self { pool, fingerprint, window }))
    }
}

register_filter!(External);

/// A hash of the files that the command names: a script that was edited judges anew.
fn fingerprint(command: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    for content in command.iter().filter_map(|argument| std::fs::read(argument).ok()) {
        hasher.update(&(content.len() as u64).to_le_bytes()).update(&content);
    }
    hasher.finalize().to_hex().to_string()
}

impl Filter for External {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        self.judge_all(&[document]).remove(0)
    }

    /// Once the program has failed, nothing is judged any more: [`Filter::failure`] stops the run.
    fn judge_all(&self, documents: &[&Features<'_>]) -> Vec<Verdict> {
        let documents: Vec<&Document> = documents.iter().map(|document| document.document()).collect();
        self.pool.judge_all(&documents).unwrap_or_else(|| vec![Verdict::Keep; documents.len()])
    }

    fn window(&self) -> usize {
        self.window
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn failure(&self) -> Option<String> {
        self.pool.failure()
    }
}
