//! Evaluation: loss, perplexity and bits per byte over batches. The sums can be added over ranks before they are turned
//! into figures.

use burn::module::Module;
use internevo_core::batch::{IGNORE_INDEX, PackedBatch};
use serde::Serialize;

use crate::decoder::{Decoder, Execution};

/// What is added up over batches and ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EvalSums {
    /// Negative log-likelihood of all labelled tokens, nats.
    pub nll: f64,
    /// Labelled tokens.
    pub tokens: f64,
    /// Labelled tokens that were the most likely one.
    pub correct: f64,
    /// Bytes of text that the labelled tokens stand for; 0 when token lengths were not given.
    pub bytes: f64,
}

/// The figures of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean negative log-likelihood per labelled token, nats.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Negative log-likelihood in bits per byte of text: comparable between tokenizers. Needs token lengths.
    pub bits_per_byte: Option<f64>,
    /// Share of labelled tokens predicted right, 0 to 1.
    pub accuracy: f64,
    /// Labelled tokens.
    pub tokens: u64,
}

impl EvalSums {
    /// Both together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            nll: self.nll + other.nll,
            tokens: self.tokens + other.tokens,
            correct: self.correct + other.correct,
            bytes: self.bytes + other.bytes,
        }
    }

    /// The figures, or `None` when no token had a label.
    pub fn finish(self) -> Option<Evaluation> {
        (self.tokens > 0.0).then(|| {
            let loss = self.nll / self.tokens;
            Evaluation {
                loss,
                perplexity: loss.exp(),
                bits_per_byte: (self.bytes > 0.0).then(|| self.nll / std::f64::consts::LN_2 / self.bytes),
                accuracy: self.correct / self.tokens,
                tokens: self.tokens as u64,
            }
        })
    }
}

/// Runs `batches` through the decoder without recording a tape. `token_bytes`: length in bytes of each token id's text.
///
/// # Panics
/// As [`Decoder::loss`]; if `token_bytes` is shorter than the vocabulary in use.
pub fn evaluate<'a>(
    decoder: &Decoder,
    batches: impl IntoIterator<Item = &'a PackedBatch>,
    token_bytes: Option<&[u32]>,
) -> EvalSums {
    evaluate_on(decoder, &Execution::alone(decoder.spec().kernels), batches, token_bytes)
}

/// [`evaluate`] on one rank of a layout: this rank's part of the sums if the strategy splits losses. Collective over the groups of
/// the execution; unwinds when ranks cannot communicate, as [`Decoder::loss_on`].
///
/// # Panics
/// As [`evaluate`].
pub fn evaluate_on<'a>(
    decoder: &Decoder,
    on: &Execution,
    batches: impl IntoIterator<Item = &'a PackedBatch>,
    token_bytes: Option<&[u32]>,
) -> EvalSums {
    let decoder = decoder.valid();
    let sums = |batch: &PackedBatch| {
        let result = decoder.loss_on(on, batch, 0.0, 1.0);
        let labels = batch.labels.iter().filter(|l| **l != IGNORE_INDEX);
        let length = |lengths: &[u32]| labels.map(|l| f64::from(lengths[*l as usize])).sum();
        EvalSums {
            nll: result.nll_sum,
            tokens: result.labelled as f64,
            correct: result.correct as f64,
            bytes: token_bytes.map_or(0.0, length),
        }
    };
    batches.into_iter().map(sums).fold(EvalSums::default(), EvalSums::merge)
}
