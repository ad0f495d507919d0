//! `cargo xtask test`: everything that must hold before a change lands.

use crate::command::{cargo, step};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Skip formatting and lints
    #[arg(long)]
    tests_only: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !args.tests_only {
        step("format", cargo().args(["fmt", "--all", "--check"]))?;
        let lints = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        step("lints", cargo().args(lints))?;
    }
    step("tests and documentation examples", cargo().args(["test", "--locked", "--workspace"]))?;
    step("benches, one iteration each", cargo().args(["test", "--locked", "--package", "benches", "--benches"]))
}
