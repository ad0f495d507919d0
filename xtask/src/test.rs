//! `cargo xtask test`: everything that must hold before a change lands.

use crate::command::{cargo, fetch, step};

/// The criterion benches, as `benches/Cargo.toml` names them.
const BENCHES: [&str; 4] = ["kernels", "train_step", "pipeline", "collectives"];

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Skip formatting and lints
    #[arg(long)]
    tests_only: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // A test builds a package outside the workspace, offline.
    fetch("tests that build offline may fail");
    if !args.tests_only {
        step("format", cargo().args(["fmt", "--all", "--check"]))?;
        let lints = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        step("lints", cargo().args(lints))?;
    }
    step("tests and documentation examples", cargo().args(["test", "--locked", "--workspace"]))?;
    // The whole workspace again, so that the features of its dependencies, and with them their builds, stay the same.
    let benches = BENCHES.iter().flat_map(|name| ["--bench", name]);
    step("benches, one iteration each", cargo().args(["test", "--locked", "--workspace"]).args(benches))
}
