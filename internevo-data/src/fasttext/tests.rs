//! Models that fastText trained, and what it says about texts (`xtask/peers/data/golden_fasttext.py`).

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;

use super::FastText;
use crate::{Document, Features, Measure, classifier::ClassifierFilter, plugin::Plugin as _, testing};

const MODELS: [&str; 7] = [
    "softmax.bin",
    "hierarchical.bin",
    "one_vs_all.bin",
    "negative_sampling.bin",
    "quantised.ftz",
    "quantised_norm.ftz",
    "quantised_pruned.ftz",
];

/// fastText leaves out labels of the hierarchical softmax whose probability is below its offset.
const LEFT_OUT: f32 = 2e-5;

#[derive(Deserialize)]
struct Prediction {
    model: String,
    text: String,
    labels: Vec<(String, f32)>,
}

fn golden(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fasttext");
    let bytes = fs::read(folder.join(format!("{name}.zst"))).expect("golden file");
    zstd::decode_all(&*bytes).expect("zstd")
}

/// All models in a folder of their own.
fn models() -> (tempfile::TempDir, BTreeMap<String, FastText>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let load = |file: &str| {
        let path = dir.path().join(file);
        fs::write(&path, golden(file)).expect("model");
        (file.split('.').next().expect("a stem").to_owned(), FastText::load(&path).expect("a model of fastText"))
    };
    let models = MODELS.iter().map(|file| load(file)).collect();
    (dir, models)
}

#[test]
fn predictions_are_those_of_fasttext_for_every_loss_and_every_way_to_quantise() {
    let (_dir, models) = models();
    let mut compared = 0;
    for line in String::from_utf8(golden("predictions.jsonl")).expect("UTF-8").lines() {
        let expected: Prediction = serde_json::from_str(line).expect("a prediction");
        let model = &models[&expected.model];
        let Some(scores) = model.scores(&expected.text) else {
            assert!(expected.labels.is_empty(), "{}: {:?}", expected.model, expected.text);
            continue;
        };
        let found: BTreeMap<&str, f32> =
            model.labels().iter().map(|label| label.name.as_str()).zip(scores.iter().copied()).collect();
        for (label, probability) in &expected.labels {
            let difference = (found[label.as_str()] - probability).abs();
            assert!(difference <= 1e-4, "{}: {label} of {:?} differs by {difference}", expected.model, expected.text);
            compared += 1;
        }
        for (label, score) in found.iter().filter(|(label, _)| expected.labels.iter().all(|(l, _)| l != **label)) {
            assert!(*score < LEFT_OUT, "{}: {label} of {:?} is {score}", expected.model, expected.text);
        }
    }
    assert!(compared > 1500, "{compared}");
}

#[test]
fn a_rule_keeps_by_label_and_threshold_and_says_what_it_measured() {
    let (dir, models) = models();
    let text = "The borrow checker rejects this program because the reference outlives the value.";
    let model = &models["softmax"];
    let book = model.label("book").expect("the label");
    assert_eq!(model.label("__label__book"), Some(book));
    let score = f64::from(model.scores(text).expect("known words")[book]);
    let rule = |limits: &str| {
        let path = dir.path().join("softmax.bin");
        format!("[style]\nclassifier = 'fasttext'\nmodel = {:?}\n{limits}", path.to_str().expect("UTF-8"))
    };
    let value = testing::assert_drops::<ClassifierFilter>(&rule("min.book = 1.1"), text, "classifier_style_book");
    assert_eq!(value, score);
    testing::assert_keeps::<ClassifierFilter>(&rule("min.book = 0.0\nmax.__label__book = 1.1"), text);
    testing::assert_keeps::<ClassifierFilter>(&rule("min.book = 1.1\nlanguages = ['zh']"), text);
    testing::assert_drops::<ClassifierFilter>(&rule("max.book = -1.0"), text, "classifier_style_book");
    let filter = testing::build::<ClassifierFilter>(&rule("min.book = 0.5"));
    let document = Document::new("a", text);
    assert_eq!(filter.measure(&Features::new(&document)), [Measure::at_least("classifier_style_book", score, 0.5)]);
    assert_eq!(filter.fingerprint(), model.fingerprint());
    testing::assert_sound::<ClassifierFilter>(&rule("min.book = 0.9"));
}

#[test]
fn settings_that_make_no_sense_are_refused_with_what_to_do() {
    let (dir, _) = models();
    let path = dir.path().join("softmax.bin");
    let refused = |settings: String| {
        let table: toml::Table = toml::from_str(&settings).expect("TOML");
        let names = [ClassifierFilter::NAME.to_owned()];
        let settings = toml::Table::from_iter([(ClassifierFilter::NAME.to_owned(), table.into())]);
        let context = crate::FilterContext { lang: None, artifacts: dir.path() };
        crate::filter::FilterChain::build(&names, &settings, &context).err().expect("refused").to_string()
    };
    let model = format!("classifier = 'fasttext'\nmodel = {:?}", path.to_str().expect("UTF-8"));
    for (settings, says) in [
        (String::new(), "no model"),
        (format!("[x]\n{model}"), "`min` or `max`"),
        (format!("[x]\n{model}\nmin.boook = 0.5"), "book"),
        (format!("[\"X y\"]\n{model}\nmin.book = 0.5"), "snake_case"),
        (format!("[x]\n{model}\nmin.book = 0.5\nsettings.epochs = 3"), "epochs"),
        ("[x]\nclassifier = 'fasttext'\nmodel = 'nowhere.bin'\nmin.book = 0.5".to_owned(), "nowhere.bin"),
        ("[x]\nclassifier = 'fastext'\nmin.book = 0.5".to_owned(), "did you mean `fasttext`?"),
    ] {
        let message = refused(settings);
        assert!(message.contains(says), "{message}");
    }
}

/// Every prefix, and a change of every byte of the header and the dictionary: an error or a model that still predicts.
#[test]
fn damaged_models_give_errors_and_never_a_panic() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("damaged");
    for name in ["hierarchical.bin", "quantised_pruned.ftz"] {
        let whole = golden(name);
        for length in (0..whole.len()).step_by(997) {
            fs::write(&path, &whole[..length]).expect("file");
            let error = FastText::load(&path).expect_err("cut").to_string();
            assert!(error.contains("damaged") && error.contains("at byte"), "{error}");
        }
        for (at, flip) in (0..whole.len().min(1500)).flat_map(|at| [(at, 0xFF), (at, 0x01)]).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            fs::write(&path, changed).expect("file");
            if let Ok(model) = FastText::load(&path) {
                model.scores("the reference is 所有权 valid");
            }
        }
    }
}
