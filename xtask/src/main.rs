//! `cargo xtask <task>`: thin wrappers that spawn cargo, so that nobody has to remember flags. The tasks are the files here.
//!
//! The trainer is never linked in: it is built in release mode by the cargo that this program spawns.

mod bench;
mod check;
mod codegen;
mod command;
mod peers;
mod peers_data;
mod test;
mod train;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of the internevo workspace", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the corpus, train, export and report: `internevo train` in release mode, with the same arguments
    #[command(disable_help_flag = true)]
    Train(train::Args),
    /// Format check, lints as errors, unit, integration and documentation tests
    Test(test::Args),
    /// Format, lints, documentation and, where cargo-deny is installed, licences
    Check,
    /// Criterion benches; arguments go to `cargo bench -p benches`
    #[command(disable_help_flag = true)]
    Bench(bench::Args),
    /// Compile every GPU kernel for CUDA, without a GPU, and check its machine code against `benches/CODEGEN.md`
    Codegen(codegen::Args),
    /// Compare with other systems on this machine (PyTorch, transformers); sets them up first
    Peers(peers::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Train(args) => train::run(args),
        Task::Test(args) => test::run(&args),
        Task::Check => check::run(),
        Task::Bench(args) => bench::run(args),
        Task::Codegen(args) => codegen::run(&args),
        Task::Peers(args) => peers::run(args),
    }
}
