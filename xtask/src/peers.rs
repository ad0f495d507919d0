//! `cargo xtask peers <peer>`: the same work done by other systems on this machine, side by side. Not part of CI: the peers
//! are heavy (PyTorch alone is gigabytes). They are installed once into `<target>/peers`.

mod kernels;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::{
    command::{cargo, step, workspace_root},
    peers_data,
};

/// Python packages of the virtual environment.
const PYTHON_PACKAGES: [&str; 3] = ["torch", "transformers", "safetensors"];

/// Which peer.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// Training step of the same decoder in PyTorch on the CPU, in turns with ours, at the same number of threads
    Train {
        #[command(flatten)]
        model: Model,
        /// Turns; the ratio of each is printed, and their median
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Timed steps per turn
        #[arg(long, default_value_t = 8)]
        steps: usize,
    },
    /// Each operation in PyTorch on the CPU, in turns with ours, and its share of this machine's copy and product rates
    Kernels(kernels::Args),
    /// Exports load in transformers, with the same logits and tokens
    Hf,
    /// Sharded checkpoints load in torch.distributed.checkpoint
    Dcp,
    /// Tokenizer, filters and deduplication beside tokenizers, tiktoken, datatrove, rensa and datasketch
    Data(peers_data::Args),
}

/// The model whose step or operations are measured.
#[derive(clap::Args)]
struct Model {
    /// `tiny`, `base` (hidden 256 and 512, 4 layers), or models of `5m`, `30m`, `125m` parameters
    #[arg(long, default_value = "tiny")]
    shape: String,
    /// Tokens of a step; the shape's own (1024) if left out
    #[arg(long)]
    tokens: Option<usize>,
    /// Threads of both sides
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Model {
    /// What both measured programs are started with.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--shape".to_owned(), self.shape.clone()];
        arguments.extend(["--threads".to_owned(), self.threads.to_string()]);
        arguments.extend(self.tokens.into_iter().flat_map(|tokens| ["--tokens".to_owned(), tokens.to_string()]));
        arguments
    }

    fn json(&self) -> String {
        let tokens = self.tokens.map_or_else(|| "null".to_owned(), |tokens| tokens.to_string());
        format!("{{\"shape\":\"{}\",\"tokens\":{tokens},\"threads\":{}}}", self.shape, self.threads)
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.peer {
        Peer::Train { model, rounds, steps } => train(&python()?, &model, rounds, steps),
        Peer::Kernels(args) => kernels::run(&python()?, &args),
        Peer::Data(args) => peers_data::run(&args),
        Peer::Hf => {
            let golden = workspace_root().join("internevo-model/tests/golden/transformers_logits.json");
            let mut test = test_with(&python()?, "internevo-model", "hf_parity");
            step("export against transformers", test.env("INTERNEVO_GOLDEN_OUT", golden))
        }
        Peer::Dcp => {
            let mut test = test_with(&python()?, "internevo-parallel", "torch_dcp");
            step("checkpoint against torch.distributed.checkpoint", &mut test)
        }
    }
}

/// An integration test that asks the peers' Python.
fn test_with(python: &Path, package: &str, test: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--locked", "--package", package, "--test", test, "--", "--nocapture"]);
    command.env("INTERNEVO_PEERS_PYTHON", python);
    command
}

/// The Python of the peers' virtual environment, made on the first call.
fn python() -> anyhow::Result<PathBuf> {
    if let Some(python) = std::env::var_os("INTERNEVO_PEERS_PYTHON") {
        return Ok(python.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let environment = target.join("peers").join("venv");
    let python = environment.join("bin").join("python");
    let ready = Command::new(&python)
        .args(["-c", "import torch, transformers, safetensors"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !ready {
        println!("── setting up {} (several gigabytes, once)", environment.display());
        step("virtual environment", Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        step("packages", Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    }
    Ok(python)
}

/// An example of the benches, built in release mode, to be run.
fn example(name: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--locked", "--release", "--package", "benches", "--example", name, "--"]);
    command
}

fn train(python: &Path, model: &Model, rounds: usize, steps: usize) -> anyhow::Result<()> {
    step("build", cargo().args(["build", "--locked", "--release", "--package", "benches", "--example", "train_step"]))?;
    let mut arguments = model.arguments();
    arguments.extend(["--steps".to_owned(), steps.to_string()]);
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let ours = tokens_per_second(example("train_step").args(&arguments))?;
        let mut theirs = Command::new(python);
        theirs.arg(workspace_root().join("xtask/peers/train_step.py")).args(&arguments);
        let theirs = tokens_per_second(&mut theirs)?;
        println!("round {round}: internevo {ours:.0} tokens/s, torch {theirs:.0} tokens/s, ratio {:.2}", ours / theirs);
        ratios.push(ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    let Model { shape, threads, .. } = model;
    println!("median ratio {:.2} ({shape}, f32, {threads} threads)", ratios[ratios.len() / 2]);
    Ok(())
}

/// Runs a program whose last line is `tokens_per_second <number>`.
fn tokens_per_second(command: &mut Command) -> anyhow::Result<f64> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot start the measured program")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{:?} failed ({}): {text}", command.get_program(), output.status);
    }
    let last = text.lines().last().unwrap_or_default();
    let number = last.strip_prefix("tokens_per_second ").and_then(|n| n.trim().parse().ok());
    number.with_context(|| format!("expected `tokens_per_second <number>`, found `{last}`"))
}
