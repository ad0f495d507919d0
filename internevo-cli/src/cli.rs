//! The command line as it is typed: global flags and the list of commands. What a command does is in its file of `commands/`.

use clap::{Args, Parser, Subcommand};

use crate::{
    commands::{
        completions::Completions, config::ConfigCommand, data::DataCommand, doctor::Doctor, eval::Eval, export::Export,
        generate::Generate, import::Import, parity::Parity, plugins::Plugins, report::Report,
        tokenizer::TokenizerCommand, train::Train,
    },
    context::Context,
};

/// `internevo …`
#[derive(Debug, Parser)]
#[command(
    name = "internevo",
    version,
    about = "Pre-trains InternLM2 models, from raw text to a Hugging Face export.",
    after_help = "Examples:\n  internevo train                          the whole job, small enough for a laptop\n  internevo train --preset small           a night on a laptop\n  internevo doctor                         what this machine has and lacks\n  internevo generate --model runs/tiny/latest --prompt \"pub fn \"",
    max_term_width = 120
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Heading of the flags that every command has, apart from its own.
const GLOBAL: &str = "Global options";

/// Flags of every command.
#[derive(Args, Clone, Copy, Debug)]
pub struct GlobalArgs {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Print warnings, errors and results only
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    pub quiet: bool,
    /// No colours (`NO_COLOR` does the same)
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model; without data, build the corpus first
    Train(Train),
    /// Corpus pipeline: all of it, one stage, or a look at documents
    #[command(subcommand)]
    Data(DataCommand),
    /// Train, apply or undo a tokenizer
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Write a checkpoint as a Hugging Face folder
    Export(Export),
    /// Read a Hugging Face folder into a checkpoint
    Import(Import),
    /// Generate text
    Generate(Generate),
    /// Loss, perplexity and bits per byte on a text or token store
    Eval(Eval),
    /// Train a small model on many layouts and compare each with one rank
    Parity(Parity),
    /// Write report.html of a run
    Report(Report),
    /// List registered plugins
    Plugins(Plugins),
    /// Show, describe or import a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check what this machine has and lacks
    Doctor(Doctor),
    /// Print a shell completion script
    Completions(Completions),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever stopped it; [`crate::error::exit_code`] says whose mistake it is.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Train(c) => c.run(cx),
            Self::Data(c) => c.run(cx),
            Self::Tokenizer(c) => c.run(cx),
            Self::Export(c) => c.run(cx),
            Self::Import(c) => c.run(cx),
            Self::Generate(c) => c.run(cx),
            Self::Eval(c) => c.run(cx),
            Self::Parity(c) => c.run(cx),
            Self::Report(c) => c.run(cx),
            Self::Plugins(c) => c.run(cx),
            Self::Config(c) => c.run(cx),
            Self::Doctor(c) => c.run(cx),
            Self::Completions(c) => c.run(cx),
        }
    }
}
