//! The deduplication over files: the same bytes for any threads and memory, incremental runs, every method.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use internevo_core::{
    config::{DedupConfig, PipelineConfig},
    rng::CounterRng,
};
use internevo_data::{
    dedup::{DUPLICATES, DuplicateReport},
    stage::{StageReport, StageRequest, run_stage},
};
use serde_json::{Value, json};

fn words(seed: u64, count: u64) -> String {
    let rng = CounterRng::new(seed, "words");
    let word = |i| -> String { (0..5).map(|k| char::from(b'a' + rng.below(5 * i + k, 26) as u8)).collect() };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

fn write(path: PathBuf, documents: &[(String, String)]) {
    let line = |(id, text): &(String, String)| format!("{}\n", json!({"id": id, "text": text}));
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, documents.iter().map(line).collect::<String>()).expect("file");
}

fn run(input: &Path, output: &Path, threads: usize, config: DedupConfig) -> StageReport {
    let pipeline = PipelineConfig { dedup: config, ..PipelineConfig::default() };
    let (input, output) = (input.to_owned(), output.to_owned());
    let artifacts = output.clone();
    let request = StageRequest { stage: "dedup", input, output, lang: None, threads, artifacts, pipeline: &pipeline };
    run_stage(&request, &()).expect("the stage runs")
}

fn files(output: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders =
        ["kept", "rejected"].into_iter().flat_map(|folder| fs::read_dir(output.join(folder)).expect("folder"));
    let paths = folders.map(|entry| entry.expect("entry").path()).chain([output.join(DUPLICATES)]);
    paths.map(|path| (path.strip_prefix(output).expect("below").to_owned(), fs::read(&path).expect("file"))).collect()
}

fn lines(output: &Path, folder: &str) -> Vec<Value> {
    let parts = files(output).into_iter().filter(|(path, _)| path.starts_with(folder));
    let texts = parts.map(|(_, bytes)| String::from_utf8(bytes).expect("UTF-8"));
    texts.flat_map(|t| t.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<Value>>()).collect()
}

fn ids(output: &Path, folder: &str) -> Vec<String> {
    lines(output, folder).iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn the_output_is_the_same_bytes_for_any_threads_and_memory() {
    let dir = tempfile::tempdir().expect("temporary folder");
    // Some 60,000 band keys and 40 MB of shingle sets: more than the least memory holds.
    for file in 0..3u64 {
        let document = |i: u64| {
            let text = words(1000 * file + i - i % 2, 2500);
            (format!("{file}-{i}"), if i % 2 == 1 { format!("{text} and {}", words(i, 40)) } else { text })
        };
        write(dir.path().join(format!("in/{file}.jsonl")), &(0..800).map(document).collect::<Vec<_>>());
    }
    let input = dir.path().join("in");
    for method in ["minhash", "substrings"] {
        let config =
            |memory: &str| DedupConfig { method: method.into(), memory: memory.into(), ..DedupConfig::default() };
        let report = run(&input, &dir.path().join("large"), 2, config("4GiB"));
        assert_eq!(report.documents_in, 2400);
        let expected = files(&dir.path().join("large"));
        for (threads, memory) in [(1, "128MiB"), (3, "128MiB"), (1, "2GiB")] {
            let output = dir.path().join(format!("{method}-{threads}-{memory}"));
            run(&input, &output, threads, config(memory));
            assert!(files(&output) == expected, "{method}: {threads} threads with {memory} give other bytes");
            assert!(!output.join(".scratch").exists());
        }
    }
}

#[test]
fn an_incremental_run_removes_what_earlier_runs_kept_and_can_be_repeated() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let document = |id: &str, seed: u64| (id.to_owned(), words(seed, 200));
    let near = |id: &str, seed: u64| (id.to_owned(), format!("{} {}", words(seed, 200), words(seed + 900, 12)));
    write(dir.path().join("one/a.jsonl"), &[document("a", 1), document("b", 2), near("a2", 1)]);
    write(dir.path().join("two/b.jsonl"), &[near("b2", 2), document("c", 3), document("a3", 1), document("c2", 3)]);
    write(dir.path().join("three/c.jsonl"), &[near("c3", 3), document("d", 4)]);
    let index = dir.path().join("index").display().to_string();
    let config = || DedupConfig { index: index.clone(), keep: "first".into(), ..DedupConfig::default() };
    let run = |name: &str, output: &str| run(&dir.path().join(name), &dir.path().join(output), 2, config());
    let kept = |output: &str| ids(&dir.path().join(output), "kept");
    run("one", "out1");
    run("two", "out2");
    run("three", "out3");
    assert_eq!(
        (kept("out1"), kept("out2"), kept("out3")),
        (vec!["a".into(), "b".into()], vec!["c".into()], vec!["d".into()])
    );
    let rejected = lines(&dir.path().join("out2"), "rejected");
    let fates: Vec<(&str, &str)> = rejected
        .iter()
        .map(|line| (line["reason"].as_str().expect("reason"), line["detail"].as_str().expect("id")))
        .collect();
    assert_eq!(fates, [("near_duplicate", "b"), ("exact_duplicate", "a"), ("exact_duplicate", "c")]);
    // The second run once more, as after a kill between its segment and its report: neither its own documents nor later ones count.
    run("two", "again");
    assert_eq!(files(&dir.path().join("again")), files(&dir.path().join("out2")));
    assert_eq!(fs::read_dir(&index).expect("index").count(), 3);
}

#[test]
fn an_index_of_other_settings_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path().join("one/a.jsonl"), &[("a".into(), words(1, 50))]);
    write(dir.path().join("two/a.jsonl"), &[("b".into(), words(2, 50))]);
    let index = dir.path().join("index").display().to_string();
    run(
        &dir.path().join("one"),
        &dir.path().join("out"),
        1,
        DedupConfig { index: index.clone(), ..DedupConfig::default() },
    );
    let pipeline = PipelineConfig {
        dedup: DedupConfig { index, ngram: 4, ..DedupConfig::default() },
        ..PipelineConfig::default()
    };
    let output = dir.path().join("out2");
    let request = StageRequest {
        stage: "dedup",
        input: dir.path().join("two"),
        output: output.clone(),
        lang: None,
        threads: 1,
        artifacts: output,
        pipeline: &pipeline,
    };
    let message = run_stage(&request, &()).expect_err("refused").to_string();
    assert!(message.contains("pipeline.dedup.index") && message.contains("ngram: 5"), "{message}");
}

#[test]
fn repeated_parts_are_cut_out_of_later_documents_and_a_document_of_nothing_else_goes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (footer, own) = ("All rights reserved by nobody at all.", "A line of its own stands here.");
    let documents = [
        ("first".to_owned(), format!("{own}\n{footer}\n")),
        ("second".to_owned(), format!("Another text, another story.\n{footer}\nend\n")),
        ("third".to_owned(), format!("{footer}\n{own}\n")),
    ];
    write(dir.path().join("in/a.jsonl"), &documents);
    for (method, second) in [
        ("lines", "Another text, another story.\nend\n"),
        ("sentences", "Another text, another story.\nend\n"),
        ("paragraphs", documents[1].1.as_str()),
    ] {
        let output = dir.path().join(method);
        let config = DedupConfig { method: method.into(), ..DedupConfig::default() };
        run(&dir.path().join("in"), &output, 2, config);
        let kept = lines(&output, "kept");
        assert_eq!((&kept[0]["text"], &kept[1]["text"]), (&documents[0].1.as_str().into(), &second.into()), "{method}");
        if method != "paragraphs" {
            let rejected = lines(&output, "rejected");
            assert_eq!((&rejected[0]["id"], &rejected[0]["reason"]), (&"third".into(), &"repeated_text".into()));
            let report: DuplicateReport =
                serde_json::from_slice(&fs::read(output.join(DUPLICATES)).expect("report")).expect("JSON");
            assert_eq!((report.parts, report.repeated_parts, report.shortened), (6, 3, 1), "{method}");
            assert_eq!(report.bytes_removed as usize, footer.len() + 1, "{method}");
        }
    }
}

#[test]
fn a_bloom_filter_drops_equal_texts_in_one_pass() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let documents: Vec<(String, String)> = (0..400).map(|i| (format!("d{i}"), words(i % 300, 20))).collect();
    write(dir.path().join("in/a.jsonl"), &documents);
    let output = dir.path().join("out");
    run(&dir.path().join("in"), &output, 2, DedupConfig { method: "bloom".into(), ..DedupConfig::default() });
    assert_eq!(ids(&output, "rejected"), (300..400).map(|i| format!("d{i}")).collect::<Vec<_>>());
}
