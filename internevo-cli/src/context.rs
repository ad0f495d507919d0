//! What every command gets: the terminal, and whether its result is JSON.

use serde::Serialize;

use crate::{
    cli::GlobalArgs,
    terminal::{Console, ConsoleOptions},
};

/// The surroundings of a command. Passed by reference; nothing in it changes.
#[derive(Clone, Debug)]
pub struct Context {
    /// The terminal.
    pub console: Console,
    /// The result is one JSON document.
    pub json: bool,
}

impl Context {
    /// The context that the global flags ask for.
    pub fn new(global: &GlobalArgs) -> Self {
        Self {
            console: Console::new(ConsoleOptions { quiet: global.quiet, no_color: global.no_color }),
            json: global.json,
        }
    }

    /// The same for a rank that has nothing to say but its errors.
    #[cfg(feature = "mpi")]
    #[must_use]
    pub fn quiet(&self) -> Self {
        Self { console: Console::new(ConsoleOptions { quiet: true, no_color: true }), json: false }
    }

    /// Prints a result: `value` as JSON under `--json`, else the text.
    ///
    /// # Errors
    /// When `value` cannot be serialised.
    pub fn emit(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json {
            self.console.print(&serde_json::to_string_pretty(value)?);
        } else {
            self.console.print(&text());
        }
        Ok(())
    }
}
