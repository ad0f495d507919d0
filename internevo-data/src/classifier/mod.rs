//! Text classifiers of any kind, by name ([`Classifier`]), the filters that ask them, and the one that is trained here, `linear`:
//! logistic regression over hashed n-grams of words and characters (the idea of fastText, Joulin et al. 2017), with calibrated
//! probabilities, for any number of classes.
//!
//! | file | holds |
//! |---|---|
//! | `plugin.rs` | what a classifier is, and how a crate offers one |
//! | `filter/` | the filters around one |
//! | `features.rs` | n-grams of a passage, hashed |
//! | `linear.rs` | the weights, and how they are fitted |
//! | `calibrate.rs` | from scores to probabilities (Platt) |
//! | `labelled.rs` | labelled documents and their split |
//! | `evaluate.rs` | precision, recall, F1, ROC-AUC, a table of thresholds |
//! | `file.rs` | the model's file |
//!
//! ```
//! use internevo_data::classifier::{ClassifierSettings, Labelled, TextClassifier};
//!
//! let documents: Vec<Labelled> = (0..200)
//!     .map(|i| match i % 2 {
//!         0 => Labelled::new(format!("win {i} coins at the casino tonight"), "spam"),
//!         _ => Labelled::new(format!("the committee met {i} times in spring"), "fine"),
//!     })
//!     .collect();
//! let classifier = TextClassifier::train(documents, &ClassifierSettings { bits: 14, ..Default::default() })?;
//! let spam = classifier.label("spam").expect("a label of the examples");
//! assert!(classifier.probabilities("a casino with coins to win").expect("there are words")[spam] > 0.5);
//! # Ok::<(), internevo_data::DataError>(())
//! ```
//!
//! Not here: the other classifiers (`fasttext/`, `onnx/`), what is asked of them (`safety/`, `quality/`), where examples come from.

mod calibrate;
mod evaluate;
mod features;
mod file;
mod filter;
mod labelled;
mod linear;
mod plugin;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    calibrate::Platt,
    evaluate::{ClassEvaluation, Evaluation, ThresholdRow, evaluate, roc_auc},
    filter::{Classified, ClassifiedConfig, ClassifierFilter, ClassifierFilterConfig, ClassifierRule, Question},
    labelled::{Labelled, read_labelled},
    linear::LinearModel,
    plugin::{Classifier, ClassifierContext, ClassifierEntry, ClassifierPlugin, classifiers, load},
};
use self::{
    features::{Collector, Extractor},
    labelled::Side,
};
use crate::DataError;

/// How a classifier is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierSettings {
    /// log2 of the number of weights (4 bytes each and class), 10 to 28.
    pub bits: u32,
    /// Longest n-gram of words, 1 or 2.
    pub word_ngrams: usize,
    /// Shortest and longest n-gram of characters, within words and across scripts without spaces; at most 6. Longest 0: none.
    pub char_ngrams: [usize; 2],
    /// Words, marks and characters of scripts without spaces that are judged at once. A document's score is the mean of its
    /// passages'.
    pub passage_tokens: usize,
    /// Passages of one document that train, evenly spaced: a long book must not decide what a class is.
    pub max_passages: usize,
    /// Passes over the examples.
    pub epochs: usize,
    /// Learning rate of the first step; falls linearly to zero.
    pub learning_rate: f32,
    /// Share of the documents that calibrate the scores, and as many again that measure the result.
    pub held_out: f64,
    /// Seed of the order of examples.
    pub seed: u64,
}

impl Default for ClassifierSettings {
    fn default() -> Self {
        Self {
            bits: 20,
            word_ngrams: 2,
            char_ngrams: [3, 4],
            passage_tokens: 256,
            max_passages: 8,
            epochs: 5,
            learning_rate: 0.5,
            held_out: 0.1,
            seed: 1,
        }
    }
}

impl ClassifierSettings {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |key: &str, reason: String| Err(DataError::Setting { key: key.into(), reason });
        if !linear::BITS.contains(&self.bits) {
            return wrong("bits", format!("{} is not in {:?}", self.bits, linear::BITS));
        }
        if !(1..=2).contains(&self.word_ngrams) {
            return wrong("word_ngrams", format!("{} is neither 1 nor 2", self.word_ngrams));
        }
        let [shortest, longest] = self.char_ngrams;
        if longest > features::MAX_CHARS || longest > 0 && !(1..=longest).contains(&shortest) {
            return wrong("char_ngrams", format!("{shortest} to {longest} is not a range within 1 to 6"));
        }
        if self.passage_tokens == 0 || self.max_passages == 0 {
            return wrong("passage_tokens", "a passage has a token and a document a passage".into());
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong("learning_rate", format!("{} is no positive number", self.learning_rate));
        }
        if !(0.0..=0.4).contains(&self.held_out) {
            return wrong("held_out", format!("{} is not in 0 to 0.4", self.held_out));
        }
        Ok(())
    }
}

/// A trained classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct TextClassifier {
    settings: ClassifierSettings,
    /// Sorted. Of two labels the model scores the second only.
    labels: Vec<String>,
    model: LinearModel,
    /// One for each output of the model.
    calibration: Vec<Platt>,
    evaluation: Evaluation,
}

impl TextClassifier {
    /// Trains on `documents`. The result depends on their texts and labels and on `settings`, not on their order.
    ///
    /// One part of the documents trains, one calibrates and one measures; which, depends on the text alone, so that equal texts are
    /// on one side.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting out of range, or fewer than two labels.
    pub fn train(mut documents: Vec<Labelled>, settings: &ClassifierSettings) -> Result<Self, DataError> {
        settings.check()?;
        labelled::order(&mut documents);
        let labels = labelled::labels(&documents)?;
        let sides = labelled::sides(&documents, settings);
        let of = |side: Side| documents.iter().zip(&sides).filter(move |(_, own)| **own == side).map(|(d, _)| d);
        let mut classifier = Self {
            settings: settings.clone(),
            model: LinearModel::zero(settings.bits, outputs(&labels)),
            calibration: vec![Platt::default(); outputs(&labels)],
            evaluation: Evaluation::default(),
            labels,
        };
        classifier.fit(&of(Side::Train).collect::<Vec<_>>());
        classifier.calibrate(&of(Side::Calibrate).collect::<Vec<_>>());
        classifier.evaluation = evaluate(&classifier, &of(Side::Test).collect::<Vec<_>>());
        Ok(classifier)
    }

    /// The labels, sorted.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The place of `label` among [`TextClassifier::probabilities`].
    pub fn label(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|own| own == label)
    }

    /// How it was trained.
    pub fn settings(&self) -> &ClassifierSettings {
        &self.settings
    }

    /// What was measured after the training, on documents that took no part in it.
    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// Probability of each label, in the order of [`TextClassifier::labels`]; `None` of a text without words and marks.
    pub fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        let logits = self.logits(text)?;
        let own: Vec<f64> =
            logits.iter().zip(&self.calibration).map(|(logit, platt)| platt.probability(*logit)).collect();
        Some(match own.as_slice() {
            [second] => vec![1.0 - second, *second],
            all => {
                let sum: f64 = all.iter().sum();
                all.iter().map(|p| p / sum).collect()
            }
        })
    }

    /// Mean of the passages' scores, weighted by their tokens, one for each output.
    fn logits(&self, text: &str) -> Option<Vec<f64>> {
        let mut scorer = linear::Scorer::new(&self.model);
        Extractor::new(&self.settings).passages(text, &mut scorer);
        scorer.mean()
    }

    fn fit(&mut self, documents: &[&Labelled]) {
        let extractor = Extractor::new(&self.settings);
        let mut passages = Vec::new();
        for document in documents {
            let label = self.label(&document.label).expect("the labels are the examples' own");
            let found = extractor.cut(&document.text);
            let step = found.len().div_ceil(self.settings.max_passages).max(1);
            passages.extend(found.into_iter().step_by(step).map(|range| (&document.text[range], label)));
        }
        let features = |text: &str, collector: &mut Collector| {
            collector.indices.clear();
            extractor.passages(text, collector);
        };
        self.model.fit(&passages, &self.settings, features);
    }

    fn calibrate(&mut self, documents: &[&Labelled]) {
        let scored: Vec<(Vec<f64>, &str)> = documents
            .par_iter()
            .filter_map(|document| Some((self.logits(&document.text)?, document.label.as_str())))
            .collect();
        let outputs = self.calibration.len();
        for (output, platt) in self.calibration.iter_mut().enumerate() {
            let label = &self.labels[if outputs == 1 { 1 } else { output }];
            let pairs: Vec<(f64, bool)> = scored.iter().map(|(logits, own)| (logits[output], own == label)).collect();
            *platt = Platt::fit(&pairs);
        }
    }
}

/// Two classes need one score.
fn outputs(labels: &[String]) -> usize {
    if labels.len() == 2 { 1 } else { labels.len() }
}
