//! The MPI backend under `mpirun`: the conformance suite at several sizes and over two network namespaces, and ranks that die,
//! hang, err or finish early.
//!
//! `cargo test -p internevo-parallel --features mpi --test mpi [FILTER]`. Without arguments of its own this program drives the
//! tests; started by `mpirun` it is one rank of a scenario. Tests are skipped, with the reason, where `mpirun` is absent.

use std::{
    env,
    fs::File,
    io::Write,
    panic::catch_unwind,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use internevo_parallel::comm::{
    Buffer, CommError, Communicator, MpiOptions, MpiWorld, ReduceOp, RunError,
    conformance::{self, Violation},
    mpi_world, write_flight,
};

/// By when a failure must have ended every rank.
const BOUND: Duration = Duration::from_secs(30);
/// A scenario that takes longer is killed.
const LIMIT: Duration = Duration::from_secs(180);
/// Names the scenario to a rank.
const SCENARIO: &str = "INTERNEVO_MPI_SCENARIO";
/// Names the folder in which a rank leaves its results.
const FOLDER: &str = "INTERNEVO_MPI_FOLDER";

fn main() -> ExitCode {
    match env::var(SCENARIO) {
        Ok(scenario) => rank(&scenario),
        Err(_) => drive(),
    }
}

// ---- one rank -------------------------------------------------------------------------------------------------------------

fn options() -> MpiOptions {
    MpiOptions {
        silence: Duration::from_secs(4),
        heartbeat: Duration::from_millis(200),
        // In one piece, so that the ranks' lines do not mix.
        on_failure: Some(Box::new(|error| eprint_whole(&format!("FAILED {error}\n")))),
        ..MpiOptions::default()
    }
}

fn eprint_whole(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).expect("an open stderr");
}

fn rank(scenario: &str) -> ExitCode {
    let (name, argument) = scenario.split_once(':').unwrap_or((scenario, ""));
    let options = match name {
        "conformance" if !argument.is_empty() => {
            MpiOptions { longest_message: argument.parse().expect("a number"), ..options() }
        }
        "absent" => MpiOptions { timeout: Duration::from_secs(2), ..options() },
        _ => options(),
    };
    let world = mpi_world(options).unwrap_or_else(|error| panic!("no world: {error}"));
    let me = world.communicator().rank();
    let passed = match name {
        "conformance" => finish(world, |comm| conformance::run(|body| body(comm.clone()))),
        "failure" => expected_failure(&world, argument),
        "staggered" => finish(world, |comm| {
            comm.barrier()?;
            thread::sleep(Duration::from_millis(700 * me as u64));
            Ok(())
        }),
        "unclaimed" => finish(world, |comm| {
            let next = (me + 1) % comm.size();
            drop(comm.send(Buffer::F32(vec![1.0; 3_000_000]), next, 1)?);
            drop(comm.send(Buffer::U8(vec![1]), next, 2)?);
            drop(comm.all_reduce(Buffer::F64(vec![1.0; 100_000]), ReduceOp::Sum)?);
            Ok(())
        }),
        "recorded" => finish(world, |comm| {
            comm.barrier()?;
            comm.all_gather(Buffer::U8(vec![1]))?.wait()?;
            let flight = comm.flight();
            assert_eq!(flight[me].made, 2);
            let call = format!("all_gather(u8 x 1) #1 of ranks {:?}", comm.world_ranks());
            assert_eq!(flight[me].calls.last(), Some(&call));
            Ok(())
        }),
        _ => finish(world, |comm| Ok(misbehave(name, argument, &*comm)?)),
    };
    if !passed {
        return ExitCode::from(3);
    }
    // A file: what a rank prints may be lost when mpirun ends a job whose ranks fail on purpose.
    let folder = env::var(FOLDER).expect("set by the driver");
    File::create(Path::new(&folder).join(format!("passed-{me}"))).expect("a writable folder");
    ExitCode::SUCCESS
}

fn finish(world: MpiWorld, body: impl FnOnce(Arc<dyn Communicator>) -> Result<(), Violation>) -> bool {
    let me = world.communicator().rank();
    let result = world.run(body);
    if let Err(RunError::Failed { error: Violation::Comm(error), .. }) = &result {
        let folder = env::var(FOLDER).expect("set by the driver");
        write_flight(folder.as_ref(), me, error.flight(), Some(error)).expect("a writable folder");
    } else if let Err(error) = &result {
        eprintln!("rank {me}: {error}");
    }
    result.is_ok()
}

/// A check of the suite after which the world has failed on every rank.
fn expected_failure(world: &MpiWorld, name: &str) -> bool {
    let (_, check) = conformance::FAILURES.iter().find(|(n, _)| *n == name).expect("a check of this name");
    check(&*world.communicator()).inspect_err(|error| eprintln!("{error}")).is_ok()
}

/// Rank `argument` does something bad while the others wait for it in an all-reduce of a group.
fn misbehave(how: &str, argument: &str, comm: &dyn Communicator) -> Result<(), CommError> {
    let group = comm.subgroup(&(0..comm.size()).collect::<Vec<_>>())?;
    group.barrier()?;
    group.barrier()?;
    if argument.parse() == Ok(comm.rank()) {
        // The others are to be waiting, and to have been heard to wait.
        thread::sleep(Duration::from_millis(600));
        match how {
            "killed" => signal("-KILL"),
            "stopped" => signal("-STOP"),
            "absent" => thread::sleep(LIMIT),
            "panicked" => panic!("had enough"),
            _ => panic!("no such scenario: {how}"),
        }
    }
    group.all_reduce(Buffer::F32(vec![1.0; 50_000]), ReduceOp::Sum)?.wait()?;
    panic!("an all_reduce without all ranks was completed");
}

fn signal(signal: &str) {
    let sent = Command::new("kill").args([signal, &std::process::id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    thread::sleep(LIMIT);
}

// ---- the driver -----------------------------------------------------------------------------------------------------------

/// What a scenario left behind.
struct Outcome {
    /// Ranks that passed.
    passed: usize,
    /// The failure as rank 0 wrote it down, with its flight.
    flight: Option<String>,
    stdout: String,
    stderr: String,
    success: bool,
    took: Duration,
}

impl Outcome {
    fn show(&self) -> String {
        format!("success {}, {:?}\n{}\n{}", self.success, self.took, self.stdout, self.stderr)
    }
}

fn run(mut command: Command, scenario: &str) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path| Stdio::from(File::create(path).expect("a writable folder"));
    command.env(SCENARIO, scenario).env(FOLDER, folder.path());
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let started = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if started.elapsed() > LIMIT => {
                child.kill().expect("a child");
                break child.wait().expect("a child");
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let took = started.elapsed();
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).expect("written above")).into_owned();
    let files = std::fs::read_dir(folder.path()).expect("made above").filter_map(Result::ok);
    let passed = files.filter(|file| file.file_name().to_string_lossy().starts_with("passed-")).count();
    let flight = std::fs::read_to_string(folder.path().join("flight-rank-0.jsonl")).ok();
    Outcome { passed, flight, stdout: read(&out), stderr: read(&err), success: status.success(), took }
}

fn this_program() -> String {
    env::current_exe().expect("this program").display().to_string()
}

fn mpirun(ranks: usize, scenario: &str) -> Outcome {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string(), "--oversubscribe", "--allow-run-as-root", &this_program()]);
    command.env("OMPI_MCA_mpi_yield_when_idle", "1");
    run(command, scenario)
}

fn the_suite_passes_at_every_size() {
    for ranks in [1, 2, 3, 4] {
        let outcome = mpirun(ranks, "conformance");
        assert!(outcome.success && outcome.passed == ranks, "{ranks} ranks: {}", outcome.show());
    }
}

fn the_suite_passes_when_blocks_are_cut_into_many_messages() {
    let outcome = mpirun(3, "conformance:1000");
    assert!(outcome.success && outcome.passed == 3, "{}", outcome.show());
}

fn the_suite_s_failures_reach_every_rank() {
    for (name, _) in conformance::FAILURES {
        let outcome = mpirun(3, &format!("failure:{name}"));
        assert_eq!(outcome.passed, 3, "{name}: {}", outcome.show());
    }
}

fn ranks_may_finish_at_different_times() {
    let outcome = mpirun(4, "staggered");
    assert!(outcome.success && outcome.passed == 4, "{}", outcome.show());
}

fn what_nobody_takes_does_not_keep_the_world_from_ending() {
    let outcome = mpirun(3, "unclaimed");
    assert!(outcome.success && outcome.passed == 3, "{}", outcome.show());
}

fn the_flight_recorder_can_be_read_at_any_time() {
    let outcome = mpirun(2, "recorded");
    assert!(outcome.success && outcome.passed == 2, "{}", outcome.show());
}

/// What every message about a rank that does not come must name.
const CALL: &str = "all_reduce(sum, f32 x 50000) #2 of ranks [0, 1, 2, 3]";

fn assert_named(outcome: &Outcome, what: &str) {
    assert!(!outcome.success && outcome.passed == 0 && outcome.took < BOUND, "{}", outcome.show());
    let named = outcome.stderr.lines().filter(|line| line.starts_with("FAILED") && line.contains(what));
    assert!(named.clone().any(|line| line.contains(CALL)), "no `{what}` in {CALL}: {}", outcome.show());
}

fn a_killed_rank_is_named_and_ends_the_job() {
    for rank in [2, 0] {
        assert_named(&mpirun(4, &format!("killed:{rank}")), &format!("rank {rank} died"));
    }
}

fn a_stopped_rank_is_named_and_ends_the_job() {
    for rank in [3, 0] {
        assert_named(&mpirun(4, &format!("stopped:{rank}")), &format!("rank {rank} hangs"));
    }
}

fn a_rank_that_never_calls_is_named_with_its_last_call() {
    let outcome = mpirun(4, "absent:1");
    assert_named(&outcome, "missing: ranks [1]");
    assert!(outcome.stderr.contains("rank 1: 3 calls, last: barrier #1 of ranks [0, 1, 2, 3]"), "{}", outcome.show());
}

fn a_panic_ends_the_job_with_its_message() {
    let outcome = mpirun(4, "panicked:1");
    assert!(!outcome.success && outcome.took < BOUND, "{}", outcome.show());
    assert!(outcome.stderr.contains("FAILED rank 1 aborted: it panicked: had enough"), "{}", outcome.show());
}

fn a_failure_leaves_the_flight_of_every_rank_behind() {
    let outcome = mpirun(3, "killed:1");
    let text = outcome.flight.as_ref().unwrap_or_else(|| panic!("no flight: {}", outcome.show()));
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("a JSON object")).collect();
    assert!(lines[0]["failure"].as_str().is_some_and(|failure| failure.contains("rank 1 died")), "{text}");
    let mut own = lines.iter().filter(|line| line["rank"] == 0 && line["call"].is_string());
    assert!(
        own.next_back().is_some_and(|l| l["number"] == 3 && l["call"].as_str().is_some_and(|c| c.contains("#2"))),
        "{text}"
    );
    assert!(lines.iter().any(|line| line["rank"] == 1 && line["number"] == 2), "{text}");
}

fn two_hosts_conform() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/two_hosts.sh");
    let mut probe = Command::new(script);
    let possible = probe.arg("true").output().expect("the script starts");
    if !possible.status.success() {
        println!("  skipped: {}", String::from_utf8_lossy(&possible.stderr).trim());
        return;
    }
    let mut command = Command::new(script);
    command.arg(this_program());
    let outcome = run(command, "conformance");
    assert!(outcome.success && outcome.passed == 4, "{}", outcome.show());
    let mut command = Command::new(script);
    command.arg(this_program());
    assert_named(&run(command, "killed:3"), "rank 3 died");
}

/// A test: its name as a sentence, and what it does.
type Test = (&'static str, fn());

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), $name as fn())),*]
    };
}

fn drive() -> ExitCode {
    if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no mpirun on this machine");
        return ExitCode::SUCCESS;
    }
    let all: [Test; 12] = tests![
        the_suite_passes_at_every_size,
        the_suite_passes_when_blocks_are_cut_into_many_messages,
        the_suite_s_failures_reach_every_rank,
        ranks_may_finish_at_different_times,
        what_nobody_takes_does_not_keep_the_world_from_ending,
        the_flight_recorder_can_be_read_at_any_time,
        a_killed_rank_is_named_and_ends_the_job,
        a_stopped_rank_is_named_and_ends_the_job,
        a_rank_that_never_calls_is_named_with_its_last_call,
        a_panic_ends_the_job_with_its_message,
        a_failure_leaves_the_flight_of_every_rank_behind,
        two_hosts_conform,
    ];
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let mut failed = 0;
    for (name, test) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let started = Instant::now();
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {} ({:.1} s)", if passed { "ok" } else { "FAILED" }, started.elapsed().as_secs_f32());
        failed += usize::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
