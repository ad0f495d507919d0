//! Whole runs over small inputs.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use internevo_core::{config::PipelineConfig, rng::CounterRng};
use serde_json::Value;

use super::{
    run::{Steps, run_in_steps},
    *,
};
use crate::DataError;

const SMALL: Steps = Steps { chunk_bytes: 2000, checkpoint_bytes: 5000 };

fn request<'a>(
    stage: &'a str,
    dir: &Path,
    output: &str,
    threads: usize,
    pipeline: &'a PipelineConfig,
) -> StageRequest<'a> {
    let (input, output, artifacts) = (dir.join("in"), dir.join(output), dir.to_owned());
    StageRequest { stage, input, output, lang: None, threads, artifacts, pipeline }
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join("in").join(name);
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, bytes).expect("write");
}

/// Prose of `words` words that passes Gopher's rules, with an id.
fn line(id: usize, words: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "of", "house", "garden", "walked", "river", "and", "quietly", "mountain", "stone", "under", "evening"];
    let rng = CounterRng::new(7, &format!("line-{id}"));
    let text: Vec<String> =
        (0..words).map(|i| format!("{}{}", WORDS[rng.below(i as u64, 12) as usize], ["", "s", "ed"][i % 3])).collect();
    format!("{{\"n\": {id}.50, \"id\":\"d{id}\",\"text\":\"the of {}\"}}", text.join(" "))
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

/// The chain that these documents are made for: the runner is tested here, not the default choice of filters.
fn gopher() -> PipelineConfig {
    PipelineConfig {
        clean: ["gopher_quality", "gopher_repetition"].map(str::to_owned).into(),
        ..PipelineConfig::default()
    }
}

/// Three files of documents long and short.
fn corpus(dir: &Path) {
    let lines = |range: std::ops::Range<usize>| -> String {
        range.map(|i| line(i, if i % 3 == 0 { 20 } else { 80 }) + "\n").collect()
    };
    write(dir, "b.jsonl.gz", gzip(&lines(40..90)));
    write(dir, "a.jsonl", lines(0..40));
    write(dir, "sub/c.jsonl.zst", zstd::encode_all(lines(90..120).as_bytes(), 1).expect("memory"));
}

/// Every file of an output but the report, which holds times.
fn files(output: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    ["kept", "rejected"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(output.join(folder)).expect("folder"))
        .map(|entry| entry.expect("entry").path())
        .map(|path| (path.strip_prefix(output).expect("below").to_owned(), fs::read(&path).expect("file")))
        .collect()
}

fn json_lines(path: PathBuf) -> Vec<Value> {
    fs::read_to_string(path).expect("file").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Remembers messages; panics at the n-th chunk, as good as a killed process.
#[derive(Default)]
struct Watch {
    messages: Mutex<Vec<String>>,
    chunks: AtomicUsize,
    die_at: usize,
    stop_at: usize,
}

impl Progress for Watch {
    fn message(&self, text: &str) {
        self.messages.lock().expect("unpoisoned").push(text.to_owned());
    }
    fn warning(&self, text: &str) {
        self.message(text);
    }
    fn advance(&self, _: u64, documents: u64, _: u64) {
        if documents > 0 {
            let chunk = 1 + self.chunks.fetch_add(1, Ordering::Relaxed);
            assert!(chunk != self.die_at, "killed");
        }
    }
    fn cancelled(&self) -> bool {
        self.stop_at > 0 && self.chunks.load(Ordering::Relaxed) >= self.stop_at
    }
}

#[test]
fn the_output_is_the_same_for_any_number_of_threads_and_kept_lines_keep_their_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    corpus(dir.path());
    let pipeline = gopher();
    let one = run_in_steps(&request("clean", dir.path(), "one", 1, &pipeline), &(), Steps::default()).expect("one");
    let three = run_in_steps(&request("clean", dir.path(), "three", 3, &pipeline), &(), SMALL).expect("three");
    assert_eq!(files(&dir.path().join("one")), files(&dir.path().join("three")));
    assert_eq!((one.documents_in, one.documents_kept, one.reasons["gopher_short_document"]), (120, 80, 40));
    assert_eq!((one.bytes_in, &one.reasons, &one.examples), (three.bytes_in, &three.reasons, &three.examples));
    assert_eq!(one.examples["gopher_short_document"][1].place, "a.jsonl:4");
    let kept = fs::read_to_string(dir.path().join("one/kept/part-00000.jsonl")).expect("kept");
    assert_eq!(kept.lines().next(), Some(line(1, 80).as_str()));
    let rejected = json_lines(dir.path().join("three/rejected/part-00002.jsonl"));
    assert_eq!(rejected[0]["id"], "d90");
    assert_eq!(
        (&rejected[0]["reason"], &rejected[0]["filter"]),
        (&"gopher_short_document".into(), &"gopher_quality".into())
    );
    assert_eq!((&rejected[0]["place"], &rejected[0]["value"]), (&"sub/c.jsonl.zst:1".into(), &22.0.into()));
    assert_eq!(rejected[0]["meta"]["n"], 90.5);
}

#[test]
fn a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    corpus(dir.path());
    let pipeline = gopher();
    let whole = run_in_steps(&request("clean", dir.path(), "whole", 2, &pipeline), &(), SMALL).expect("whole");
    let request = request("clean", dir.path(), "out", 2, &pipeline);
    let chunks = Watch::default();
    let mut continued = 0;
    for die_at in [1, 4, 5, 3, 8, 2] {
        let watch = Watch { die_at, ..Watch::default() };
        let died = catch_unwind(AssertUnwindSafe(|| run_in_steps(&request, &watch, SMALL)));
        assert!(died.is_err() && !request.output.join(REPORT).exists());
        continued +=
            usize::from(watch.messages.lock().expect("unpoisoned").iter().any(|text| text.contains("continuing at")));
    }
    assert!(continued >= 3, "continued {continued} times");
    let stop = Watch { stop_at: 2, ..Watch::default() };
    let error = run_in_steps(&request, &stop, SMALL).expect_err("stopped");
    assert!(matches!(error, DataError::Interrupted { .. }), "{error}");
    let report = run_in_steps(&request, &chunks, SMALL).expect("the rest");
    assert_eq!(files(&request.output), files(&dir.path().join("whole")));
    assert_eq!((report.documents_in, &report.reasons), (whole.documents_in, &whole.reasons));
    assert_eq!((&report.examples, &report.kept_files), (&whole.examples, &whole.kept_files));
    assert!(!request.output.join("progress.json").exists());
}

#[test]
fn a_finished_stage_is_reused_until_settings_inputs_or_output_change() {
    let dir = tempfile::tempdir().expect("temporary folder");
    corpus(dir.path());
    let mut pipeline = gopher();
    let run =
        |pipeline: &PipelineConfig| run_stage(&request("clean", dir.path(), "out", 2, pipeline), &()).expect("run");
    assert!(!run(&pipeline).reused);
    assert!(run(&pipeline).reused);
    fs::write(dir.path().join("out/kept/part-00001.jsonl"), "").expect("damage");
    assert!(!run(&pipeline).reused);
    pipeline.filter = toml::from_str("[gopher_quality]\nmin_words = 10").expect("TOML");
    let report = run(&pipeline);
    assert!(!report.reused && !report.reasons.contains_key("gopher_short_document"), "{report:?}");
    write(dir.path(), "d.jsonl", line(500, 60));
    assert_eq!(run(&pipeline).documents_in, 121);
    assert_eq!(find_inputs(&dir.path().join("out"), Path::new("")).expect("kept").len(), 4);
}

#[test]
fn broken_lines_are_rejected_with_their_place_and_the_run_goes_on() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let good = line(1, 80);
    let mut plain = format!("{good}\n{{\"id\":\"x\"\n\n{{\"text\":5}}\n").into_bytes();
    plain.extend_from_slice(b"{\"id\":\"y\",\"text\":\"\xff\xfe\"}\n");
    plain.extend_from_slice(good.replace("\"id\":\"d1\",", "").as_bytes());
    write(dir.path(), "a.jsonl", plain);
    let packed = gzip(&(0..400).map(|i| line(i, 80) + "\n").collect::<String>());
    write(dir.path(), "b.jsonl.gz", &packed[..packed.len() / 2]);
    let pipeline = gopher();
    let watch = Watch::default();
    let report = run_stage(&request("clean", dir.path(), "out", 2, &pipeline), &watch).expect("run");
    let reasons = [("broken_json", 2), ("invalid_utf8", 1), ("truncated_archive", 1)];
    assert_eq!(report.reasons, reasons.map(|(reason, count)| (reason.to_owned(), count)).into());
    assert_eq!(report.documents_in, report.documents_kept + 4);
    let rejected = json_lines(dir.path().join("out/rejected/part-00000.jsonl"));
    let places: Vec<_> = rejected.iter().map(|line| line["place"].as_str().expect("place")).collect();
    assert_eq!(places, ["a.jsonl:2", "a.jsonl:4", "a.jsonl:5"]);
    assert!(rejected[2]["text"].as_str().expect("text").contains("\\xff\\xfe"));
    let kept = json_lines(dir.path().join("out/kept/part-00000.jsonl"));
    assert_eq!(kept[1]["id"], "a:6");
    let messages = watch.messages.lock().expect("unpoisoned").clone();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("a.jsonl:2: broken_json") && messages[1].contains("b.jsonl.gz:"), "{messages:?}");
}

#[test]
fn an_input_without_documents_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let pipeline = gopher();
    let run = || run_stage(&request("clean", dir.path(), "out", 1, &pipeline), &()).expect_err("empty").to_string();
    assert!(run().contains(&format!("{}", dir.path().join("in").display())));
    for (name, content) in [("a.jsonl", ""), ("notes.xyz", "x"), ("a.jsonl", " \n\n")] {
        write(dir.path(), name, content);
        let message = run();
        assert!(message.contains("holds no documents") && message.contains("in"), "{message}");
    }
    let message = run_stage(&request("cleam", dir.path(), "out", 1, &pipeline), &()).expect_err("stage").to_string();
    assert!(message.contains("cleam") && message.contains("clean"), "{message}");
}

#[test]
fn files_of_one_document_each_become_documents_of_the_common_form() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(
        dir.path(),
        "page.html",
        "<html lang=en-GB><title>T</title><body><nav>menu</nav><main><h1>Head</h1><p>Text.</main>",
    );
    write(dir.path(), "src/lib.rs", "fn main() {}\n");
    write(dir.path(), "empty.md", "\n");
    write(dir.path(), "bad.txt", b"\xff");
    write(dir.path(), "z.jsonl", "{\"id\":\"q\",\"type\":\"python\",\"path\":\"m.py\",\"text\":\"x = 1\"}");
    let pipeline = gopher();
    let report = run_stage(&request("format", dir.path(), "out", 2, &pipeline), &()).expect("run");
    assert_eq!((report.documents_in, report.documents_kept), (5, 3));
    assert_eq!((report.reasons["invalid_utf8"], report.reasons["no_text"]), (1, 1));
    let first = json_lines(dir.path().join("out/kept/part-00000.jsonl"));
    assert_eq!(
        (&first[0]["id"], &first[0]["text"], &first[0]["type"], &first[0]["lang"]),
        (&"page.html".into(), &"# Head\n\nText.\n".into(), &"markdown".into(), &"en".into())
    );
    assert_eq!((&first[1]["lang"], &first[1]["source"]), (&"code:rust".into(), &"src/lib.rs".into()));
    let second = json_lines(dir.path().join("out/kept/part-00001.jsonl"));
    assert_eq!(
        (&second[0]["text"], &second[0]["source"]),
        (&"# m.py\n\n```python\nx = 1\n```\n".into(), &"z.jsonl".into())
    );
    let again = run_stage(&request("code", dir.path(), "code", 1, &pipeline), &()).expect("code stage");
    assert_eq!(again.stage, "code");
}
