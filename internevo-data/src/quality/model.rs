//! A linear model over hashed features: logistic regression by averaged stochastic gradient descent, and its file.
//!
//! Training is sequential in a fixed order, so the weights are the same bits on every run. The file is one JSON line
//! (settings, report, hash) followed by the weights as little-endian f32.

use std::path::Path;

use internevo_core::{
    rng::CounterRng,
    storage::{self, write_atomic},
};
use serde::{Deserialize, Serialize};

use super::{QualityReport, QualitySettings};
use crate::DataError;

/// First field of the file's header.
const FORMAT: &str = "internevo-quality-1";

/// Sizes of the weight table that make sense: 4 KiB to 1 GiB.
pub const BITS: std::ops::RangeInclusive<u32> = 10..=28;

/// A feature that counts for the length of its passage but has no weight.
pub const FORGOTTEN: u32 = u32::MAX;

/// One training example: feature indices and whether it is good text.
#[derive(Clone, Debug)]
pub struct Example {
    /// Indices below the number of weights, or [`FORGOTTEN`].
    pub features: Vec<u32>,
    /// The label.
    pub good: bool,
}

/// Weights of hashed features.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearModel {
    weights: Vec<f32>,
    bias: f32,
}

impl LinearModel {
    /// Fits `examples` in `epochs` passes, each in its own fixed random order. `bits`: log2 of the number of weights.
    pub fn fit(examples: &[Example], bits: u32, epochs: usize, learning_rate: f32, seed: u64) -> Self {
        let mut model = Self { weights: vec![0.0; 1 << bits], bias: 0.0 };
        // Averaging without touching every weight at every step: the average is `w - drift / steps`, where `drift`
        // collects each update times the number of steps before it.
        let mut drift = Self { weights: vec![0.0; 1 << bits], bias: 0.0 };
        let steps = (epochs * examples.len()) as f32;
        let mut step = 0.0f32;
        for epoch in 0..epochs {
            for at in CounterRng::new(seed, &format!("quality/epoch-{epoch}")).permutation(examples.len()) {
                let example = &examples[at as usize];
                let error = f32::from(u8::from(example.good)) - model.probability(&example.features);
                let update = learning_rate * (1.0 - step / steps) * error;
                let share = update * norm(&example.features);
                for index in example.features.iter().filter(|index| **index != FORGOTTEN) {
                    model.weights[*index as usize] += share;
                    drift.weights[*index as usize] += share * step;
                }
                model.bias += update;
                drift.bias += update * step;
                step += 1.0;
            }
        }
        if step > 0.0 {
            model.weights.iter_mut().zip(&drift.weights).for_each(|(w, d)| *w -= d / step);
            model.bias -= drift.bias / step;
        }
        model
    }

    /// Probability in `(0, 1)` that a passage with these features is good text.
    pub fn probability(&self, features: &[u32]) -> f32 {
        let weight = |index: &u32| if *index == FORGOTTEN { 0.0 } else { self.weights[*index as usize] };
        let sum: f32 = features.iter().map(weight).sum();
        let logit = self.bias + sum * norm(features);
        1.0 / (1.0 + (-logit).exp())
    }

    /// log2 of the number of weights.
    pub fn bits(&self) -> u32 {
        self.weights.len().trailing_zeros()
    }
}

/// Every passage has a feature vector of about unit length.
fn norm(features: &[u32]) -> f32 {
    1.0 / (features.len().max(1) as f32).sqrt()
}

/// A trained model with what it was trained from.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityModel {
    /// The weights.
    pub model: LinearModel,
    /// Settings of the training.
    pub settings: QualitySettings,
    /// What the training measured.
    pub report: QualityReport,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    settings: QualitySettings,
    report: QualityReport,
    bias: f32,
    /// blake3 of the weights' bytes.
    weights_blake3: String,
}

impl QualityModel {
    /// Hash of everything that a score depends on.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.model.bias.to_le_bytes());
        self.model.weights.iter().for_each(|weight| {
            hasher.update(&weight.to_le_bytes());
        });
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Writes the artifact as a whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let weights: Vec<u8> = self.model.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let header = Header {
            format: FORMAT.into(),
            settings: self.settings.clone(),
            report: self.report.clone(),
            bias: self.model.bias,
            weights_blake3: blake3::hash(&weights).to_hex().to_string(),
        };
        let mut bytes = serde_json::to_vec(&header).expect("a header of numbers and strings is JSON");
        bytes.push(b'\n');
        bytes.extend(weights);
        Ok(write_atomic(path, bytes)?)
    }

    /// Reads an artifact and checks its hash.
    ///
    /// # Errors
    /// [`DataError::Invalid`] when it is no artifact, or truncated or changed since it was written.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = storage::read(path)?;
        let invalid = |reason: String| DataError::invalid(path, 1, format!("quality model: {reason}"));
        let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| invalid("no header line".into()))?;
        let header: Header = serde_json::from_slice(&bytes[..end]).map_err(|e| invalid(e.to_string()))?;
        let stored = &bytes[end + 1..];
        if header.format != FORMAT {
            return Err(invalid(format!("format is `{}`, expected `{FORMAT}`", header.format)));
        }
        if !BITS.contains(&header.settings.bits) || stored.len() != 4 << header.settings.bits {
            return Err(invalid(format!(
                "{} bytes of weights do not fit `bits` {}",
                stored.len(),
                header.settings.bits
            )));
        }
        let weights: Vec<f32> =
            stored.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        if blake3::hash(stored).to_hex().as_str() != header.weights_blake3 {
            return Err(invalid(
                "the weights do not have the hash of the header; delete the file to train again".into(),
            ));
        }
        let model = LinearModel { weights, bias: header.bias };
        Ok(Self { model, settings: header.settings, report: header.report })
    }
}
