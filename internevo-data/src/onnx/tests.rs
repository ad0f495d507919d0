//! A tiny BERT against onnxruntime (`xtask/peers/data/golden_onnx.py`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{OnnxClassifier, OnnxConfig};
use crate::{
    assert_classifier,
    classifier::{Classifier as _, ClassifierFilter},
    testing,
};

const SETTINGS: &str = "labels = ['fine', 'toxic', 'spam']\nmax_length = 16\nmax_passages = 0\n";

#[derive(Deserialize)]
struct Golden {
    text: String,
    windows: Vec<Window>,
}

#[derive(Deserialize)]
struct Window {
    tokens: usize,
    logits: Vec<f64>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx")
}

fn build(settings: &str) -> Result<OnnxClassifier, String> {
    OnnxClassifier::new(toml::from_str(settings).expect("settings"), &folder().join("model.onnx"))
}

/// Mean of the passages' probabilities by their own tokens (all but `[CLS]` and `[SEP]`).
fn expected(windows: &[Window], activate: fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut sums = vec![0.0; 3];
    for window in windows {
        let probabilities = activate(&window.logits);
        sums.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p * (window.tokens - 2) as f64);
    }
    let tokens: usize = windows.iter().map(|window| window.tokens - 2).sum();
    sums.iter().map(|sum| sum / tokens as f64).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit.exp() / sum).collect()
}

fn sigmoid(logits: &[f64]) -> Vec<f64> {
    logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
}

#[test]
fn probabilities_are_those_of_onnxruntime_for_short_and_long_texts_and_any_batch() {
    let lines = fs::read_to_string(folder().join("logits.jsonl")).expect("golden file");
    let golden: Vec<Golden> = lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert!(golden.iter().any(|golden| golden.windows.len() > 5), "there are long texts");
    for (settings, activate) in
        [("batch = 1", softmax as fn(&[f64]) -> Vec<f64>), ("batch = 3", softmax), ("activation = 'sigmoid'", sigmoid)]
    {
        let classifier = build(&format!("{SETTINGS}{settings}")).expect("a classifier");
        for Golden { text, windows } in &golden {
            let found = classifier.probabilities(text);
            if text.is_empty() {
                assert_eq!(found, None);
                continue;
            }
            for (found, expected) in found.expect("tokens").iter().zip(expected(windows, activate)) {
                assert!((found - expected).abs() <= 1e-5, "{found}, not {expected}: {text}");
            }
        }
        assert_eq!(classifier.failure(), None);
    }
}

#[test]
fn it_is_a_classifier_like_any_other_and_filters_take_it_by_name() {
    let model = folder().join("model.onnx");
    let (toxic, fine) = ("you vile awful stupid liar i hate your face", "the committee met to hear a report");
    assert_classifier!(OnnxClassifier, &model, SETTINGS, toxic => "toxic", fine => "fine");
    let rule = format!(
        "[bert]\nclassifier = 'onnx'\nmodel = {:?}\nmax = {{ toxic = 0.6, spam = 0.9 }}\n[bert.settings]\n{SETTINGS}",
        model.to_str().expect("UTF-8")
    );
    testing::assert_drops::<ClassifierFilter>(&rule, toxic, "classifier_bert_toxic");
    testing::assert_keeps::<ClassifierFilter>(&rule, fine);
    let policy = format!(
        "any = {{ toxicity = 0.6 }}\n[toxicity]\nclassifier = 'onnx'\nmodel = {:?}\n[toxicity.settings]\n{SETTINGS}",
        model.to_str().expect("UTF-8")
    );
    testing::assert_drops::<crate::safety::SafetyPolicy>(&policy, toxic, "safety_toxicity");
    testing::assert_keeps::<crate::safety::SafetyPolicy>(&policy, fine);
}

#[test]
fn labels_and_their_kind_may_come_from_the_config_beside_the_model() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for file in ["model.onnx", "tokenizer.json"] {
        fs::copy(folder().join(file), dir.path().join(file)).expect("copied");
    }
    let config =
        r#"{"id2label": {"0": "fine", "1": "toxic", "2": "spam"}, "problem_type": "multi_label_classification"}"#;
    fs::write(dir.path().join("config.json"), config).expect("written");
    let classifier = OnnxClassifier::new(OnnxConfig::default(), &dir.path().join("model.onnx")).expect("a classifier");
    assert_eq!(classifier.labels(), ["fine", "toxic", "spam"]);
    let sum: f64 = classifier.probabilities("you vile liar").expect("tokens").iter().sum();
    assert!((sum - 1.0).abs() > 0.01, "sigmoids do not add up to 1, as {sum} does");
}

#[test]
fn what_does_not_fit_is_one_clear_error() {
    for (settings, says) in [
        ("labels = ['a']", "3 outputs"),
        ("inputs.ids = 'ids'", "an input `input_ids`, which is none of ids, attention_mask"),
        ("tokenizer = 'nowhere.json'", "nowhere.json"),
        ("max_length = 2", "special tokens take 2"),
        ("batch = 0", "batch is 0"),
    ] {
        let settings = if settings.contains("labels") {
            settings.to_owned()
        } else {
            format!("{settings}\nlabels = ['a', 'b', 'c']")
        };
        let message = build(&settings).err().expect("refused");
        assert!(message.contains(says), "{says} is not in: {message}");
    }
    let missing = OnnxClassifier::new(OnnxConfig::default(), Path::new("nowhere.onnx")).err().expect("refused");
    assert!(missing.contains("nowhere.onnx"), "{missing}");
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::copy(folder().join("tokenizer.json"), dir.path().join("tokenizer.json")).expect("copied");
    let cut = dir.path().join("cut.onnx");
    let whole = fs::read(folder().join("model.onnx")).expect("model");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("written");
    let message = OnnxClassifier::new(OnnxConfig::default(), &cut).err().expect("refused");
    assert!(message.contains("cut.onnx"), "{message}");
}

/// The network with NaN in the last bias: in the file its numbers follow the name and a length of one byte.
fn poisoned() -> Vec<u8> {
    const NAME: &[u8] = b"classifier.bias\x4a\x0c";
    let mut model = fs::read(folder().join("model.onnx")).expect("model");
    let bias = model.windows(NAME.len()).position(|bytes| bytes == NAME).expect("the bias") + NAME.len();
    model[bias..bias + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    model
}

#[test]
fn a_network_that_gives_no_number_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = dir.path().join("model.onnx");
    fs::write(&model, poisoned()).expect("written");
    fs::copy(folder().join("tokenizer.json"), dir.path().join("tokenizer.json")).expect("copied");
    let refused = OnnxClassifier::new(toml::from_str(SETTINGS).expect("settings"), &model);
    let message = refused.err().expect("refused");
    assert!(message.contains("model.onnx: the network gives NaN"), "{message}");
}

#[test]
fn the_first_text_without_a_number_is_what_stops_a_run() {
    let mut classifier = build(SETTINGS).expect("a classifier");
    assert!(classifier.activate(&[0.0, f32::INFINITY, 1.0]).is_err());
    assert!(classifier.probabilities("a kind voice").is_some());
    // A network in which nothing is right any more.
    classifier.network.forget_inputs();
    assert_eq!(classifier.probabilities("a vile voice"), None);
    assert_eq!(classifier.probabilities("another"), None);
    let message = classifier.failure().expect("a failure");
    assert!(message.ends_with("for the text that begins \"a vile voice\""), "{message}");
}
