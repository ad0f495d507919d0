//! What the user sees: phases, notes, warnings and progress on stderr, results on stdout. Nothing here knows what a command
//! does. Numbers for people are in `format`, bars and plain progress lines in `progress`.

mod format;
mod progress;

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
};

use indicatif::{MultiProgress, ProgressDrawTarget};

pub use format::{bytes, count, duration, table};
pub use progress::Progress;

/// How much is printed, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsoleOptions {
    /// Only warnings, errors and results.
    pub quiet: bool,
    /// Neither colours nor bold text; `NO_COLOR` in the environment has the same effect.
    pub no_color: bool,
}

/// The terminal. Cheap to clone; lines printed through it never tear a progress bar.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    quiet: bool,
    color: bool,
    /// Bars are drawn: stderr is a terminal and `--quiet` was not given.
    live: bool,
    bars: MultiProgress,
}

impl Console {
    /// A console on this process's stderr and stdout.
    pub fn new(options: ConsoleOptions) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let no_color = options.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let live = terminal && !options.quiet;
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let shared = Shared {
            quiet: options.quiet,
            color: terminal && !no_color,
            live,
            bars: MultiProgress::with_draw_target(target),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The title of a phase.
    pub fn header(&self, text: &str) {
        if !self.shared.quiet {
            self.error_line(&self.paint("1;36", &format!("== {text} ==")));
        }
    }

    /// One line about what happens.
    pub fn note(&self, text: &str) {
        if !self.shared.quiet {
            self.error_line(text);
        }
    }

    /// Something the user should know although the command goes on; printed under `--quiet` too.
    pub fn warn(&self, text: &str) {
        self.error_line(&format!("{} {text}", self.paint("1;33", "warning:")));
    }

    /// Why the command failed.
    pub fn error(&self, text: &str) {
        self.error_line(&format!("{} {text}", self.paint("1;31", "error:")));
    }

    /// A bar on a terminal, a plain line now and then elsewhere. `unit` is what is counted: `documents`, `steps`, …
    pub fn progress(&self, label: &str, total: Option<u64>, unit: &'static str) -> Progress {
        Progress::new(self, label, total, unit)
    }

    /// A result, on stdout. A reader that closed the pipe is not an error.
    pub fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        if !text.ends_with('\n') {
            let _ = stdout.write_all(b"\n");
        }
        let _ = stdout.flush();
    }

    /// Part of a result, on stdout, without a line end: text that appears as it is generated.
    pub fn print_part(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes());
        let _ = stdout.flush();
    }

    /// Whether bars are drawn, so that plain lines would only repeat them.
    pub fn is_live(&self) -> bool {
        self.shared.live
    }

    /// Whether notes are suppressed.
    pub fn is_quiet(&self) -> bool {
        self.shared.quiet
    }

    fn bars(&self) -> &MultiProgress {
        &self.shared.bars
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.shared.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn error_line(&self, text: &str) {
        // A closed stderr must not end a training run.
        self.shared.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }
}
