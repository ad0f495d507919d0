//! `internevo data classifier contrast|train|evaluate`

use std::{io::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use internevo_core::storage::AtomicFile;
use internevo_data::{
    Document,
    classifier::{ClassifierContext, ClassifierSettings, Evaluation, TextClassifier, evaluate, load, read_labelled},
    plugin::Plugin as _,
    quality::{QualitySettings, contrast_examples},
};
use serde_json::json;

use crate::{config_args, context::Context, corpus::texts, error::OrUser as _, terminal, user_bail};

/// Text classifiers, which filters such as `fluency`, `toxicity` and `classifier` ask.
#[derive(Debug, Subcommand)]
pub enum ClassifierCommand {
    /// Make labelled examples of fluent and of corrupted text from documents
    Contrast(Contrast),
    /// Train a classifier on labelled documents
    Train(ClassifierTrain),
    /// Measure a classifier on labelled documents
    Evaluate(ClassifierEvaluate),
}

/// Makes examples.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo data classifier contrast --input formatted --output examples.jsonl\n  internevo data classifier train --input examples.jsonl --output models/fluency.classifier\n\nPassages of the documents are labelled `fluent`, the same passages shuffled, garbled or repeated `noise`."
)]
pub struct Contrast {
    /// JSONL(.gz/.zst) documents, or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// The examples (JSONL with `label`)
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Passages at most; each brings a corrupted one
    #[arg(long, default_value_t = QualitySettings::default().max_passages, value_name = "N")]
    pub max_passages: usize,
    /// Seed of the corruptions
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// Trains a classifier.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo data classifier train --input labelled --output models/advertisement.classifier\n\nOne part of the documents trains, one calibrates the probabilities, one measures the result."
)]
pub struct ClassifierTrain {
    /// JSONL(.gz/.zst) documents with a label, or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// The classifier
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Field that holds the label
    #[arg(long, default_value = "label", value_name = "FIELD")]
    pub field: String,
    /// Settings of the training
    #[command(flatten)]
    pub settings: ClassifierFlags,
}

/// Settings of a training.
#[derive(Args, Debug)]
pub struct ClassifierFlags {
    /// log2 of the number of weights
    #[arg(long, default_value_t = ClassifierSettings::default().bits, value_name = "N")]
    pub bits: u32,
    /// Longest n-gram of words
    #[arg(long, default_value_t = ClassifierSettings::default().word_ngrams, value_name = "N")]
    pub word_ngrams: usize,
    /// Passes over the examples
    #[arg(long, default_value_t = ClassifierSettings::default().epochs, value_name = "N")]
    pub epochs: usize,
    /// Learning rate of the first step
    #[arg(long, default_value_t = ClassifierSettings::default().learning_rate, value_name = "X")]
    pub learning_rate: f32,
    /// Seed of the order of examples
    #[arg(long, default_value_t = ClassifierSettings::default().seed, value_name = "N")]
    pub seed: u64,
}

/// Measures a classifier.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data classifier evaluate --model models/advertisement.classifier --input held-out.jsonl\n  internevo data classifier evaluate --classifier fasttext --model hq.bin --input held-out.jsonl"
)]
pub struct ClassifierEvaluate {
    /// File of the model
    #[arg(long, value_name = "FILE", required_unless_present = "classifier")]
    pub model: Option<PathBuf>,
    /// Kind of classifier: linear, fasttext, onnx (feature), or one of another crate
    #[arg(long, default_value = TextClassifier::NAME, value_name = "NAME")]
    pub classifier: String,
    /// A setting of the classifier, as a line of TOML
    #[arg(long, value_name = "KEY = VALUE")]
    pub setting: Vec<String>,
    /// JSONL(.gz/.zst) documents with a label, or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Field that holds the label
    #[arg(long, default_value = "label", value_name = "FIELD")]
    pub field: String,
}

impl ClassifierCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When input or settings are wrong, or a file cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Contrast(c) => c.run(cx),
            Self::Train(c) => c.run(cx),
            Self::Evaluate(c) => c.run(cx),
        }
    }
}

impl Contrast {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let settings =
            QualitySettings { max_passages: self.max_passages, seed: self.seed, ..QualitySettings::default() };
        let examples = contrast_examples(&texts::files(&self.input)?, &settings)?;
        let mut file = AtomicFile::create(&self.output)?;
        let mut line = Vec::new();
        for (at, example) in examples.iter().enumerate() {
            let mut document = Document::new(at.to_string(), example.text.as_str());
            document.meta.insert("label".into(), example.label.as_str().into());
            line.clear();
            document.write_line(&mut line);
            file.write_all(&line)?;
        }
        file.commit()?;
        let document = json!({ "examples": examples.len(), "output": self.output });
        cx.emit(&document, || {
            format!("{} examples, {}\n", terminal::count(examples.len() as u64), self.output.display())
        })
    }
}

impl ClassifierTrain {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let ClassifierFlags { bits, word_ngrams, epochs, learning_rate, seed } = self.settings;
        let settings =
            ClassifierSettings { bits, word_ngrams, epochs, learning_rate, seed, ..ClassifierSettings::default() };
        let documents = read_labelled(&texts::files(&self.input)?, &self.field).or_user()?;
        let count = documents.len();
        let classifier = TextClassifier::train(documents, &settings).or_user()?;
        classifier.save(&self.output)?;
        let evaluation = classifier.evaluation();
        let document = json!({
            "model": self.output, "documents": count, "labels": classifier.labels(), "evaluation": evaluation,
        });
        cx.emit(&document, || {
            format!(
                "trained on {} documents, measured on {} others\n\n{}\n{}\n",
                terminal::count(count as u64 - evaluation.documents),
                terminal::count(evaluation.documents),
                table(evaluation),
                self.output.display()
            )
        })
    }
}

impl ClassifierEvaluate {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let settings = config_args::settings("--setting", &self.setting)?;
        let model = self.model.unwrap_or_default();
        let classifier = load(&self.classifier, &settings, &ClassifierContext { model: &model }).or_user()?;
        let documents = read_labelled(&texts::files(&self.input)?, &self.field).or_user()?;
        let evaluation = evaluate(&*classifier, &documents.iter().collect::<Vec<_>>());
        if let Some(reason) = classifier.failure() {
            user_bail!("{}: {reason}", self.classifier);
        }
        cx.emit(&evaluation, || table(&evaluation))
    }
}

fn table(evaluation: &Evaluation) -> String {
    let head = ["label", "documents", "AUC", "best F1", "at", "precision", "recall"].map(str::to_owned);
    let rows = evaluation.classes.iter().map(|(label, class)| {
        let best = &class.best;
        [
            label.clone(),
            terminal::count(class.documents),
            class.auc.map_or_else(|| "-".to_owned(), |auc| format!("{auc:.4}")),
            format!("{:.4}", best.f1),
            format!("{:.2}", best.threshold),
            format!("{:.4}", best.precision),
            format!("{:.4}", best.recall),
        ]
    });
    let table = terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    format!("accuracy {:.4}, log loss {:.4}\n\n{table}", evaluation.accuracy, evaluation.log_loss)
}
