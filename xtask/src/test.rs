//! `cargo xtask test`: everything that must hold before a change lands.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::command::{cargo, fetch, step};

/// The criterion benches, as `benches/Cargo.toml` names them.
const BENCHES: [&str; 4] = ["kernels", "train_step", "pipeline", "collectives"];

/// Features that need Open MPI.
const MPI: &str = "--features=internevo-cli/mpi,internevo-parallel/mpi";

/// The kernels on a Vulkan device; Mesa's software one will do. A selection of its own, so that the rest of the workspace is built
/// and tested as a default build has it, without GPU code.
const GPU: [&str; 5] = [
    "--package=internevo-kernels",
    "--package=gpu-benches",
    "--features=internevo-kernels/wgpu,internevo-kernels/codegen,gpu-benches/wgpu,gpu-benches/codegen",
    "--lib",
    "--bins",
];

/// The kernels on cubecl's CPU runtime, one unit per cube: bf16 without a GPU. Its units are threads: the emulation of tensor cores,
/// and the products of cubek, want many that meet all the time, and would take hours.
const CPU: [&str; 6] = [
    "--package=internevo-kernels",
    "--features=internevo-kernels/cpu",
    "--lib",
    "--",
    "--skip=emulated",
    "--skip=linear",
];

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Only the kernels, on cubecl's CPU runtime; needs LLVM (CONTRIBUTING.md)
    #[arg(long, conflicts_with = "tests_only")]
    cpu: bool,
    /// Skip formatting and lints
    #[arg(long)]
    tests_only: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.cpu {
        return step("kernels on cubecl's CPU runtime", cargo().args(["test", "--locked"]).args(CPU));
    }
    // A test builds a package outside the workspace, offline.
    fetch("tests that build offline may fail");
    let features = match without_mpi() {
        None => Some(MPI),
        Some(reason) => {
            println!("── skipped: everything with a process per rank: {reason}");
            None
        }
    };
    let lints = |selection: &[&str]| {
        let mut lints = cargo();
        lints.args(["clippy", "--locked"]).args(selection).args(["--", "-D", "warnings"]);
        step("lints", &mut lints)
    };
    if !args.tests_only {
        step("format", cargo().args(["fmt", "--all", "--check"]))?;
        lints(&["--workspace", "--all-targets"].into_iter().chain(features).collect::<Vec<_>>())?;
    }
    let mut tests = cargo();
    step("tests and documentation examples", tests.args(["test", "--locked", "--workspace"]).args(features))?;
    // The whole workspace again, so that the features of its dependencies, and with them their builds, stay the same.
    let benches = BENCHES.iter().flat_map(|name| ["--bench", name]);
    let mut once = cargo();
    step("benches, one iteration each", once.args(["test", "--locked", "--workspace"]).args(features).args(benches))?;
    if let Some(reason) = without_vulkan() {
        println!("── skipped: kernels on a GPU: {reason}");
        return Ok(());
    }
    if !args.tests_only {
        lints(&[&GPU[..], &["--tests"]].concat())?;
    }
    step("kernels on a GPU", cargo().args(["test", "--locked"]).args(GPU))
}

/// Why the tests with a process per rank cannot be built and run here, if they cannot.
fn without_mpi() -> Option<String> {
    for (program, package) in [("mpicc", "libopenmpi-dev"), ("mpirun", "openmpi-bin")] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Some(format!("there is no `{program}` (Debian: {package})"));
        }
    }
    let has_library = |folder: &Path| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name());
        names.into_iter().any(|name| name.to_string_lossy().starts_with("libclang"))
    };
    let versions = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|entry| entry.path().join("lib")).collect();
    folders.extend(std::env::var_os("LIBCLANG_PATH").map(Into::into));
    folders.extend(["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"].map(Into::into));
    let found = folders.iter().any(|folder| has_library(folder));
    (!found).then(|| "there is no libclang, which reads MPI's headers (Debian: libclang-dev)".to_owned())
}

/// Why kernels cannot run on a Vulkan device here, if they cannot.
fn without_vulkan() -> Option<String> {
    let is_driver = |folder: &str| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name());
        names.into_iter().any(|name| name.to_string_lossy().ends_with(".json"))
    };
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| std::env::var_os(name).is_some());
    let installed = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
    let found = named || installed.into_iter().any(is_driver);
    (!found).then(|| "there is no Vulkan driver (Debian: mesa-vulkan-drivers and libvulkan1)".to_owned())
}
