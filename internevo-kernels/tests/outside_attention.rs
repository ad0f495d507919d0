//! Somebody else's program: its package builds against `internevo-kernels` alone, outside the workspace, and runs.

use std::{fs, path::Path, process::Command};

#[test]
fn a_program_outside_the_workspace_runs_flash_attention_forward_and_backward() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = crate_dir.join("examples/outside_attention");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("outside_attention");
    // A copy, so that building writes nothing into the source tree; this workspace's lock file, so that it builds offline.
    let package = target.join("package");
    fs::create_dir_all(package.join("src")).expect("folder");
    let manifest = fs::read_to_string(example.join("Cargo.toml")).expect("manifest");
    let absolute = manifest.replace("path = \"../..\"", &format!("path = {:?}", crate_dir.display().to_string()));
    assert_ne!(manifest, absolute, "the example names internevo-kernels by its path");
    fs::write(package.join("Cargo.toml"), absolute).expect("manifest");
    fs::copy(example.join("src/main.rs"), package.join("src/main.rs")).expect("source");
    fs::copy(crate_dir.join("../Cargo.lock"), package.join("Cargo.lock")).expect("lock file");

    let output = Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .expect("cargo runs");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    assert_eq!(out.trim(), "output [300, 8, 64], dq [300, 8, 64], dk [300, 2, 64], dv [300, 2, 64]");
}
