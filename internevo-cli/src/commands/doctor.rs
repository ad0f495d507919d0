//! `internevo doctor` says what this machine has and lacks: 0 when a default run would work, 1 when not.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::{context::Context, error::Silent, system, terminal};

/// Checks what this machine has and lacks.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo doctor\n  internevo doctor --json | jq '.checks[] | select(.state != \"ok\")'"
)]
pub struct Doctor {
    /// Folder that runs would be written to
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub run_dir: PathBuf,
}

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// A default run works without it.
    Missing,
    /// A default run would fail.
    Failed,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { name, state, found: found.into() }
    }
}

/// Disk that the default run writes, with room to spare.
const NEEDED_DISK: u64 = 1_000_000_000;
/// Memory that the default run uses, with room to spare.
const NEEDED_MEMORY: u64 = 2_000_000_000;

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// When a check failed that a default run depends on.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let checks = self.checks();
        let failed = checks.iter().filter(|c| c.state == State::Failed).count();
        cx.emit(&serde_json::json!({ "checks": checks, "failed": failed }), || show(&checks))?;
        if failed > 0 {
            // What is on stdout already says it all.
            return Err(Silent.into());
        }
        Ok(())
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![processor(), memory(), disk(&self.run_dir), writable(&self.run_dir)];
        checks.extend(corpus_sources());
        checks.push(optional("python peers", "python3", &["-c", "import torch, transformers; print('torch', torch.__version__, 'transformers', transformers.__version__)"]));
        checks
    }
}

fn show(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|c| {
            let state = match c.state {
                State::Ok => "ok",
                State::Missing => "missing",
                State::Failed => "FAILED",
            };
            vec![state.to_owned(), c.name.to_owned(), c.found.clone()]
        })
        .collect();
    terminal::table(&rows)
}

fn processor() -> Check {
    let features = system::cpu_features();
    let name = system::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let found = format!("{name}, {} threads, {}", system::cores(), features.join(" "));
    let fast = features.iter().any(|f| matches!(*f, "avx2" | "neon"));
    if fast {
        Check::new("processor", State::Ok, found)
    } else {
        Check::new("processor", State::Missing, format!("{found} (no AVX2 or NEON: training works but is slow)"))
    }
}

fn memory() -> Check {
    match system::memory() {
        None => Check::new("memory", State::Missing, "cannot be read on this system"),
        Some((total, available)) => {
            let state = if available >= NEEDED_MEMORY { State::Ok } else { State::Failed };
            let found = format!("{} of {} available", terminal::bytes(available), terminal::bytes(total));
            Check::new("memory", state, found)
        }
    }
}

fn disk(run_dir: &Path) -> Check {
    match system::free_disk(run_dir) {
        None => Check::new("disk", State::Missing, "free space cannot be read on this system"),
        Some(free) => {
            let state = if free >= NEEDED_DISK { State::Ok } else { State::Failed };
            Check::new("disk", state, format!("{} free for {}", terminal::bytes(free), run_dir.display()))
        }
    }
}

fn writable(run_dir: &Path) -> Check {
    let existed = run_dir.exists();
    let probe = run_dir.join(format!(".doctor.{}", std::process::id()));
    let outcome = internevo_core::storage::write_atomic(&probe, b"ok");
    let _ = std::fs::remove_file(&probe);
    if !existed {
        // Only removes it when it is empty, that is when this check made it.
        let _ = std::fs::remove_dir(run_dir);
    }
    match outcome {
        Ok(()) => Check::new("run folder", State::Ok, format!("{} can be written", run_dir.display())),
        Err(e) => Check::new("run folder", State::Failed, e.to_string()),
    }
}

fn corpus_sources() -> Vec<Check> {
    let lock = Path::new("Cargo.lock");
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registry = home.map(|h| h.join("registry"));
    let folders = |sub: &str| -> usize {
        let Some(registry) = &registry else { return 0 };
        let Ok(indexes) = std::fs::read_dir(registry.join(sub)) else { return 0 };
        indexes.filter_map(Result::ok).filter_map(|d| std::fs::read_dir(d.path()).ok()).map(Iterator::count).sum()
    };
    let (sources, archives) = (folders("src"), folders("cache"));
    let found = format!(
        "{sources} unpacked packages, {archives} archives in {}",
        registry.as_deref().unwrap_or(Path::new("?")).display()
    );
    let packages = if sources + archives > 0 { State::Ok } else { State::Missing };
    let docs =
        system::first_line("rustc", &["--print", "sysroot"]).map(|s| PathBuf::from(s).join("share/doc/rust/html"));
    let have_docs = docs.as_ref().is_some_and(|d| d.is_dir());
    let docs_found = docs.map_or_else(|| "no rustc found".to_owned(), |d| d.display().to_string());
    let any = lock.is_file() && packages == State::Ok || have_docs;
    vec![
        Check::new(
            "Cargo.lock",
            if lock.is_file() { State::Ok } else { State::Missing },
            "in the working directory: decides which packages are read",
        ),
        Check::new("cargo packages", packages, found),
        optional("cargo", "cargo", &["--version"]),
        Check::new("rust docs", if have_docs { State::Ok } else { State::Missing }, docs_found),
        Check::new(
            "bundled corpus",
            if any { State::Ok } else { State::Missing },
            if any { "can be built" } else { "no source of text: set corpus.inputs or data.train_folder" },
        ),
    ]
}

fn optional(name: &'static str, program: &str, args: &[&str]) -> Check {
    match system::first_line(program, args) {
        Some(line) => Check::new(name, State::Ok, line),
        None => Check::new(name, State::Missing, format!("{program} did not answer (optional)")),
    }
}
