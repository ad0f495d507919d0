//! `onnx`: a network in an ONNX file as a text classifier, such as a BERT that was fine-tuned to find toxic texts (feature `onnx`).
//!
//! ```toml
//! [pipeline.filter.toxicity]
//! classifier = "onnx"
//! model = "models/toxic-bert/model.onnx"   # beside it tokenizer.json, and config.json with the labels
//! label = "toxic"
//! threshold = 0.8
//! settings.max_length = 256
//! ```
//!
//! A text is cut into passages of `max_length` tokens, special ones included; a document's probability is the mean of its passages',
//! weighted by their tokens. Passages of one document run in batches, documents on the threads of the stage.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the classifier and its settings |
//! | `network.rs` | the network, run by tract |

mod network;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use internevo_core::{
    plugin::{Plugin, PluginError},
    storage,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::{Encoding, Tokenizer, TruncationDirection};

use self::network::Network;
use crate::{
    classifier::{Classifier, ClassifierContext, ClassifierPlugin},
    register_classifier,
};

/// How logits become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// One label of several is true.
    Softmax,
    /// Each label is true or not.
    Sigmoid,
}

/// Names of the network's inputs. One that the network does not have is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxInputs {
    /// Token ids.
    pub ids: String,
    /// 1 for each token.
    pub mask: String,
    /// Token types (segments).
    pub types: String,
}

impl Default for OnnxInputs {
    fn default() -> Self {
        Self { ids: "input_ids".into(), mask: "attention_mask".into(), types: "token_type_ids".into() }
    }
}

/// Settings of `onnx`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxConfig {
    /// The `tokenizer.json`. Empty: the one beside the model.
    pub tokenizer: String,
    /// Labels in the order of the outputs. Empty: `id2label` of the `config.json` beside the model.
    pub labels: Vec<String>,
    /// `softmax` or `sigmoid`. Unset: `sigmoid` where `problem_type` of that `config.json` is `multi_label_classification`, else
    /// `softmax`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Names of the network's inputs.
    pub inputs: OnnxInputs,
    /// Most tokens of a passage, special ones included.
    pub max_length: usize,
    /// Passages of a document that run at once.
    pub batch: usize,
    /// Most passages of a document, evenly spaced; 0: all.
    pub max_passages: usize,
}

impl Default for OnnxConfig {
    fn default() -> Self {
        Self {
            tokenizer: String::new(),
            labels: Vec::new(),
            activation: None,
            inputs: OnnxInputs::default(),
            max_length: 512,
            batch: 8,
            max_passages: 8,
        }
    }
}

/// The classifier.
pub struct OnnxClassifier {
    network: Network,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    activation: Activation,
    max_length: usize,
    batch: usize,
    max_passages: usize,
    fingerprint: String,
    /// The first text that the network could not judge, and why.
    failure: Mutex<Option<String>>,
}

/// What the `config.json` of a Hugging Face model says about its outputs.
#[derive(Default, Deserialize)]
struct ModelCard {
    #[serde(default)]
    id2label: BTreeMap<usize, String>,
    #[serde(default)]
    problem_type: Option<String>,
}

impl ModelCard {
    fn beside(model: &Path) -> Result<Self, String> {
        let path = model.with_file_name("config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let bytes = storage::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn activation(&self) -> Activation {
        match self.problem_type.as_deref() {
            Some("multi_label_classification") => Activation::Sigmoid,
            _ => Activation::Softmax,
        }
    }
}

impl OnnxClassifier {
    /// Reads network and tokenizer, and tries them on a text.
    ///
    /// # Errors
    /// A file that is missing or damaged, inputs or outputs that do not fit, in one sentence.
    pub fn new(config: OnnxConfig, model: &Path) -> Result<Self, String> {
        if config.batch == 0 {
            return Err("batch is 0: a network needs a passage to judge".into());
        }
        let tokenizer_path = match config.tokenizer.as_str() {
            "" => model.with_file_name("tokenizer.json"),
            named => named.into(),
        };
        let mut hasher = blake3::Hasher::new();
        for path in model_files(model).iter().chain([&tokenizer_path]) {
            hasher.update(&storage::read(path).map_err(|error| error.to_string())?);
        }
        let tokenizer = tokenizer(&tokenizer_path, config.max_length)?;
        let in_model = |reason: String| format!("{}: {reason}", model.display());
        let card = ModelCard::beside(model)?;
        let classifier = Self {
            network: Network::load(model, &config.inputs).map_err(in_model)?,
            tokenizer,
            activation: config.activation.unwrap_or_else(|| card.activation()),
            labels: if config.labels.is_empty() { card.id2label.into_values().collect() } else { config.labels },
            max_length: config.max_length,
            batch: config.batch,
            max_passages: config.max_passages,
            fingerprint: hasher.finalize().to_hex()[..16].to_owned(),
            failure: Mutex::default(),
        };
        classifier.check().map_err(in_model)?;
        Ok(classifier)
    }

    /// Runs a text, so that a network that does not fit is known before a stage begins.
    fn check(&self) -> Result<(), String> {
        let passage = self.tokenizer.encode_fast("a", true).map_err(|error| error.to_string())?;
        let outputs = self.network.run(&[passage])?[0].len();
        if self.labels.len() != outputs {
            let labels = &self.labels;
            return Err(format!("the network has {outputs} outputs, the labels are {labels:?}: name them in `labels`"));
        }
        if outputs == 1 && self.activation == Activation::Softmax {
            return Err("softmax of one output is always 1; set `activation = \"sigmoid\"`".into());
        }
        self.judge("a").map(drop)
    }

    /// Mean probabilities of a text's passages; `None` where it has no tokens.
    fn judge(&self, text: &str) -> Result<Option<Vec<f64>>, String> {
        let passages = self.passages(text)?;
        let mut sums = vec![0.0; self.labels.len()];
        // All but the last are of one length: what runs together, and so the last bit of the result, depends on the text alone.
        for alike in passages.chunk_by(|a, b| a.len() == b.len()) {
            for batch in alike.chunks(self.batch) {
                for (logits, passage) in self.network.run(batch)?.iter().zip(batch) {
                    let tokens = self.own_tokens(passage) as f64;
                    sums.iter_mut().zip(self.activate(logits)?).for_each(|(sum, p)| *sum += tokens * p);
                }
            }
        }
        let tokens: usize = passages.iter().map(|passage| self.own_tokens(passage)).sum();
        Ok((tokens > 0).then(|| sums.iter().map(|sum| sum / tokens as f64).collect()))
    }

    /// The passages of a text that are judged, with their special tokens. The tokenizer's own truncation would not do: it stops
    /// reading soon after the first passage.
    fn passages(&self, text: &str) -> Result<Vec<Encoding>, String> {
        let told = |error: tokenizers::Error| error.to_string();
        let mut first = self.tokenizer.encode_fast(text, false).map_err(told)?;
        let room = self.max_length - special_tokens(&self.tokenizer);
        first.truncate(room, 0, TruncationDirection::Right);
        let rest = first.take_overflowing();
        let all: Vec<Encoding> = std::iter::once(first).chain(rest).filter(|passage| !passage.is_empty()).collect();
        let step = if self.max_passages == 0 { 1 } else { all.len().div_ceil(self.max_passages).max(1) };
        let chosen = all.into_iter().step_by(step);
        chosen.map(|passage| self.tokenizer.post_process(passage, None, true).map_err(told)).collect()
    }

    /// Tokens of a passage that are of its text.
    fn own_tokens(&self, passage: &Encoding) -> usize {
        passage.len().saturating_sub(special_tokens(&self.tokenizer))
    }

    /// What the outputs say.
    fn activate(&self, logits: &[f32]) -> Result<Vec<f64>, String> {
        if let Some(wrong) = logits.iter().find(|logit| !logit.is_finite()) {
            return Err(format!("the network gives {wrong}"));
        }
        let logits = logits.iter().map(|logit| f64::from(*logit));
        Ok(match self.activation {
            Activation::Sigmoid => logits.map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
            Activation::Softmax => {
                let greatest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = logits.map(|logit| (logit - greatest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            }
        })
    }
}

/// The model's file, and those beside it whose names go on where its name ends: exporters put large weights there.
fn model_files(model: &Path) -> Vec<PathBuf> {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let goes_on = |path: &PathBuf| {
        let other = path.file_name().unwrap_or_default().to_string_lossy();
        other.strip_prefix(&*name).is_some_and(|rest| !rest.is_empty())
    };
    let mut weights: Vec<PathBuf> = beside.filter(goes_on).collect();
    weights.sort();
    weights.insert(0, model.to_owned());
    weights
}

/// The tokenizer, which neither cuts nor pads.
fn tokenizer(path: &Path, max_length: usize) -> Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::from_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let special = special_tokens(&tokenizer);
    if max_length <= special {
        return Err(format!("max_length is {max_length}, of which special tokens take {special}"));
    }
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    // Text is text: `[SEP]` in a page ends no passage.
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

/// Tokens that are added to every passage, such as `[CLS]`.
fn special_tokens(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_post_processor().map_or(0, |post| tokenizers::PostProcessor::added_tokens(post, false))
}

impl Plugin for OnnxClassifier {
    const NAME: &'static str = "onnx";
    const ABOUT: &'static str = "A network in an ONNX file with its tokenizer.json, such as a fine-tuned BERT.";
    type Config = OnnxConfig;
}

impl ClassifierPlugin for OnnxClassifier {
    fn build(config: OnnxConfig, cx: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError> {
        Ok(Box::new(Self::new(config, cx.model).map_err(Self::refused)?))
    }
}

register_classifier!(OnnxClassifier);

impl Classifier for OnnxClassifier {
    fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// After the first text that cannot be judged there are no answers any more: [`Classifier::failure`] stops the run.
    fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        /// Characters of a text that a message shows.
        const SHOWN: usize = 60;
        self.judge(text).unwrap_or_else(|reason| {
            let start: String = text.chars().take(SHOWN).collect();
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(format!("{reason} for the text that begins {start:?}"));
            None
        })
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
