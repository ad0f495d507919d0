//! The loader's part of a checkpoint. The order is a function of the configuration and the store, so the state is a number
//! and what it takes to notice that the number no longer means the same.

use serde::{Deserialize, Serialize};

use super::{LoaderConfig, LoaderError, PackedLoader};
use crate::store::Fingerprint;

/// How far a run has read, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Micro-batches read by all ranks together since the first step.
    pub consumed_micro_batches: u64,
    /// Epoch of the next micro-batch, from 0; for people to read.
    pub epoch: u64,
    /// Shape and order of the batches.
    pub config: LoaderConfig,
    /// The store that was read.
    pub store: Fingerprint,
}

impl PackedLoader {
    /// The state after `consumed` micro-batches of all ranks together.
    pub fn state(&self, consumed: u64) -> LoaderState {
        LoaderState {
            consumed_micro_batches: consumed,
            epoch: consumed * self.config.micro_bsz as u64 / self.rows_per_epoch(),
            config: self.config.clone(),
            store: self.fingerprint.clone(),
        }
    }

    /// How many micro-batches of this loader `state` has read: the index of the next one. `micro_bsz` may differ from the
    /// state's, as long as the rows read are a whole number of micro-batches.
    ///
    /// # Errors
    /// [`LoaderError::Changed`] with every difference that would repeat or skip data.
    pub fn check(&self, state: &LoaderState) -> Result<u64, LoaderError> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, before: String, now: String| {
            if before != now {
                changes.push(format!("{what} was {before}, is {now}"));
            }
        };
        let (before, now) = (&state.config, &self.config);
        compare("seed", before.seed.to_string(), now.seed.to_string());
        compare("data.seq_len", before.seq_len.to_string(), now.seq_len.to_string());
        compare("data.min_length", before.min_length.to_string(), now.min_length.to_string());
        let pack = |config: &LoaderConfig| config.pack_sample_into_one.to_string();
        compare("data.pack_sample_into_one", pack(before), pack(now));
        compare("shuffle", before.shuffle.to_string(), now.shuffle.to_string());
        let describe = |print: &Fingerprint| {
            format!("{} documents, {} tokens (hash {})", print.documents, print.tokens, &print.hash)
        };
        compare("the tokenized data", describe(&state.store), describe(&self.fingerprint));
        let rows = state.consumed_micro_batches * before.micro_bsz as u64;
        if !rows.is_multiple_of(now.micro_bsz as u64) {
            changes.push(format!("{rows} rows were read, which data.micro_bsz = {} does not divide", now.micro_bsz));
        }
        if changes.is_empty() {
            Ok(rows / now.micro_bsz as u64)
        } else {
            Err(LoaderError::Changed { place: self.store.place().into(), changes })
        }
    }
}
