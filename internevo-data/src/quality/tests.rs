//! Training, storing and judging on a small synthetic language.

use std::{fs, path::PathBuf};

use internevo_core::rng::CounterRng;

use super::{features::tokens, *};
use crate::{Features, FilterContext, FilterPlugin, Verdict};

const SUBJECTS: &[&str] =
    &["the compiler", "a reader", "our parser", "the old server", "each worker", "the new library"];
const VERBS: &[&str] = &["checks", "reads", "returns", "rejects", "stores", "prints", "compares"];
const OBJECTS: &[&str] =
    &["every line", "the whole file", "a short message", "two numbers", "the next token", "an error"];
const ENDINGS: &[&str] =
    &["before it stops", "when the input ends", "in a single pass", "as the user asked", "without a copy"];

/// Sentences of one grammar: fluent by construction.
fn prose(seed: u64, sentences: u64) -> String {
    let rng = CounterRng::new(seed, "prose");
    let pick = |list: &[&'static str], at: u64| list[rng.below(at, list.len() as u64) as usize];
    (0..sentences)
        .map(|s| {
            let at = 4 * s;
            format!(
                "{} {} {} {}. ",
                pick(SUBJECTS, at),
                pick(VERBS, at + 1),
                pick(OBJECTS, at + 2),
                pick(ENDINGS, at + 3)
            )
        })
        .collect()
}

/// A corpus of `documents` in two files; gives the files.
fn corpus(folder: &Path, documents: u64) -> Vec<PathBuf> {
    [0, 1]
        .map(|part| {
            let path = folder.join(format!("part-{part}.jsonl"));
            let mut bytes = Vec::new();
            for number in (0..documents).filter(|n| n % 2 == part) {
                let mut document = Document::new(format!("d{number}"), prose(number, 60));
                document.meta.insert("type".into(), "markdown".into());
                document.write_line(&mut bytes);
            }
            fs::write(&path, bytes).expect("corpus");
            path
        })
        .to_vec()
}

fn small() -> QualitySettings {
    QualitySettings { bits: 14, ..QualitySettings::default() }
}

#[test]
fn a_trained_model_tells_prose_from_salad_and_leaves_code_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let model = dir.path().join(MODEL_FILE);
    let report = train(&corpus(dir.path(), 200), &model, &small(), &()).expect("trained");
    assert!(report.trained && report.held_out > 10 && report.accuracy > 0.9 && report.auc > 0.97, "{report:?}");

    let context = FilterContext { lang: None, artifacts: dir.path() };
    let filter = QualityClassifier::build(QualityClassifierConfig::default(), &context).expect("built");
    let fresh = prose(999, 80);
    let judge = |text: &str, kind: &str| {
        let mut document = Document::new("x", text);
        document.meta.insert("type".into(), kind.into());
        filter.judge(&Features::new(&document))
    };
    assert_eq!(judge(&fresh, "markdown"), Verdict::Keep);
    for corruption in Corruption::ALL {
        let bad = corruption.apply(&tokens(&fresh), 5);
        assert!(matches!(judge(&bad, "markdown"), Verdict::Drop { value, .. } if value < 0.3), "{corruption:?}: {bad}");
        assert_eq!(judge(&bad, "code"), Verdict::Keep);
    }
    assert_eq!(judge("too short", "markdown"), Verdict::Keep);
    let mut foreign = Document::new("x", Corruption::ShuffledWords.apply(&tokens(&fresh), 5));
    foreign.meta.insert("lang".into(), "tr".into());
    assert_eq!(filter.judge(&Features::new(&foreign)), Verdict::Keep, "a language that the model has not seen");
}

#[test]
fn the_model_is_the_same_bytes_for_any_number_of_threads_and_split_into_files() {
    let dir = tempfile::tempdir().expect("folder");
    let files = corpus(dir.path(), 200);
    let joined = dir.path().join("joined.jsonl");
    let text: Vec<u8> = files.iter().rev().flat_map(|file| fs::read(file).expect("part")).collect();
    fs::write(&joined, text).expect("joined");
    let run = |files: &[PathBuf], threads: usize| {
        let path = dir.path().join("out.model");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        pool.install(|| train(files, &path, &small(), &())).expect("trained");
        fs::read(path).expect("model")
    };
    let first = run(&files, 1);
    assert_eq!(run(&files, 3), first);
    assert_eq!(run(&[joined], 2), first);
}

#[test]
fn the_stage_trains_only_when_the_classifier_is_used_and_has_no_model() {
    let dir = tempfile::tempdir().expect("folder");
    let inputs = dir.path().join("in");
    fs::create_dir(&inputs).expect("folder");
    corpus(&inputs, 6);
    let inputs = crate::stage::find_inputs(&inputs, Path::new("")).expect("inputs");
    let artifacts = dir.path().join("artifacts");
    let ensure =
        |pipeline: &PipelineConfig| ensure_trained(&inputs, &artifacts, pipeline, &()).expect("trained").is_some();
    assert!(!ensure(&PipelineConfig { quality: vec!["other".into()], ..PipelineConfig::default() }));
    let filter = toml::from_str("quality_classifier.train.bits = 12").expect("settings");
    assert!(ensure(&PipelineConfig { filter, ..PipelineConfig::default() }));
    assert_eq!(QualityModel::load(&artifacts.join(MODEL_FILE)).expect("model").settings.bits, 12);
    assert!(!ensure(&PipelineConfig::default()));
}

#[test]
fn too_little_prose_gives_a_model_that_keeps_everything_and_says_so() {
    let dir = tempfile::tempdir().expect("folder");
    let report = train(&corpus(dir.path(), 2), &dir.path().join(MODEL_FILE), &small(), &()).expect("stored");
    assert!(!report.trained);
    let context = FilterContext { lang: None, artifacts: dir.path() };
    let filter = QualityClassifier::build(QualityClassifierConfig::default(), &context).expect("built");
    let document = Document::new("x", "0x00 0x01 0x02 ".repeat(50));
    assert_eq!(filter.judge(&Features::new(&document)), Verdict::Keep);
}

#[test]
fn a_damaged_truncated_or_missing_model_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join(MODEL_FILE);
    let message = || QualityModel::load(&path).expect_err("refused").to_string();
    assert!(message().contains(MODEL_FILE), "{}", message());
    train(&corpus(dir.path(), 2), &path, &small(), &()).expect("stored");
    let mut bytes = fs::read(&path).expect("model");
    fs::write(&path, &bytes[..bytes.len() - 4]).expect("truncated");
    assert!(message().contains("bytes of weights"), "{}", message());
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&path, &bytes).expect("damaged");
    assert!(message().contains("hash"), "{}", message());
    fs::write(&path, "{}\n").expect("other");
    assert!(message().contains("quality model"), "{}", message());
}
