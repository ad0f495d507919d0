//! `cargo xtask codegen`: the machine code of every GPU kernel, checked without a GPU. Installs NVIDIA's compiler from Python
//! wheels into `<target>/codegen`, once, and runs the checker of `benches/gpu`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::command::{cargo, step, workspace_root};

/// The wheels, pinned: another compiler gives other machine code. The headers of cccl have a version of their own.
const WHEELS: [&str; 6] = [
    "nvidia-cuda-nvrtc==13.5.37",
    "nvidia-cuda-nvcc==13.5.37",
    "nvidia-cuda-runtime==13.5.37",
    "nvidia-cuda-crt==13.5.37",
    "nvidia-cuda-nvdisasm==13.5.37",
    "nvidia-cuda-cccl==13.3.5.0.6",
];

/// The checker, under the features that the tests on Vulkan have, so that both share a build.
const CHECKER: [&str; 5] = ["--locked", "--package=gpu-benches", "--features=codegen,wgpu", "--bin=codegen", "--quiet"];

/// What to do with the table.
#[derive(clap::Args)]
pub struct Args {
    /// Write `benches/CODEGEN.md` instead of comparing with it
    #[arg(long)]
    write: bool,
    /// Print JSON instead of Markdown
    #[arg(long)]
    json: bool,
    /// Only the calls whose name holds this text; rules are checked, the committed table is not
    #[arg(long, value_name = "TEXT", conflicts_with = "write")]
    only: Option<String>,
    /// Add a kernel that spills: the gate must fail
    #[arg(long, conflicts_with = "write")]
    plant_spill: bool,
    /// Run the checker's own tests first, the one with a planted spill included
    #[arg(long)]
    test: bool,
    /// Fail where the compiler cannot be installed, instead of saying so and ending well
    #[arg(long)]
    require: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = target().join("codegen");
    let toolkit = match toolkit(&folder) {
        Ok(toolkit) => toolkit,
        Err(error) if args.require => return Err(error),
        Err(error) => {
            eprintln!("── skipped: machine code of the GPU kernels: {error:#}");
            return Ok(());
        }
    };
    if args.test {
        let mut tests = cargo();
        tests.arg("test").args(CHECKER).env("INTERNEVO_CUDA_TOOLKIT", &toolkit);
        step("tests of the gate", &mut tests)?;
    }
    let mut gate = cargo();
    gate.arg("run").args(CHECKER).arg("--");
    gate.arg("--toolkit").arg(&toolkit).arg("--cache").arg(folder.join("cache"));
    for (flag, given) in [("--write", args.write), ("--json", args.json), ("--plant-spill", args.plant_spill)] {
        if given {
            gate.arg(flag);
        }
    }
    if let Some(only) = &args.only {
        gate.args(["--only", only]);
    }
    if !gate.status().context("cannot start cargo")?.success() {
        bail!("the machine code of the GPU kernels is not as it must be");
    }
    Ok(())
}

/// The target folder of this workspace.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// The folder with the compiler: the one that `INTERNEVO_CUDA_TOOLKIT` names, or wheels in a virtual environment in `folder`.
fn toolkit(folder: &Path) -> anyhow::Result<PathBuf> {
    if let Some(toolkit) = std::env::var_os("INTERNEVO_CUDA_TOOLKIT") {
        return Ok(toolkit.into());
    }
    let environment = folder.join("venv");
    // Says which wheels are there, and is written last.
    let ready = environment.join("wheels");
    if std::fs::read_to_string(&ready).is_ok_and(|wheels| wheels == WHEELS.join("\n")) {
        return in_environment(&environment);
    }
    eprintln!("── installing NVIDIA's compiler into {} (once)", environment.display());
    quiet(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin").join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]).args(WHEELS);
    quiet(&mut pip)?;
    let toolkit = in_environment(&environment)?;
    std::fs::write(&ready, WHEELS.join("\n"))?;
    Ok(toolkit)
}

/// Where the wheels of an environment lie: `lib/python3.N/site-packages/nvidia/cu13`.
fn in_environment(environment: &Path) -> anyhow::Result<PathBuf> {
    let libraries = environment.join("lib");
    let pythons = std::fs::read_dir(&libraries).with_context(|| format!("cannot list {}", libraries.display()))?;
    let toolkits = pythons.flatten().map(|python| python.path().join("site-packages/nvidia/cu13"));
    toolkits.into_iter().find(|t| t.exists()).with_context(|| format!("no nvidia/cu13 in {}", libraries.display()))
}

/// Runs a program; its error output becomes the error.
fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name:?}"))?;
    if !output.status.success() {
        bail!("{name:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
