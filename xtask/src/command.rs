//! Spawning programs: from the workspace root, said aloud, with their failure as ours.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The folder of the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ is a folder of the workspace").to_owned()
}

/// The cargo that runs this program, in the workspace root.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

/// Runs a step of a longer task, printing what it runs.
pub fn step(title: &str, command: &mut Command) -> anyhow::Result<()> {
    println!("── {title}");
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{title}: {:?} failed ({status})", command.get_program());
    }
    Ok(())
}

/// Becomes the command: its signals, output and exit code are the caller's own. Returns only if that is impossible.
pub fn replace(mut command: Command) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        let error = command.exec();
        Err(error).with_context(|| format!("cannot start {:?}", command.get_program()))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        std::process::exit(status.code().unwrap_or(1))
    }
}

/// Downloads every package of `Cargo.lock`, those of other platforms included; says so when some cannot be had.
pub fn fetch(consequence: &str) {
    let fetched = cargo().args(["fetch", "--locked", "--quiet"]).status();
    if !fetched.is_ok_and(|status| status.success()) {
        eprintln!("note: not every package of Cargo.lock can be fetched; {consequence}");
    }
}
