//! A trained classifier of fluency: does a passage read like text that somebody wrote, or like something else?
//!
//! # What it is, honestly
//! A linear model over hashed n-grams (the idea of fastText), trained by *noise contrast* on the corpus itself: the
//! good class is passages of the corpus' own prose that pass simple rules, the bad class is the same passages with
//! their words shuffled, their letters replaced, their fragments repeated as lists, and tables of hexadecimal numbers.
//! It recognises word salad, garbled extraction, menus and number dumps. It does not know truth, style or usefulness,
//! and it cannot be better than the corpus it was trained on. A classifier trained on human judgements would replace
//! `quality.model` by the same interface.
//!
//! Source code is not judged (its fluency is another language); such documents stay. So do documents too short to
//! judge, and those in a language that the model has seen little of: it would take foreign words for noise.
//!
//! | file | holds |
//! |---|---|
//! | `features.rs` | tokens and hashed n-grams |
//! | `corrupt.rs` | negative examples |
//! | `model.rs` | logistic regression and its file |
//! | `train.rs` | choosing examples, fitting, measuring |
//! | `filter.rs` | the `quality_classifier` filter |
//! | `classified.rs` | `fluency` and `advertisement`: what a classifier of any kind says |
//! | `threshold.rs` | choosing any filter's threshold from labelled documents |
//! | `borderline.rs` | drawing the documents to label |

mod borderline;
mod classified;
mod corrupt;
pub(crate) mod features;
mod filter;
mod model;
mod threshold;
#[cfg(test)]
mod threshold_tests;
mod train;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use internevo_core::{
    config::PipelineConfig,
    plugin::{Plugin, parse_config},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    borderline::{Borderline, BorderlineSettings},
    classified::{Advertisement, Fluency},
    corrupt::Corruption,
    filter::{QualityClassifier, QualityClassifierConfig},
    model::{LinearModel, QualityModel},
    threshold::{
        Interval, Keeps, LabelledValue, Target, ThresholdPoint, ThresholdReport, ThresholdSettings, VALUES,
        choose_threshold, read_labelled_values,
    },
};
use crate::{
    DataError, Document,
    classifier::Labelled,
    stage::{InputFile, Progress},
};

/// Name of the model's file in the folder of trained models.
pub const MODEL_FILE: &str = "quality.model";

/// How the classifier is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QualitySettings {
    /// log2 of the number of weights (4 bytes each).
    pub bits: u32,
    /// Passes over the examples.
    pub epochs: usize,
    /// Learning rate of the first step; falls linearly to zero.
    pub learning_rate: f32,
    /// Good passages used at most; each brings one corrupted twin.
    pub max_passages: usize,
    /// Seed of corruption and order.
    pub seed: u64,
}

impl Default for QualitySettings {
    fn default() -> Self {
        Self { bits: 18, epochs: 4, learning_rate: 1.0, max_passages: 20_000, seed: 1 }
    }
}

/// What a training measured, on packages that gave no training example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityReport {
    /// Was there enough text, and does the model know unseen real text from noise? Otherwise it keeps every document.
    pub trained: bool,
    /// Documents that gave good passages.
    pub documents: u64,
    /// Good passages found, held-out ones included.
    pub passages: u64,
    /// Good passages that were held out.
    pub held_out: u64,
    /// Passages that it was trained on, by the documents' `lang` (empty where they have none).
    pub languages: BTreeMap<String, u64>,
    /// Share of held-out examples (half of them corrupted) on the right side of 0.5.
    pub accuracy: f64,
    /// Probability that a held-out real passage scores higher than a held-out corrupted one.
    pub auc: f64,
    /// Accuracy on real passages (`real`) and on each kind of corruption.
    pub accuracy_by_kind: BTreeMap<String, f64>,
}

/// Trains a classifier on the documents of `files` (JSONL, or one document each) and stores it at `out_path`.
///
/// The result depends on the documents and `settings` only. With too little prose the stored model is untrained and
/// keeps everything; `report.trained` says so.
///
/// # Errors
/// A setting out of range, a file that cannot be read or written. Broken lines are passed over.
pub fn train(
    files: &[PathBuf],
    out_path: &Path,
    settings: &QualitySettings,
    progress: &dyn Progress,
) -> Result<QualityReport, DataError> {
    settings
        .check()
        .map_err(|reason| DataError::Setting { key: "pipeline.filter.quality_classifier".into(), reason })?;
    let model = train::fit(files, settings, progress)?;
    model.save(out_path)?;
    Ok(model.report)
}

/// Labels of [`contrast_examples`].
pub const CONTRAST_LABELS: [&str; 2] = ["fluent", "noise"];

/// Labelled passages for a classifier of fluency where nobody has labelled any: good passages of the documents of `files`, labelled
/// `fluent`, and the same passages corrupted, labelled `noise`. Depends on the documents and the settings only.
///
/// # Errors
/// A file that cannot be read. Broken lines are passed over.
pub fn contrast_examples(files: &[PathBuf], settings: &QualitySettings) -> Result<Vec<Labelled>, DataError> {
    train::contrast(files, settings)
}

/// Trains the classifier of `pipeline.filter.quality_classifier` on `inputs` unless `artifacts` already holds one;
/// `None` if so, or if neither `pipeline.quality` nor a strategy uses it.
///
/// To be called before the `quality` stage, with the widest prose there is: the output of `format` shows the model more
/// of what real text looks like than what later stages leave.
///
/// # Errors
/// As [`train`], and settings that do not fit.
pub fn ensure_trained(
    inputs: &[InputFile],
    artifacts: &Path,
    pipeline: &PipelineConfig,
    progress: &dyn Progress,
) -> Result<Option<QualityReport>, DataError> {
    let name = QualityClassifier::NAME;
    let path = artifacts.join(MODEL_FILE);
    if path.is_file() || !pipeline.all_filters("quality").any(|filter| filter == name) {
        return Ok(None);
    }
    let table = pipeline.filter.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let config = parse_config::<QualityClassifier>(&table)?;
    let files: Vec<PathBuf> = inputs.iter().map(|input| input.path.clone()).collect();
    train(&files, &path, &config.train, progress).map(Some)
}

/// Is a document prose? Decided by its `type`; a document without one is, unless its `lang` says that it is code.
pub(crate) fn is_prose(document: &Document) -> bool {
    !document.is_code() && matches!(document.field("type"), None | Some("text" | "markdown" | "html" | "licence"))
}

#[cfg(test)]
mod tests;
