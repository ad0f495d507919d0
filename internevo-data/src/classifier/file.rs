//! A classifier's file: one JSON line (settings, labels, calibration, what was measured), the weights as little-endian f32, and the
//! blake3 hash of both.

use std::path::Path;

use internevo_core::storage::{self, write_atomic};
use serde::{Deserialize, Serialize};

use super::{ClassifierSettings, Evaluation, LinearModel, Platt, TextClassifier, outputs};
use crate::DataError;

/// First field of the header; the number is the version of features and file.
const FORMAT: &str = "internevo-classifier-2";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    settings: ClassifierSettings,
    labels: Vec<String>,
    bias: Vec<f32>,
    calibration: Vec<Platt>,
    evaluation: Evaluation,
}

/// Bytes of the hash at the end.
const HASH_BYTES: usize = blake3::OUT_LEN;

impl TextClassifier {
    /// Hash of everything that a probability depends on.
    pub fn fingerprint(&self) -> String {
        let header = Header { evaluation: Evaluation::default(), ..self.header() };
        blake3::hash(&self.content(&header)).to_hex()[..16].to_owned()
    }

    /// Writes the file as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let mut bytes = self.content(&self.header());
        bytes.extend(blake3::hash(&bytes).as_bytes());
        Ok(write_atomic(path, bytes)?)
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// [`DataError::Invalid`] when it is no classifier of this version, or truncated or changed since it was written.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        let bytes = storage::read(path)?;
        let invalid = |reason: String| DataError::invalid(path, 1, format!("classifier: {reason}"));
        let end = memchr::memchr(b'\n', &bytes).ok_or_else(|| invalid("no header line".into()))?;
        let header: Header = serde_json::from_slice(&bytes[..end]).map_err(|e| invalid(e.to_string()))?;
        let content = &bytes[..bytes.len().saturating_sub(HASH_BYTES).max(end + 1)];
        let (stored, outputs) = (&content[end + 1..], outputs(&header.labels));
        if header.format != FORMAT {
            return Err(invalid(format!("format is `{}`, expected `{FORMAT}`", header.format)));
        }
        header.settings.check().map_err(|error| invalid(error.to_string()))?;
        if header.labels.len() < 2 || header.bias.len() != outputs || header.calibration.len() != outputs {
            return Err(invalid(format!("labels {:?}, bias and calibration do not fit", header.labels)));
        }
        if stored.len() != (4 * outputs) << header.settings.bits {
            let bits = header.settings.bits;
            return Err(invalid(format!("{} bytes of weights do not fit `bits` {bits}", stored.len())));
        }
        if blake3::hash(content).as_bytes()[..] != bytes[content.len()..] {
            return Err(invalid("it does not have the hash at its end; train it again".into()));
        }
        let weights = stored.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        Ok(Self {
            model: LinearModel::of(weights, header.bias),
            settings: header.settings,
            labels: header.labels,
            calibration: header.calibration,
            evaluation: header.evaluation,
        })
    }

    fn header(&self) -> Header {
        Header {
            format: FORMAT.into(),
            settings: self.settings.clone(),
            labels: self.labels.clone(),
            bias: self.model.bias().to_vec(),
            calibration: self.calibration.clone(),
            evaluation: self.evaluation.clone(),
        }
    }

    /// The line of the header, and the weights.
    fn content(&self, header: &Header) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(header).expect(IS_JSON);
        bytes.push(b'\n');
        bytes.extend(self.model.weights().iter().flat_map(|weight| weight.to_le_bytes()));
        bytes
    }
}

/// Why a header can be written.
const IS_JSON: &str = "a header of numbers and strings is JSON";
