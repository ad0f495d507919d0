//! One task's progress: a bar on a terminal; elsewhere a plain line when enough time has passed.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Console, format};

/// Time between two plain lines of one task.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of one task; may be advanced from any thread. Dropping it removes the bar.
#[derive(Debug)]
pub struct Progress {
    console: Console,
    label: String,
    unit: &'static str,
    bar: ProgressBar,
    total: AtomicU64,
    position: AtomicU64,
    last_line: Mutex<Instant>,
}

impl Progress {
    pub(super) fn new(console: &Console, label: &str, total: Option<u64>, unit: &'static str) -> Self {
        let bar = if console.is_live() {
            let bar = console.bars().add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(label.to_owned());
        let progress = Self {
            console: console.clone(),
            label: label.to_owned(),
            unit,
            bar,
            total: AtomicU64::new(0),
            position: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
        };
        progress.restyle(total.unwrap_or(0));
        progress
    }

    /// Sets or corrects the total; 0 = unknown.
    pub fn set_total(&self, total: u64) {
        if self.total.swap(total, Ordering::Relaxed) != total {
            self.restyle(total);
        }
    }

    /// `done` of the total are done.
    pub fn set(&self, done: u64) {
        self.position.store(done, Ordering::Relaxed);
        self.bar.set_position(done);
        self.plain_line();
    }

    /// Text behind the bar, for example the current loss.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn restyle(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        let template = if total > 0 {
            self.bar.set_length(total);
            format!("{{prefix:10}} [{{bar:30}}] {{human_pos}}/{{human_len}} {} {{eta}} {{msg}}", self.unit)
        } else {
            format!("{{prefix:10}} {{spinner}} {{human_pos}} {} {{elapsed}} {{msg}}", self.unit)
        };
        let style = ProgressStyle::with_template(&template).expect("the template names known keys");
        self.bar.set_style(style.progress_chars("=> "));
    }

    fn plain_line(&self) {
        if self.console.is_live() || self.console.is_quiet() {
            return;
        }
        let Ok(mut last) = self.last_line.try_lock() else { return };
        if last.elapsed() < PLAIN_INTERVAL {
            return;
        }
        *last = Instant::now();
        let done = format::count(self.position.load(Ordering::Relaxed));
        let of = match self.total.load(Ordering::Relaxed) {
            0 => String::new(),
            total => format!(" of {}", format::count(total)),
        };
        self.console.note(&format!("{}: {done}{of} {}", self.label, self.unit));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}
