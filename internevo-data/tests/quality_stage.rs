//! The contract of the stage `quality` with filters that ask models: kept lines are untouched, rejected documents carry reason and
//! value, the bytes depend neither on threads nor on how often it ran, and a strategy decides by source.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use internevo_core::config::PipelineConfig;
use internevo_data::{
    Document,
    classifier::{ClassifierSettings, TextClassifier},
    document::read_jsonl,
    ngram_lm::{LmSettings, train},
    quality::{CONTRAST_LABELS, QualitySettings, contrast_examples},
    stage::{StageReport, StageRequest, measure, run_stage},
};
use serde_json::Value;

fn golden(name: &str) -> Vec<u8> {
    let bytes =
        fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).expect("golden file");
    zstd::decode_all(&*bytes).expect("zstd")
}

/// The golden documents in two files, every other one with a source.
fn corpus(folder: &Path) {
    fs::create_dir_all(folder).expect("folder");
    let mut files = [Vec::new(), Vec::new()];
    for (at, line) in String::from_utf8(golden("documents.jsonl.zst")).expect("UTF-8").lines().enumerate() {
        let mut document = Document::from_line(line.as_bytes(), String::new).expect("a document");
        document.meta.insert("source".into(), ["web-1", "library"][at % 2].into());
        document.write_line(&mut files[at % 2]);
    }
    for (at, lines) in files.iter().enumerate() {
        fs::write(folder.join(format!("{at}.jsonl")), lines).expect("written");
    }
}

/// A language model, a classifier of fluency and a model of fastText, trained on (or for) the documents in `corpus`.
fn pipeline(folder: &Path, corpus: &Path) -> PipelineConfig {
    let files: Vec<PathBuf> = (0..2).map(|at| corpus.join(format!("{at}.jsonl"))).collect();
    let settings = LmSettings { order: 3, discount_fallback: true, ..LmSettings::default() };
    train(&files, &folder.join("any.binary"), &settings, &()).expect("a language model");
    let examples = contrast_examples(&files, &QualitySettings::default()).expect("examples");
    assert!(CONTRAST_LABELS.iter().all(|label| examples.iter().any(|example| example.label == **label)));
    let settings = ClassifierSettings { bits: 16, ..ClassifierSettings::default() };
    let classifier = TextClassifier::train(examples, &settings).expect("a classifier");
    classifier.save(&folder.join("fluency.classifier")).expect("saved");
    fs::write(folder.join("kind.ftz"), golden("fasttext/quantised_norm.ftz.zst")).expect("written");
    let folder = folder.to_str().expect("UTF-8");
    toml::from_str(&format!(
        "quality = ['fluency', 'perplexity', 'classifier']\n\
         [filter.fluency]\nthreshold = 0.4\n\
         [filter.perplexity.'*']\nmodel = '{folder}/any.binary'\nlow = 4.0\nhigh = 900.0\n\
         [filter.classifier.kind]\nclassifier = 'fasttext'\nmodel = '{folder}/kind.ftz'\nmax.zh = 0.4\n\
         [[strategy]]\nsource = 'lib*'\nquality = ['perplexity']\nfilter.perplexity.'*'.high = 90.0\n"
    ))
    .expect("a pipeline")
}

struct Runs {
    dir: tempfile::TempDir,
    pipeline: PipelineConfig,
}

impl Runs {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        corpus(&dir.path().join("in"));
        let pipeline = pipeline(dir.path(), &dir.path().join("in"));
        Self { dir, pipeline }
    }

    fn request(&self, output: &str, threads: usize) -> StageRequest<'_> {
        StageRequest {
            stage: "quality",
            input: self.dir.path().join("in"),
            output: self.dir.path().join(output),
            lang: None,
            threads,
            artifacts: self.dir.path().to_owned(),
            pipeline: &self.pipeline,
        }
    }

    fn run(&self, output: &str, threads: usize) -> StageReport {
        run_stage(&self.request(output, threads), &()).expect("a run")
    }
}

/// All files below `folder` but the report, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for part in ["kept", "rejected"] {
        for entry in fs::read_dir(folder.join(part)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = format!("{part}/{}", path.file_name().expect("a name").to_string_lossy());
            found.insert(name, fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn kept_lines_are_untouched_and_rejected_ones_say_why_whatever_the_number_of_threads() {
    let runs = Runs::new();
    let (one, two) = (runs.run("one", 1), runs.run("two", 2));
    let (one_files, two_files) = (files(&runs.dir.path().join("one")), files(&runs.dir.path().join("two")));
    assert!(one_files == two_files, "the bytes depend on the threads");
    assert_eq!(one.reasons, two.reasons);
    assert!(runs.run("one", 2).reused);

    let inputs: Vec<u8> =
        (0..2).flat_map(|at| fs::read(runs.dir.path().join(format!("in/{at}.jsonl"))).expect("input")).collect();
    let lines: std::collections::BTreeSet<&[u8]> = inputs.split(|byte| *byte == b'\n').collect();
    let (mut kept, mut reasons) = (0, BTreeMap::<String, u64>::new());
    for (name, bytes) in &one_files {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if name.starts_with("kept") {
                assert!(lines.contains(line), "{}", String::from_utf8_lossy(line));
                kept += 1;
                continue;
            }
            let rejected: Value = serde_json::from_slice(line).expect("JSON");
            assert!(rejected["id"].is_string() && rejected["value"].is_f64(), "{rejected}");
            *reasons.entry(rejected["reason"].as_str().expect("a reason").to_owned()).or_default() += 1;
        }
    }
    assert_eq!((one.documents_kept, &one.reasons), (kept, &reasons));
    assert_eq!(one.documents_in, kept + reasons.values().sum::<u64>());
    for reason in ["fluency_low", "perplexity_high", "perplexity_low", "classifier_kind_zh"] {
        assert!(reasons.contains_key(reason), "nothing was dropped for {reason}: {reasons:?}");
    }
    let report: StageReport =
        serde_json::from_slice(&fs::read(runs.dir.path().join("one/report.json")).expect("report")).expect("JSON");
    assert_eq!((report.documents_kept, report.reasons), (one.documents_kept, one.reasons));
}

#[test]
fn a_strategy_judges_its_source_by_its_own_filters_and_limits_and_measuring_agrees_with_judging() {
    let runs = Runs::new();
    let report = runs.run("out", 0);
    let scored = runs.dir.path().join("scored.jsonl");
    let measured = measure(&runs.request("out", 2), &scored, &()).expect("measured");
    assert_eq!(measured.documents, report.documents_in);
    let mut expected = BTreeMap::<String, u64>::new();
    for document in read_jsonl(&scored).expect("scored") {
        let document = document.expect("a document");
        let value = |name: &str| document.meta["values"].get(name).and_then(Value::as_f64);
        let is_library = document.field("source") == Some("library");
        assert!(!is_library || value("fluency_low").is_none() && value("classifier_kind_zh").is_none());
        let high = if is_library { 90.0 } else { 900.0 };
        let reason = match (value("fluency_low"), value("perplexity_high"), value("classifier_kind_zh")) {
            (Some(fluency), ..) if fluency < 0.4 => "fluency_low",
            (_, Some(perplexity), _) if perplexity < 4.0 => "perplexity_low",
            (_, Some(perplexity), _) if perplexity > high => "perplexity_high",
            (.., Some(kind)) if kind > 0.4 => "classifier_kind_zh",
            _ => continue,
        };
        *expected.entry(reason.to_owned()).or_default() += 1;
    }
    assert_eq!(report.reasons, expected);
}
