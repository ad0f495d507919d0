//! The contract of the stage `safe`: unchanged ids, reasons and values, a report that adds up, and the same bytes for any number of
//! threads.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use internevo_core::config::PipelineConfig;
use internevo_data::{
    DataError,
    classifier::{ClassifierSettings, Labelled, TextClassifier},
    stage::{Progress, StageReport, StageRequest, run_stage},
};
use serde_json::{Value, json};

const PROSE: &str = "The river rose in spring and the old mill by the bridge stood in water until May. ";
const SETTINGS: &str = r#"
[personal_data]
min_hits = 5

[safety_policy]
any = { domain = 1.0, words_hard = 5.0, toxicity = 0.5 }

[safety_policy.sources.trusted]
any = {}
"#;

/// One document of each fate, repeated with other numbers: many chunks' worth for the threads to disorder.
fn corpus(folder: &Path) -> usize {
    let prose = PROSE.repeat(4);
    let casino = "http://play.casino-site.example/x";
    let kinds: [(&str, String, &str, &str); 6] = [
        ("fine", prose.clone(), "http://docs.example/x", "crawl"),
        ("listed", prose.clone(), casino, "crawl"),
        ("trusted", prose.clone(), casino, "trusted/1"),
        ("mail", format!("{prose}Write to me@host.org or call +49 30 901820."), "", "crawl"),
        ("leak", "a@b.org c@d.org e@f.org g@h.org i@j.org".into(), "", "crawl"),
        ("vile", "a vile and awful thing in a vile and awful voice".into(), "", "crawl"),
    ];
    let lines: Vec<String> = (0..600)
        .map(|i| {
            let (kind, text, url, source) = &kinds[i % kinds.len()];
            json!({"n": i, "id": format!("{kind}-{i}"), "text": text, "url": url, "source": source}).to_string() + "\n"
        })
        .collect();
    fs::create_dir_all(folder.join("in")).expect("folder");
    fs::write(folder.join("in/a.jsonl"), lines[..350].concat()).expect("file");
    fs::write(folder.join("in/b.jsonl"), lines[350..].concat()).expect("file");
    fs::create_dir_all(folder.join("lists/gambling")).expect("folder");
    fs::write(folder.join("lists/gambling/domains"), "casino-site.example\n").expect("list");
    let labelled = |i: usize| match i % 2 {
        0 => Labelled::new(format!("a {} word number {i}", ["vile", "awful"][i / 2 % 2]), "toxic"),
        _ => Labelled::new(format!("{PROSE} number {i}"), "fine"),
    };
    let settings = ClassifierSettings { bits: 14, ..ClassifierSettings::default() };
    let classifier = TextClassifier::train((0..400).map(labelled).collect(), &settings).expect("trained");
    classifier.save(&folder.join("toxicity.classifier")).expect("stored");
    lines.len()
}

fn run(folder: &Path, output: &str, threads: usize) -> StageReport {
    run_watched(folder, output, threads, &()).expect("the stage runs")
}

fn run_watched(folder: &Path, output: &str, threads: usize, progress: &dyn Progress) -> Result<StageReport, DataError> {
    let mut filter: toml::Table = toml::from_str(SETTINGS).expect("TOML");
    let lists = toml::Value::from(vec![folder.join("lists").display().to_string()]);
    let urls = toml::Table::from_iter([("lists".to_owned(), lists)]);
    filter["safety_policy"].as_table_mut().expect("a table").insert("urls".into(), urls.into());
    let pipeline = PipelineConfig {
        safe: ["personal_data", "safety_policy"].map(str::to_owned).into(),
        filter,
        ..PipelineConfig::default()
    };
    let request = StageRequest {
        stage: "safe",
        input: folder.join("in"),
        output: folder.join(output),
        lang: None,
        threads,
        artifacts: folder.to_owned(),
        pipeline: &pipeline,
    };
    run_stage(&request, progress)
}

/// Every file that holds documents.
fn files(output: &Path) -> BTreeMap<String, Vec<u8>> {
    let folders = ["kept", "rejected"].map(|folder| output.join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("folder"));
    entries
        .map(|entry| entry.expect("entry").path())
        .map(|path| (path.strip_prefix(output).expect("below").display().to_string(), fs::read(&path).expect("file")))
        .collect()
}

/// Asks the stage to stop once documents are done.
#[derive(Default)]
struct StopSoon(AtomicBool);

impl Progress for StopSoon {
    fn advance(&self, _: u64, documents: u64, _: u64) {
        self.0.fetch_or(documents > 0, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn lines(folder: &Path) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("file"));
    texts
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<_>>())
        .collect()
}

#[test]
fn documents_keep_their_ids_and_rejected_ones_say_why() {
    let dir = tempfile::tempdir().expect("folder");
    let all = corpus(dir.path());
    let report = run(dir.path(), "out", 2);
    let (kept, rejected) = (lines(&dir.path().join("out/kept")), lines(&dir.path().join("out/rejected")));
    assert_eq!(kept.len() + rejected.len(), all);
    let mut ids: Vec<String> =
        kept.iter().chain(&rejected).map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort_by_key(|id| id.split('-').nth(1).and_then(|n| n.parse::<usize>().ok()));
    let kinds = ["fine", "listed", "trusted", "mail", "leak", "vile"];
    assert!(ids.iter().enumerate().all(|(i, id)| *id == format!("{}-{i}", kinds[i % 6])), "{ids:?}");

    let reasons: BTreeMap<&str, (&str, &str)> = rejected
        .iter()
        .map(|line| {
            assert!(line["value"].as_f64().is_some_and(|value| value > 0.0), "{line}");
            let kind = line["id"].as_str().and_then(|id| id.split('-').next()).expect("a kind");
            (kind, (line["filter"].as_str().expect("a filter"), line["reason"].as_str().expect("a reason")))
        })
        .collect();
    let expected = [
        ("leak", ("personal_data", "personal_data")),
        ("listed", ("safety_policy", "safety_domain")),
        ("vile", ("safety_policy", "safety_toxicity")),
    ];
    assert_eq!(reasons, BTreeMap::from(expected));
    let leak = rejected.iter().find(|line| line["reason"] == "personal_data").expect("rejected");
    assert!(
        leak["text"].as_str().expect("a text").contains("a@b.org"),
        "a rejected document has the text it came with"
    );
    let mail = kept.iter().find(|line| line["id"] == "mail-3").expect("kept");
    assert!(mail["text"].as_str().expect("a text").ends_with("Write to <EMAIL> or call <PHONE>."), "{mail}");
    assert_eq!(mail["n"], 3);

    assert_eq!((report.documents_in, report.documents_kept, report.documents_edited), (600, 300, 100));
    assert_eq!(
        report.reasons,
        BTreeMap::from(["personal_data", "safety_domain", "safety_toxicity"].map(|r| (r.into(), 100)))
    );
    let written: usize = kept.iter().map(|line| line["text"].as_str().expect("a text").len()).sum();
    let (removed, added) =
        report.edits.values().fold((0, 0), |(r, a), edit| (r + edit.bytes_removed, a + edit.bytes_added));
    assert_eq!((report.bytes_written as usize, report.bytes_kept + added), (written, report.bytes_written + removed));
    let edits: Vec<(&str, u64, u64)> =
        report.edits.iter().map(|(reason, edit)| (reason.as_str(), edit.documents, edit.places)).collect();
    assert_eq!(edits, [("email", 100, 100), ("phone", 100, 100)]);
    let per_filter: Vec<_> = report.per_filter.iter().map(|f| (&*f.filter, f.documents, f.edited, f.dropped)).collect();
    assert_eq!(per_filter, [("personal_data", 600, 100, 100), ("safety_policy", 500, 0, 200)]);
    let stored: StageReport =
        serde_json::from_slice(&fs::read(dir.path().join("out/report.json")).expect("report")).expect("JSON");
    assert_eq!((stored.edits, stored.reasons), (report.edits, report.reasons));
}

#[test]
fn one_and_two_threads_and_an_interrupted_run_write_the_same_bytes() {
    let dir = tempfile::tempdir().expect("folder");
    corpus(dir.path());
    let one = run(dir.path(), "one", 1);
    let two = run(dir.path(), "two", 2);
    let stopped = run_watched(dir.path(), "stopped", 2, &StopSoon::default());
    assert!(matches!(stopped, Err(DataError::Interrupted { .. })), "{stopped:?}");
    let resumed = run(dir.path(), "stopped", 2);
    let whole = files(&dir.path().join("one"));
    assert!(whole.len() == 4 && whole.values().all(|bytes| !bytes.is_empty()));
    for (output, report) in [("two", two), ("stopped", resumed)] {
        assert_eq!(files(&dir.path().join(output)), whole, "{output}");
        assert_eq!((report.edits, report.bytes_written), (one.edits.clone(), one.bytes_written), "{output}");
    }
}

#[test]
fn a_finished_stage_is_reused_until_a_model_changes() {
    let dir = tempfile::tempdir().expect("folder");
    corpus(dir.path());
    run(dir.path(), "out", 2);
    assert!(run(dir.path(), "out", 1).reused);
    let documents = (0..40).map(|i| Labelled::new(format!("word {i}"), ["toxic", "fine"][i % 2])).collect();
    let settings = ClassifierSettings { bits: 10, ..ClassifierSettings::default() };
    TextClassifier::train(documents, &settings)
        .expect("trained")
        .save(&dir.path().join("toxicity.classifier"))
        .expect("stored");
    assert!(!run(dir.path(), "out", 1).reused);
}
