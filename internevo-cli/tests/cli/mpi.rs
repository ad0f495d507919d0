//! A process per rank under `mpirun`: the same numbers as threads of one process, and what happens when a rank dies. Compiled with
//! feature `mpi`; skips, saying so, where there is no `mpirun`.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::workshop::{Workshop, loss_bits, metrics, parameters, stderr};

/// Four ranks: two that share each layer, twice, with sharded optimizer state.
const LAYOUT: [&str; 10] = [
    "--set",
    "launch.ranks=4",
    "--set",
    "parallel.tensor.size=2",
    "--set",
    "parallel.tensor.mode=msp",
    "--set",
    "parallel.zero1.stage=2",
    "--set",
    "data.micro_num=2",
];

fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: there is no `mpirun` (package openmpi-bin)");
    }
    found
}

/// `internevo train` with `args` as four processes, started by `launcher`.
fn processes(workshop: &Workshop, launcher: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(env!("CARGO_BIN_EXE_internevo"));
    command.args(["train", "--config", "micro.toml", "--set", "launch.communicator=mpi"]).args(LAYOUT).args(args);
    command.current_dir(workshop.path()).env("NO_COLOR", "1").env("OMPI_MCA_mpi_yield_when_idle", "1");
    for (key, _) in std::env::vars().filter(|(k, _)| k.starts_with("INTERNEVO_")) {
        command.env_remove(key);
    }
    command
}

const MPIRUN: [&str; 5] = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4"];

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), stderr(output));
}

fn assert_same(expected: &Path, found: &Path, step: u64) {
    assert_eq!(loss_bits(expected), loss_bits(found));
    let newest = format!("checkpoints/step-{step:08}");
    assert_eq!(parameters(&expected.join(&newest)), parameters(&found.join(&newest)));
    let valid = |run: &Path| metrics(run).last().and_then(|r| r["valid_loss"].as_f64()).map(f64::to_bits);
    assert!(valid(expected).is_some() && valid(expected) == valid(found), "validation losses differ");
}

#[test]
fn four_processes_have_the_bits_of_four_threads() {
    if !has_mpirun() {
        return;
    }
    let workshop = Workshop::new();
    let args: Vec<&str> = LAYOUT.iter().copied().chain(["--run-dir", "threads"]).collect();
    workshop.train(&args);
    let output = processes(&workshop, &MPIRUN, &["--run-dir", "processes"]).output().expect("mpirun starts");
    assert_success(&output);
    assert_same(&workshop.latest("threads"), &workshop.latest("processes"), 6);
    for rank in 0..4 {
        assert!(workshop.latest("processes").join(format!("logs/rank-{rank}.jsonl")).exists(), "log of rank {rank}");
    }
    let again = processes(&workshop, &MPIRUN, &["--run-dir", "processes"]).output().expect("mpirun starts");
    assert_success(&again);
    assert!(stderr(&again).contains("all 6 steps were done before"), "{}", stderr(&again));
}

#[test]
fn two_hosts_have_the_bits_of_four_threads() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../internevo-parallel/scripts/two_hosts.sh");
    let workshop = Workshop::new();
    let output = processes(&workshop, &["bash", script], &["--run-dir", "hosts"]).output().expect("bash starts");
    if output.status.code() == Some(77) {
        println!("skipped: {}", stderr(&output).trim());
        return;
    }
    assert_success(&output);
    let args: Vec<&str> = LAYOUT.iter().copied().chain(["--run-dir", "threads"]).collect();
    workshop.train(&args);
    assert_same(&workshop.latest("threads"), &workshop.latest("hosts"), 6);
}

/// Process numbers of the ranks, by their logs.
fn process_of(run: &Path, rank: usize) -> Option<u32> {
    let log = std::fs::read_to_string(run.join(format!("logs/rank-{rank}.jsonl"))).ok()?;
    let first: Value = serde_json::from_str(log.lines().next()?).ok()?;
    first["process"].as_u64().and_then(|id| u32::try_from(id).ok())
}

#[test]
fn a_killed_rank_ends_the_others_soon_with_its_name_and_the_same_command_goes_on() {
    if !has_mpirun() {
        return;
    }
    const STEPS: &str = "40";
    let workshop = Workshop::new();
    let whole: Vec<&str> = LAYOUT.iter().copied().chain(["--run-dir", "whole", "--steps", STEPS]).collect();
    workshop.train(&whole);
    let mut command = processes(&workshop, &MPIRUN, &["--run-dir", "killed", "--steps", STEPS]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let run = workshop.latest("killed");
    let started = Instant::now();
    let victim = loop {
        assert!(child.try_wait().expect("child").is_none(), "the job ended before a rank could be killed");
        assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint appeared");
        if run.join("checkpoints/step-00000004/manifest.json").exists() {
            break process_of(&run, 2).expect("rank 2 has written its process number");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().expect("kill").success());
    let killed = Instant::now();
    let output = child.wait_with_output().expect("child");
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    let text = stderr(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("rank 2 died"), "nobody says so: {text}");
    // On the terminal the survivors' lines may mix; the flight records are whole: the failure, then the last calls.
    let records = (0..4).filter_map(|r| std::fs::read_to_string(run.join(format!("logs/flight-rank-{r}.jsonl"))).ok());
    let tells = |record: &String| {
        let lines: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let says = |line: &Value, key: &str, what: &str| line[key].as_str().is_some_and(|text| text.contains(what));
        let numbered = |line: &Value| says(line, "call", " #") && says(line, "call", "of ranks [");
        says(&lines[0], "failure", "rank 2 died") && lines.len() > 1 && lines[1..].iter().all(numbered)
    };
    let records: Vec<String> = records.collect();
    assert!(records.iter().any(tells), "no record names call, number and group: {records:#?}");
    let again =
        processes(&workshop, &MPIRUN, &["--run-dir", "killed", "--steps", STEPS]).output().expect("mpirun starts");
    assert_success(&again);
    assert_same(&workshop.latest("whole"), &run, 40);
}

#[test]
fn a_wrong_number_of_processes_is_one_clear_mistake() {
    if !has_mpirun() {
        return;
    }
    let workshop = Workshop::new();
    let launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"];
    let output = processes(&workshop, &launcher, &[]).output().expect("mpirun starts");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.matches("add --set launch.ranks=2").count(), 1, "{text}");
    let output =
        processes(&workshop, &MPIRUN, &["--set", "data.train_folder=/no/such/folder"]).output().expect("mpirun");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("/no/such/folder"), "rank 0 says why: {text}");
    assert!(!text.contains("rank 0 left"), "the others have nothing to add: {text}");
}
