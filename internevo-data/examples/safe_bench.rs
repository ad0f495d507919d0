//! What the safe stage costs: `cargo run --release -p internevo-data --example safe_bench -- classifier FILE…`
//!
//! | command | measures |
//! |---|---|
//! | `classifier FILES…` | training and prediction of a text classifier, megabytes (10^6 bytes of UTF-8) per second of one thread |
//!
//! Files are read as bytes of UTF-8 text and cut into documents of 4 000 bytes at line ends.

use std::{hint::black_box, time::Instant};

use internevo_data::classifier::{ClassifierSettings, Labelled, TextClassifier};

const DOCUMENT_BYTES: usize = 4000;

fn documents(paths: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let text = String::from_utf8_lossy(&std::fs::read(path).expect("a readable file")).into_owned();
        let mut current = String::new();
        for line in text.split_inclusive('\n') {
            current.push_str(line);
            if current.len() > DOCUMENT_BYTES {
                found.push(std::mem::take(&mut current));
            }
        }
        found.push(current);
    }
    found
}

/// Tells documents of the first half from those of the second: the weights are what they may be, the work is the same.
fn classifier(paths: &[String]) {
    let documents = documents(paths);
    let megabytes = documents.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let half = documents.len() / 2;
    let labelled = documents.iter().enumerate();
    let labelled: Vec<Labelled> =
        labelled.map(|(at, text)| Labelled::new(text, if at < half { "first" } else { "second" })).collect();
    let settings = ClassifierSettings::default();
    let start = Instant::now();
    let classifier = TextClassifier::train(labelled, &settings).expect("two labels");
    let training = start.elapsed().as_secs_f64();
    println!(
        "{} documents, {megabytes:.1} MB; training {training:.1} s for {} epochs",
        documents.len(),
        settings.epochs
    );
    println!("{:?}", classifier.evaluation().classes["first"].best);
    let start = Instant::now();
    documents.iter().for_each(|text| drop(black_box(classifier.probabilities(text))));
    println!("prediction {:.1} MB per second of one thread", megabytes / start.elapsed().as_secs_f64());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, paths)) if command == "classifier" && !paths.is_empty() => classifier(paths),
        _ => eprintln!("safe_bench classifier FILES…"),
    }
}
