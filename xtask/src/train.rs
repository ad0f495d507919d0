//! `cargo xtask train`: fetches the locked packages (they are the bundled corpus), then becomes `internevo train`.

use crate::command::{cargo, fetch, replace};

/// Arguments of `internevo train`; `cargo xtask train --help` prints them.
#[derive(clap::Args)]
pub struct Args {
    /// Passed on unchanged.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    fetch("the corpus is made of those that are here");
    let mut command = cargo();
    command.args(["run", "--locked", "--release", "--package", "internevo-cli", "--bin", "internevo", "--", "train"]);
    command.args(args.arguments);
    replace(command)
}
