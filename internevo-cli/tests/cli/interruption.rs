//! Killed, stopped, or damaged: nothing is lost and the same command ends with the same bits.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::workshop::{Workshop, loss_bits, parameters};

/// Long enough to be interrupted in the middle.
const STEPS: &str = "60";

/// Waits until the run below `runs` has a checkpoint of `step`.
fn wait_for_checkpoint(child: &mut Child, workshop: &Workshop, runs: &str, step: u64) {
    let path = workshop.latest(runs).join(format!("checkpoints/step-{step:08}/manifest.json"));
    let started = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().expect("child").is_none(), "the run ended before it could be interrupted");
        assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_equal_runs(expected: &Path, found: &Path) {
    assert_eq!(loss_bits(expected), loss_bits(found));
    let newest = format!("checkpoints/step-{:08}", STEPS.parse::<u64>().expect("a number"));
    assert_eq!(parameters(&expected.join(&newest)), parameters(&found.join(&newest)));
}

#[test]
fn a_killed_run_ends_with_the_bits_of_an_uninterrupted_one() {
    let workshop = Workshop::new();
    workshop.train(&["--run-dir", "whole", "--steps", STEPS]);
    let mut child = workshop.start(&["train", "--config", "micro.toml", "--run-dir", "killed", "--steps", STEPS]);
    wait_for_checkpoint(&mut child, &workshop, "killed", 4);
    child.kill().expect("SIGKILL");
    child.wait().expect("child");
    let run = workshop.latest("killed");
    assert!(!run.join("summary.json").exists(), "it was killed in the middle");
    workshop.train(&["--run-dir", "killed", "--steps", STEPS]);
    assert_equal_runs(&workshop.latest("whole"), &run);
}

#[cfg(unix)]
#[test]
fn a_stopped_run_saves_says_how_to_continue_and_ends_with_the_same_bits() {
    let workshop = Workshop::new();
    workshop.train(&["--run-dir", "whole", "--steps", STEPS]);
    let args = ["train", "--config", "micro.toml", "--run-dir", "stopped", "--steps", STEPS];
    // Started the way a shell script does with `nohup … &`: the signals it ignores must not hide the one that counts.
    let mut command = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_internevo");
    command.arg("-c").arg(format!("trap '' HUP INT; exec {binary} {}", args.join(" "))).current_dir(workshop.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a shell");
    wait_for_checkpoint(&mut child, &workshop, "stopped", 4);
    for ignored in ["-HUP", "-INT"] {
        assert!(Command::new("kill").args([ignored, &child.id().to_string()]).status().expect("kill").success());
    }
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let output = child.wait_with_output().expect("child");
    let text = crate::workshop::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("continue with:") && text.contains("--run-dir stopped"), "{text}");
    let run = workshop.latest("stopped");
    assert!(run.join("report.html").exists(), "a stopped run has a report too");
    workshop.train(&["--run-dir", "stopped", "--steps", STEPS]);
    assert_equal_runs(&workshop.latest("whole"), &run);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_is_used() {
    let workshop = Workshop::new();
    workshop.train(&[]);
    let run = workshop.latest("runs");
    let (losses, newest) = (loss_bits(&run), run.join("checkpoints/step-00000006"));
    let expected = parameters(&newest);
    let file = fs::read_dir(&newest)
        .expect("checkpoint")
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("optimizer-")))
        .expect("optimizer state");
    let mut bytes = fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("write");
    fs::remove_file(run.join("summary.json")).expect("remove");

    let output = workshop.run(&["train", "--config", "micro.toml"]);
    let text = crate::workshop::stderr(&output);
    assert!(output.status.success(), "{text}");
    let name = file.file_name().expect("name").to_string_lossy().into_owned();
    assert!(text.contains("warning:") && text.contains(&name), "{text}");
    assert!(text.contains("resuming from") && text.contains("step-00000004"), "{text}");
    assert_eq!(loss_bits(&run), losses);
    assert_eq!(parameters(&newest), expected);
}
