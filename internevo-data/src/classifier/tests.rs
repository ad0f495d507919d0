//! Training, measuring, storing and judging on a small synthetic language.

use std::fs;

use internevo_core::rng::CounterRng;

use super::*;

const SHARED: [&str; 10] = ["the", "a", "of", "today", "and", "page", "2024", "we", "，", "with"];
const SPAM: [&str; 6] = ["casino", "jackpots", "bonus", "赌博", "彩票", "betting"];
const NEWS: [&str; 6] = ["council", "river", "budgets", "议会", "春天", "reported"];
const CODE: [&str; 6] = ["fn", "struct", "->", "{}", "impl", "return"];

/// Documents of which one word in ten gives the class away, and one in twenty points to another.
fn documents(seed: u64, count: usize, classes: &[(&str, [&str; 6])]) -> Vec<Labelled> {
    let rng = CounterRng::new(seed, "classifier-tests");
    let word = |at: u64, class: usize| match rng.below(3 * at, 20) {
        0 | 1 => classes[class].1[rng.below(3 * at + 1, 6) as usize],
        2 => classes[(class + 1) % classes.len()].1[rng.below(3 * at + 1, 6) as usize],
        _ => SHARED[rng.below(3 * at + 1, 10) as usize],
    };
    (0..count)
        .map(|i| {
            let class = i % classes.len();
            let words: Vec<&str> = (0..60).map(|k| word(60 * i as u64 + k, class)).collect();
            Labelled::new(words.join(" "), classes[class].0)
        })
        .collect()
}

fn two(seed: u64, count: usize) -> Vec<Labelled> {
    documents(seed, count, &[("news", NEWS), ("spam", SPAM)])
}

fn small() -> ClassifierSettings {
    ClassifierSettings { bits: 15, passage_tokens: 32, held_out: 0.2, ..ClassifierSettings::default() }
}

#[test]
fn two_classes_are_told_apart_as_well_as_can_be_and_probabilities_are_calibrated() {
    let classifier = TextClassifier::train(two(1, 1500), &small()).expect("trained");
    let fresh = two(2, 1000);
    let measured = super::evaluate(&classifier, &fresh.iter().collect::<Vec<_>>());
    // No classifier beats the likelihood ratio of the words, which here is a power of the difference of their numbers.
    let among = |text: &str, words: [&str; 6]| text.split(' ').filter(|word| words.contains(word)).count() as f64;
    let best: Vec<(f64, bool)> =
        fresh.iter().map(|d| (among(&d.text, SPAM) - among(&d.text, NEWS), d.label == "spam")).collect();
    let (best, found) = (roc_auc(&best).expect("both"), measured.classes["spam"].auc.expect("both"));
    assert!(best > 0.9 && found > best - 0.015, "{found} of {best}");
    // Of the documents with a probability between 0.2 and 0.8, about that share are spam: within three standard errors.
    let at = classifier.label("spam").expect("a label");
    let unsure: Vec<(f64, f64)> = fresh
        .iter()
        .map(|d| (classifier.probabilities(&d.text).expect("words")[at], f64::from(u8::from(d.label == "spam"))))
        .filter(|(p, _)| (0.2..0.8).contains(p))
        .collect();
    let mean = |f: fn(&(f64, f64)) -> f64| unsure.iter().map(f).sum::<f64>() / unsure.len() as f64;
    let error = 3.0 * (0.25 / unsure.len() as f64).sqrt();
    assert!(unsure.len() > 50 && (mean(|s| s.0) - mean(|s| s.1)).abs() < error, "{} {}", mean(|s| s.0), mean(|s| s.1));
    let report = classifier.evaluation();
    assert!(report.documents > 200 && (report.accuracy - measured.accuracy).abs() < 0.1, "{report:?}");
}

#[test]
fn three_classes_have_probabilities_that_add_up_to_one() {
    let classes = [("code", CODE), ("news", NEWS), ("spam", SPAM)];
    let classifier = TextClassifier::train(documents(1, 1500, &classes), &small()).expect("trained");
    assert_eq!(classifier.labels(), ["code", "news", "spam"]);
    let fresh = documents(2, 300, &classes);
    let probabilities = classifier.probabilities(&fresh[0].text).expect("words");
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12 && probabilities[0] > 0.4, "{probabilities:?}");
    let measured = super::evaluate(&classifier, &fresh.iter().collect::<Vec<_>>());
    assert!(measured.accuracy > 0.8, "{measured:?}");
    assert_eq!(classifier.probabilities(" \n"), None);
}

#[test]
fn a_classifier_is_the_same_bits_whatever_the_order_of_documents_and_number_of_threads() {
    let mut documents = two(1, 200);
    documents.push(Labelled::new(documents[0].text.clone(), "spam"));
    let train = |documents: Vec<Labelled>, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        pool.install(|| TextClassifier::train(documents, &small())).expect("trained")
    };
    let first = train(documents.clone(), 1);
    documents.reverse();
    let second = train(documents, 3);
    assert_eq!(first, second);
    assert_eq!(first.fingerprint(), second.fingerprint());
}

#[test]
fn a_stored_classifier_is_the_same_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("spam.model");
    let classifier = TextClassifier::train(two(1, 100), &small()).expect("trained");
    classifier.save(&path).expect("stored");
    assert_eq!(TextClassifier::load(&path).expect("read"), classifier);
    let message = || TextClassifier::load(&path).expect_err("refused").to_string();
    let mut bytes = fs::read(&path).expect("file");
    fs::write(&path, &bytes[..bytes.len() - 4]).expect("truncated");
    assert!(message().contains("bytes of weights"), "{}", message());
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&path, &bytes).expect("damaged");
    assert!(message().contains("hash"), "{}", message());
    fs::write(&path, "{}\n").expect("other");
    assert!(message().contains("spam.model:1: classifier"), "{}", message());
}

#[test]
fn labels_are_strings_numbers_or_booleans_and_a_line_without_one_is_named() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("a.jsonl");
    fs::write(
        &path,
        "{\"text\":\"x\",\"toxic\":true}\n{\"text\":\"y\",\"toxic\":0}\n{\"text\":\"z\",\"toxic\":\"no\"}\n",
    )
    .expect("file");
    let labels: Vec<String> =
        read_labelled(std::slice::from_ref(&path), "toxic").expect("labels").into_iter().map(|d| d.label).collect();
    assert_eq!(labels, ["true", "0", "no"]);
    fs::write(&path, "{\"text\":\"x\",\"toxic\":true}\n{\"text\":\"y\"}\n").expect("file");
    let message = read_labelled(&[path], "toxic").expect_err("no label").to_string();
    assert!(message.contains("a.jsonl:2") && message.contains("`toxic`"), "{message}");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for (settings, key) in [
        (ClassifierSettings { bits: 40, ..small() }, "bits"),
        (ClassifierSettings { char_ngrams: [3, 9], ..small() }, "char_ngrams"),
        (ClassifierSettings { held_out: 0.6, ..small() }, "held_out"),
        (ClassifierSettings { learning_rate: f32::NAN, ..small() }, "learning_rate"),
    ] {
        let message = TextClassifier::train(two(1, 10), &settings).expect_err(key).to_string();
        assert!(message.starts_with(key), "{message}");
    }
    let one = TextClassifier::train(vec![Labelled::new("x", "a")], &small()).expect_err("one label").to_string();
    assert!(one.contains("two at least"), "{one}");
}
