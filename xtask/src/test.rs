//! `cargo xtask test`: everything that must hold before a change lands.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::command::{cargo, fetch, step};

/// The criterion benches, as `benches/Cargo.toml` names them.
const BENCHES: [&str; 4] = ["kernels", "train_step", "pipeline", "collectives"];

/// Features that need Open MPI.
const MPI: &str = "internevo-cli/mpi,internevo-parallel/mpi";

/// Features that need a Vulkan device; Mesa's software one will do.
const GPU: &str = "internevo-kernels/wgpu,internevo-kernels/codegen";

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
    let mut features = Vec::new();
    for (feature, what, lacking) in [
        (MPI, "everything with a process per rank", without_mpi()),
        (GPU, "kernels on a GPU", without_vulkan()),
    ] {
        match lacking {
            None => features.push(feature),
            Some(reason) => println!("── skipped: {what}: {reason}"),
        }
    }
    let features = (!features.is_empty()).then(|| format!("--features={}", features.join(",")));
    if !args.tests_only {
        step("format", cargo().args(["fmt", "--all", "--check"]))?;
        let mut lints = cargo();
        lints.args(["clippy", "--locked", "--workspace", "--all-targets"]).args(&features);
        step("lints", lints.args(["--", "-D", "warnings"]))?;
    }
    let mut tests = cargo();
    step("tests and documentation examples", tests.args(["test", "--locked", "--workspace"]).args(&features))?;
    // The whole workspace again, so that the features of its dependencies, and with them their builds, stay the same.
    let benches = BENCHES.iter().flat_map(|name| ["--bench", name]);
    let mut once = cargo();
    step("benches, one iteration each", once.args(["test", "--locked", "--workspace"]).args(&features).args(benches))
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
