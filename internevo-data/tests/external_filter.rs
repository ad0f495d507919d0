//! The filter `external` with programs in Python, one of them the example. Without a `python3` there is nothing to test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use internevo_core::config::PipelineConfig;
use internevo_data::{
    DataError, FilterContext,
    external::External,
    filter::FilterPlugin,
    stage::{StageReport, StageRequest, run_stage},
    testing::assert_sound,
};

/// Answers as told by the document's text: with garbage, for another document, not at all, not before long, or with far too much.
const MOODY: &str = r#"
import json, sys, time
for line in sys.stdin:
    document = json.loads(line)
    answer = json.dumps({"id": document["id"], "keep": True})
    match document["text"]:
        case "crash": sys.exit("I cannot go on")
        case "garbage": answer = "maybe"
        case "other": answer = json.dumps({"id": "x", "keep": True})
        case "silent": time.sleep(60)
        case "reasonless": answer = json.dumps({"id": document["id"], "keep": False})
        case "talkative": print("let me see", flush=True)
        case "endless":
            while True: print("blah " * 1000, end="")
        case "twice": print(answer)
        case "grumbling": print("grumble " * 100_000, file=sys.stderr)
    print(answer, flush=True)
"#;

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no python3");
    }
    found
}

fn run(folder: &Path, output: &str, threads: usize, settings: &str) -> Result<StageReport, DataError> {
    let filter = toml::from_str(&format!("[external]\n{settings}")).expect("TOML");
    let pipeline = PipelineConfig { clean: vec!["external".into()], filter, ..PipelineConfig::default() };
    let request = StageRequest {
        stage: "clean",
        input: folder.join("in.jsonl"),
        output: folder.join(output),
        lang: None,
        threads,
        artifacts: folder.to_owned(),
        pipeline: &pipeline,
    };
    run_stage(&request, &())
}

fn line(id: usize, text: &str) -> String {
    serde_json::json!({"id": format!("d{id}"), "text": text, "source": "test"}).to_string() + "\n"
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/external_filter/long_words.py")
}

#[test]
fn the_example_in_python_judges_every_document_the_same_with_any_number_of_processes() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    // Some texts are larger than the buffer of a pipe.
    let text = |i: usize| {
        format!("{} ", if i.is_multiple_of(3) { "word" } else { "incomprehensibilities" }).repeat(1 + 97 * i)
    };
    fs::write(dir.path().join("in.jsonl"), (0..120).map(|i| line(i, &text(i))).collect::<String>()).expect("input");
    let command = format!("command = ['python3', '{}']", example().display());
    let outputs = [(1, 1, 1), (4, 3, 32), (2, 0, 7)].map(|(threads, workers, window)| {
        let output = format!("{threads}-{workers}");
        let settings = format!("{command}\nworkers = {workers}\nwindow = {window}");
        let report = run(dir.path(), &output, threads, &settings).expect("it runs");
        assert_eq!((report.documents_kept, report.reasons["long_words"]), (40, 80));
        ["kept", "rejected"]
            .map(|part| fs::read(dir.path().join(&output).join(part).join("part-00000.jsonl")).expect("output"))
    });
    assert!(outputs[1..].iter().all(|output| *output == outputs[0]));
    let rejected = String::from_utf8(outputs[0][1].clone()).expect("text");
    assert!(
        rejected.lines().next().is_some_and(|line| line.contains(r#""id":"d1","reason":"long_words","value":21.0"#)),
        "{rejected:.300}"
    );
}

#[test]
fn whatever_goes_wrong_stops_the_run_with_the_command_the_document_and_the_cause() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let script = dir.path().join("moody.py");
    fs::write(&script, MOODY).expect("script");
    let settings = format!("command = ['python3', '{}']\ntimeout_seconds = 2.0", script.display());
    for (text, causes) in [
        ("crash", ["ended without an answer (exit status: 1)", "I cannot go on"]),
        ("garbage", ["`maybe` is no verdict", "expected value"]),
        ("other", ["a verdict on document `x`", "\"keep\": true"]),
        ("silent", ["no answer within 2 s (does it flush each one?)", "signal: 9"]),
        ("reasonless", ["without a reason", "\"keep\": false"]),
        ("talkative", ["`let me see` is no verdict", "expected value"]),
        ("endless", ["`blah blah", "is no verdict"]),
    ] {
        // More documents than are asked about at once: those behind the wrong one are on their way when it goes wrong.
        let lines = (0..90).map(|i| line(i, if i == 23 { text } else { "fine" })).collect::<String>();
        fs::write(dir.path().join("in.jsonl"), lines).expect("input");
        let message = run(dir.path(), text, 2, &settings).expect_err("it stops").to_string();
        for part in ["filter `external`", "moody.py`", "document `d23`"].iter().chain(&causes) {
            assert!(message.contains(part), "{text}: {part} is not in: {message}");
        }
        assert!(!dir.path().join(text).join("report.json").exists(), "{text}: an unfinished stage has no report");
    }
}

#[test]
fn a_second_answer_is_taken_for_a_wrong_one_and_complaints_alone_do_no_harm() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let script = dir.path().join("moody.py");
    fs::write(&script, MOODY).expect("script");
    let settings = format!("command = ['python3', '{}']\nwindow = 2", script.display());
    let lines = |text: &str| (0..9).map(|i| line(i, if i == 3 { text } else { "fine" })).collect::<String>();
    fs::write(dir.path().join("in.jsonl"), lines("twice")).expect("input");
    let message = run(dir.path(), "twice", 1, &settings).expect_err("it stops").to_string();
    assert!(message.contains("document `d4`") && message.contains("a verdict on document `d3`"), "{message}");
    fs::write(dir.path().join("in.jsonl"), lines("grumbling")).expect("input");
    assert_eq!(run(dir.path(), "grumbling", 1, &settings).expect("it runs").documents_kept, 9);
}

#[test]
fn a_program_that_cannot_be_started_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::write(dir.path().join("in.jsonl"), line(0, "text")).expect("input");
    let message = run(dir.path(), "a", 1, "command = ['no-such-program']").expect_err("refused").to_string();
    assert!(message.contains("`no-such-program` cannot be started"), "{message}");
    let message = run(dir.path(), "b", 1, "").expect_err("refused").to_string();
    assert!(message.contains("command is empty"), "{message}");
    let message = run(dir.path(), "c", 1, "command = ['cat']\nwindow = 0").expect_err("refused").to_string();
    assert!(message.contains("window is 0"), "{message}");
}

#[test]
fn a_filter_in_python_is_as_sound_as_any_other_and_judges_anew_when_it_was_edited() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let script = dir.path().join("filter.py");
    fs::copy(example(), &script).expect("script");
    let settings = format!("command = ['python3', '{}']", script.display());
    assert_sound::<External>(&settings);
    let fingerprint = || {
        let config = toml::from_str(&settings).expect("settings");
        let context = FilterContext { lang: None, artifacts: dir.path() };
        External::build(config, &context).expect("it starts").fingerprint()
    };
    let before = fingerprint();
    assert_eq!(before, fingerprint());
    fs::write(&script, fs::read_to_string(&script).expect("script").replace("<= 10", "<= 11")).expect("script");
    assert_ne!(before, fingerprint());
}
