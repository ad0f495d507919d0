#![doc = include_str!("../README.md")]

pub mod cli;
pub mod commands;
mod config_args;
pub mod context;
mod corpus;
pub mod error;
mod interrupt;
mod logging;
mod model_source;
pub mod parity;
mod phases;
#[cfg(test)]
mod plugin_tests;
mod plugins;
pub mod report;
mod run_dir;
mod system;
pub mod terminal;
mod train;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use serde_json::json;

pub use cli::Cli;
pub use commands::plugins::list as list_plugins;
use context::Context;

/// Runs the command line of this process. The body of the `internevo` binary and of every binary that adds plugins to it.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs `args`, the program's name first: 0 = done, 2 = the user's mistake, 1 = anything else.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => {
            // `--help` and `--version` come here too, on stdout and with code 0.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(error::EXIT_USER));
        }
    };
    let cx = Context::new(&cli.global);
    logging::install(&cx.console);
    match cli.command.run(&cx) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is::<error::Silent>() => ExitCode::from(error::EXIT_FAILURE),
        Err(failure) => {
            let (text, code) = (error::chain(&failure), error::exit_code(&failure));
            cx.console.error(&text);
            if cx.json {
                cx.console.print(&json!({ "error": text, "exit_code": code }).to_string());
            }
            ExitCode::from(code)
        }
    }
}
