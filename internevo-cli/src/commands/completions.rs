//! `internevo completions bash > /etc/bash_completion.d/internevo`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{Cli, context::Context};

/// Prints a shell completion script.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo completions bash > ~/.local/share/bash-completion/completions/internevo")]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// Runs the command.
    ///
    /// # Errors
    /// When the script is not UTF-8, which no generator writes.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "internevo", &mut script);
        let script = String::from_utf8(script)?;
        cx.emit(&serde_json::json!({ "shell": self.shell.to_string(), "script": script }), || script.clone())
    }
}
