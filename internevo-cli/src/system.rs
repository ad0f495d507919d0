//! The machine: cores, memory, disk, versions. Read from `/proc` and from tools that may be absent; whatever cannot be found
//! out is `None`, never an error.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

/// CPU threads this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Resident memory of this process, GiB; 0 where it cannot be read.
pub fn resident_gib() -> f64 {
    status_kib("/proc/self/status", "VmRSS:").map_or(0.0, |kib| kib as f64 / (1024.0 * 1024.0))
}

/// Memory of the machine in bytes: total and available.
pub fn memory() -> Option<(u64, u64)> {
    let read = |key| status_kib("/proc/meminfo", key).map(|kib| kib * 1024);
    Some((read("MemTotal:")?, read("MemAvailable:")?))
}

/// Free bytes on the file system of `path`, which need not exist yet.
pub fn free_disk(path: &Path) -> Option<u64> {
    let existing = std::path::absolute(path).ok()?;
    let existing = existing.ancestors().find(|p| p.exists())?;
    let answer = Command::new("df").arg("-Pk").arg(existing).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let kib: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib * 1024)
}

/// The processor's name.
pub fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Vector extensions that decide how fast the CPU kernels are.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        [
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
        .collect()
    }
    #[cfg(target_arch = "aarch64")]
    {
        vec!["neon"]
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Vec::new()
    }
}

/// First line that `program` prints with `args`, if it runs.
pub fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let answer = Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(answer.stdout).ok()?;
    text.lines().next().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty())
}

/// What `env.json` of a run directory holds: enough to tell later why two runs differ.
pub fn environment(threads: usize) -> Value {
    json!({
        "internevo": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
        "working_directory": std::env::current_dir().ok(),
        "started": jiff::Timestamp::now().to_string(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": cores(),
        "threads": threads,
        "memory_bytes": memory().map(|m| m.0),
        "rustc": first_line("rustc", &["--version"]),
        "git_revision": first_line("git", &["rev-parse", "HEAD"]),
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
    })
}

fn status_kib(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
