//! The numbers of one optimizer step. Not here: where they are stored.

use serde::{Deserialize, Deserializer, Serialize};

/// One line of `metrics.jsonl`; the names are InternEvo's.
///
/// JSON has no NaN: a number that is not finite is written as `null` and read back as NaN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer step, from 1.
    pub step: u64,
    /// Mean negative log-likelihood per labelled token of the whole step, nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Learning rate of the step.
    #[serde(deserialize_with = "number")]
    pub lr: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f64,
    /// Tokens per rank and second (InternEvo's tgs).
    #[serde(deserialize_with = "number")]
    pub tgs: f64,
    /// Model TFLOP/s per rank: no recompute, causal attention.
    #[serde(deserialize_with = "number")]
    pub tflops: f64,
    /// `tflops` over the configured peak; absent without one.
    pub mfu: Option<f64>,
    /// Tokens of this step, all ranks.
    pub tokens: u64,
    /// Tokens since the first step, all ranks.
    pub num_consumed_tokens: u64,
    /// Share of labelled tokens whose most likely next token was right.
    #[serde(deserialize_with = "number")]
    pub acc: f64,
    /// exp(loss).
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// Seconds in forward and backward.
    #[serde(deserialize_with = "number")]
    pub fwd_bwd_time: f64,
    /// Seconds waiting for data.
    #[serde(deserialize_with = "number")]
    pub data_time: f64,
    /// Resident memory of the process, GiB.
    #[serde(deserialize_with = "number")]
    pub mem_gib: f64,
    /// Steps skipped so far because a gradient was not finite.
    pub inf_nan_skip_batches: u64,
    /// Seconds of the whole step.
    #[serde(deserialize_with = "number")]
    pub time: f64,
    /// Validation loss, on steps that evaluated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub valid_loss: Option<f64>,
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
