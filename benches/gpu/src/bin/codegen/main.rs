//! The codegen gate: compiles every kernel for three generations of cards without having one, and checks the machine code.
//! `cargo xtask codegen` installs the toolkit and runs this.
//!
//! ```text
//! cargo run -p gpu-benches --features codegen --bin codegen -- --toolkit DIR --cache DIR [--write] [--json] [--only TEXT]
//! ```

mod nvrtc;
mod planted;
mod rules;
mod table;
mod toolchain;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gpu_benches::calls::{self, Call, Calls, Inputs, type_name};
use internevo_kernels::cube::recorder::{Card, Code, Launch, PaperGpu};
use rayon::prelude::*;

use table::{Key, Row};
use toolchain::{Metrics, Toolchain};

/// What was asked for.
#[derive(Default)]
struct Options {
    toolkit: PathBuf,
    cache: PathBuf,
    write: bool,
    json: bool,
    plant_spill: bool,
    only: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--toolkit" => options.toolkit = value()?.into(),
                "--cache" => options.cache = value()?.into(),
                "--only" => options.only = Some(value()?),
                "--write" => options.write = true,
                "--json" => options.json = true,
                "--plant-spill" => options.plant_spill = true,
                other => bail!("unknown argument {other}"),
            }
        }
        if options.write && (options.plant_spill || options.only.is_some()) {
            bail!("--write needs the whole list and nothing else");
        }
        Ok(options)
    }

    fn calls(&self) -> Calls {
        let mut calls = calls::complete();
        if self.plant_spill {
            planted::add(&mut calls);
        }
        if let Some(only) = &self.only {
            calls.0.retain(|call| call.name.contains(only.as_str()));
        }
        calls
    }
}

/// A kernel of a call, before it is compiled.
struct Job<'a> {
    call: &'a Call,
    card: Card,
    launch: Launch,
    code: Arc<Code>,
}

impl Job<'_> {
    fn key(&self) -> Key {
        Key {
            call: self.call.name.clone(),
            elem: type_name(self.call.elem).to_owned(),
            shape: self.call.shape.clone(),
            kernel: self.launch.kernel.clone(),
            target: self.card.target().to_owned(),
        }
    }
}

/// The table and what is wrong with it.
struct Findings {
    rows: Vec<Row>,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("codegen: {error}");
            return ExitCode::from(2);
        }
    };
    match gate(&options) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            for failure in &failures {
                eprintln!("FAIL {failure}");
            }
            eprintln!("codegen: {} failures; if a change is meant: cargo xtask codegen --write", failures.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("codegen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the gate, prints the table and answers with what is wrong.
fn gate(options: &Options) -> anyhow::Result<Vec<String>> {
    let toolchain = Toolchain::open(&options.toolkit, &options.cache)?;
    let Findings { rows, mut failures } = check(&options.calls(), &toolchain);
    let text = table::markdown(&rows, &toolchain.version());
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{text}");
    }
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("CODEGEN.md");
    if options.write && failures.is_empty() {
        std::fs::write(&committed, text)?;
    } else if options.only.is_none() && !options.write {
        let before = std::fs::read_to_string(&committed).with_context(|| format!("no {}", committed.display()))?;
        match table::regressions(&rows, &before) {
            Ok(worse) => failures.extend(worse),
            Err(error) => failures.push(format!("{}: {error:#}", committed.display())),
        }
    }
    Ok(failures)
}

/// Records every call on every card, compiles each kernel once, as many at a time as there are cores, and applies the rules.
fn check(calls: &Calls, toolchain: &Toolchain) -> Findings {
    let mut failures = Vec::new();
    let mut jobs = Vec::new();
    for card in Card::ALL {
        let gpu = PaperGpu::new(card);
        for call in calls.0.iter().filter(|call| call.capabilities.contains(&card.version())) {
            match record(&gpu, call) {
                Ok(mut recorded) => jobs.append(&mut recorded),
                Err(error) => {
                    let (elem, target) = (type_name(call.elem), card.target());
                    failures.push(format!("{} {elem} {} on {target}: {error:#}", call.name, call.shape));
                }
            }
        }
    }
    let unique: HashSet<(&Code, &str)> = jobs.iter().map(|job| (&*job.code, job.card.target())).collect();
    let measure = |(code, target)| ((code, target), toolchain.measure(code, target));
    let compiled: HashMap<(&Code, &str), anyhow::Result<Metrics>> = unique.into_par_iter().map(measure).collect();
    let mut rows = Vec::new();
    for job in &jobs {
        match &compiled[&(&*job.code, job.card.target())] {
            Ok(metrics) => {
                let broken = rules::broken(&job.call.rules, &job.launch.kernel, metrics);
                failures.extend(broken.into_iter().map(|what| format!("{}: {what}", job.key())));
                rows.push(row(job, metrics));
            }
            Err(error) => failures.push(format!("{}: {error:#}", job.key())),
        }
    }
    // Calls in alphabetical order, cards in order of age.
    rows.sort_by_cached_key(|row| {
        (Key { target: String::new(), ..row.key.clone() }, row.key.target.len(), row.key.target.clone())
    });
    Findings { rows, failures }
}

fn row(job: &Job, metrics: &Metrics) -> Row {
    Row {
        key: job.key(),
        units: job.launch.cube_dim.iter().product(),
        shared_bytes: job.code.shared_bytes,
        budget: job.call.rules.registers,
        metrics: metrics.clone(),
    }
}

/// What an error of cubecl says before its backtrace, on one line.
fn cause(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Backtrace"));
    said.filter(|line| !line.is_empty() && *line != "Caused by:").collect::<Vec<_>>().join("; ")
}

/// The different kernels that a call launches; a second kernel of one function is called `…#2`.
fn record<'a>(gpu: &PaperGpu, call: &'a Call) -> anyhow::Result<Vec<Job<'a>>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| (call.prepare)(&Inputs::unfilled(gpu.client()))(gpu.client())));
    let launches = gpu.launches();
    if outcome.is_err() {
        bail!("the call panicked");
    }
    let mut jobs: Vec<Job> = Vec::new();
    for mut launch in launches {
        let code = launch.code.clone().map_err(|error| anyhow::anyhow!("{}: {}", launch.kernel, cause(&error)))?;
        if jobs.iter().any(|job| job.code == code) {
            continue;
        }
        let same = |job: &&Job| job.launch.kernel.split('#').next() == Some(launch.kernel.as_str());
        let earlier = jobs.iter().filter(same).count();
        if earlier > 0 {
            launch.kernel = format!("{}#{}", launch.kernel, earlier + 1);
        }
        jobs.push(Job { call, card: gpu.card(), launch, code });
    }
    let kernels: Vec<String> = jobs.iter().map(|job| job.launch.kernel.clone()).collect();
    if let Some(name) = rules::unmet(&call.rules, &kernels).next() {
        bail!("no kernel `{name}`, of which something is claimed; launched: {}", kernels.join(", "));
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_benches::calls::Rules;
    use internevo_kernels::cube::{Client, F32};

    /// The toolkit that `cargo xtask codegen` installed, which names it to this test.
    fn toolkit() -> Option<PathBuf> {
        let toolkit = std::env::var_os("INTERNEVO_CUDA_TOOLKIT").map(PathBuf::from);
        if toolkit.is_none() {
            println!("skipped: INTERNEVO_CUDA_TOOLKIT names no toolkit; `cargo xtask codegen` does");
        }
        toolkit
    }

    #[test]
    fn a_planted_spill_fails_the_gate() {
        let Some(toolkit) = toolkit() else { return };
        let cache = std::env::temp_dir().join(format!("internevo-codegen-{}", std::process::id()));
        let toolchain = Toolchain::open(&toolkit, &cache).unwrap();
        let mut calls = Calls::default();
        planted::add(&mut calls);
        let Findings { rows, failures } = check(&calls, &toolchain);
        std::fs::remove_dir_all(&cache).unwrap();
        assert!(rows.len() == 1 && rows[0].metrics.spilled_bytes > 0, "{rows:?}");
        let spill = failures.iter().find(|failure| failure.ends_with("bytes spilled")).unwrap();
        assert!(spill.contains("spilling_kernel on sm_90a"), "{spill}");
    }

    #[test]
    fn every_call_of_the_list_launches_what_its_rules_name() {
        let gpu = PaperGpu::new(Card::Hopper);
        for call in calls::complete().0 {
            let jobs = record(&gpu, &call).unwrap_or_else(|error| panic!("{}: {error:#}", call.name));
            assert!(!jobs.is_empty(), "{} launches nothing", call.name);
        }
    }

    #[test]
    fn a_call_that_panics_is_named() {
        let mut calls = Calls::default();
        calls.add("broken", F32, "1", Rules::streaming(), |_| |_: &Client| panic!("as planned"));
        let error = record(&PaperGpu::new(Card::Hopper), &calls.0[0]).err().unwrap();
        assert_eq!(error.to_string(), "the call panicked");
    }
}
