//! `cargo xtask bench`: the criterion benches of the folder `benches/`.

use crate::command::{cargo, replace};

/// Arguments of `cargo bench -p benches`, for example `--bench kernels -- attention`.
#[derive(clap::Args)]
pub struct Args {
    /// Passed on unchanged.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["bench", "--locked", "--package", "benches"]).args(args.arguments);
    replace(command)
}
