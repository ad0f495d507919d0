//! `cargo xtask peers <peer>`: the same work done by other systems on this machine, side by side. Not part of CI: the peers
//! are heavy (PyTorch alone is gigabytes). They are installed once into `<target>/peers`.

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
        /// Threads of both
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Turns; the ratio of each is printed, and their median
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Timed steps per turn
        #[arg(long, default_value_t = 8)]
        steps: usize,
        /// Shape: `tiny` (the default preset's model, 1024 tokens) or `base` (hidden 512, 1024 tokens)
        #[arg(long, default_value = "tiny")]
        shape: String,
    },
    /// Exports load in transformers, with the same logits and tokens
    Hf,
    /// Sharded checkpoints load in torch.distributed.checkpoint
    Dcp,
    /// Tokenizer, filters and deduplication beside tokenizers, tiktoken, datatrove, rensa and datasketch
    Data(peers_data::Args),
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.peer {
        Peer::Data(args) => peers_data::run(&args),
        Peer::Train { threads, rounds, steps, shape } => train(&python()?, threads, rounds, steps, &shape),
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

fn train(python: &Path, threads: usize, rounds: usize, steps: usize, shape: &str) -> anyhow::Result<()> {
    step("build", cargo().args(["build", "--locked", "--release", "--package", "benches", "--example", "train_step"]))?;
    let shared = [("--shape", shape.to_owned()), ("--threads", threads.to_string()), ("--steps", steps.to_string())];
    let arguments: Vec<String> = shared.iter().flat_map(|(k, v)| [(*k).to_owned(), v.clone()]).collect();
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let mut ours = cargo();
        ours.args(["run", "--quiet", "--locked", "--release", "--package", "benches", "--example", "train_step", "--"]);
        let ours = tokens_per_second(ours.args(&arguments))?;
        let mut theirs = Command::new(python);
        theirs.arg(workspace_root().join("xtask/peers/train_step.py")).args(&arguments);
        let theirs = tokens_per_second(&mut theirs)?;
        println!("round {round}: internevo {ours:.0} tokens/s, torch {theirs:.0} tokens/s, ratio {:.2}", ours / theirs);
        ratios.push(ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
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
