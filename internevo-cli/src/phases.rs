//! The phases of a job: a title when one begins, its time, and whether an earlier launch had finished it.

use std::time::Instant;

use crate::{
    report::Phase,
    terminal::{self, Console},
};

/// Collects the phases of a launch.
#[derive(Clone, Debug)]
pub struct Phases {
    console: Console,
    done: Vec<Phase>,
}

/// What a phase gave.
pub struct Outcome<T> {
    /// Its result.
    pub value: T,
    /// An earlier launch had finished it.
    pub reused: bool,
    /// One line about the result.
    pub note: String,
}

impl Phases {
    /// No phases yet.
    pub fn new(console: &Console) -> Self {
        Self { console: console.clone(), done: Vec::new() }
    }

    /// Runs one phase.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn run<T>(&mut self, name: &str, body: impl FnOnce() -> anyhow::Result<Outcome<T>>) -> anyhow::Result<T> {
        let started = Instant::now();
        self.console.header(name);
        let outcome = body()?;
        let seconds = started.elapsed().as_secs_f64();
        let how = if outcome.reused { "reused".to_owned() } else { terminal::duration(seconds) };
        self.console.note(&format!("{} ({how})", outcome.note));
        self.done.push(Phase { name: name.to_owned(), seconds, reused: outcome.reused });
        Ok(outcome.value)
    }

    /// The phases so far.
    pub fn done(&self) -> &[Phase] {
        &self.done
    }
}

impl<T> Outcome<T> {
    /// The result of work that this launch did.
    pub fn fresh(value: T, note: impl Into<String>) -> Self {
        Self { value, reused: false, note: note.into() }
    }

    /// A result that was there already.
    pub fn reused(value: T, note: impl Into<String>) -> Self {
        Self { value, reused: true, note: note.into() }
    }
}
