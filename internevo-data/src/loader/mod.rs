//! Packing documents into rows, in an order that any rank can compute for itself and that a resumed run continues.
//!
//! | file | holds |
//! |---|---|
//! | `plan.rs` | the order of one epoch: documents, where each starts, and which row comes when |
//! | `row.rs` | tokens, labels and segments of one row |
//! | `state.rs` | what a checkpoint keeps, and whether it still fits the data |
//! | `prefetch.rs` | reading ahead on a thread |
//!
//! An epoch is one stream: all documents of at least `min_length` tokens, one after another in shuffled order. Row `r` is the
//! `seq_len` tokens from `r * seq_len`; a document cut by the end of a row goes on in the row after it (InternLM2 report,
//! section 3.2), whose first segment it is. The last tokens of the stream that fill no row are dropped: other ones in each
//! epoch. Rows come in shuffled order as well, so that a long document does not fill a batch. Micro-batch `i` is the rows
//! `i * micro_bsz..(i + 1) * micro_bsz` counted over all epochs, whatever rank asks for it: rank `r` of `k` reads
//! `(step * k + r) * micro_num + m` for its `m`-th micro-batch, and any other split of the same steps reads the same tokens.

mod plan;
mod prefetch;
mod row;
mod state;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use internevo_core::batch::PackedBatch;
use serde::{Deserialize, Serialize};

use self::plan::EpochPlan;
pub use self::{prefetch::Prefetcher, state::LoaderState};
use crate::store::{Fingerprint, StoreError, TokenStore};

/// Epoch plans kept: a micro-batch can lie across two epochs.
const PLANS_KEPT: usize = 2;

/// Shape and order of the batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderConfig {
    /// Tokens per row.
    pub seq_len: usize,
    /// Rows per micro-batch.
    pub micro_bsz: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Documents with fewer tokens are left out.
    pub min_length: usize,
    /// One segment per row: attention and labels ignore where documents end.
    pub pack_sample_into_one: bool,
    /// Shuffle documents and rows, anew in each epoch; false keeps the order of the store.
    pub shuffle: bool,
}

/// What can go wrong when loading batches.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// The shape of a batch is empty or too large.
    #[error(
        "data.seq_len = {seq_len} and data.micro_bsz = {micro_bsz}: a micro-batch must have 1 to 2147483647 tokens"
    )]
    Shape {
        /// Tokens per row.
        seq_len: usize,
        /// Rows per micro-batch.
        micro_bsz: usize,
    },
    /// There is not even one row.
    #[error(
        "{}: {tokens} tokens in {documents} documents of at least {min_length} tokens do not fill one row of \
         data.seq_len = {seq_len}; use more text or a shorter row",
        place.display()
    )]
    TooSmall {
        /// The store.
        place: PathBuf,
        /// Documents that are long enough.
        documents: usize,
        /// Their tokens.
        tokens: u64,
        /// Shortest document.
        min_length: usize,
        /// Tokens per row.
        seq_len: usize,
    },
    /// A token that the model has no embedding for.
    #[error("{}: document {document} holds token {token}, but the vocabulary has {vocab_size}", place.display())]
    Vocabulary {
        /// The store.
        place: PathBuf,
        /// Number of the document.
        document: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A checkpoint was made with other data or another order of it.
    #[error("{}: cannot continue the checkpoint's place in the data: {}", place.display(), changes.join("; "))]
    Changed {
        /// The store.
        place: PathBuf,
        /// Each difference, with the value before and now.
        changes: Vec<String>,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that reads ahead cannot be started.
    #[error("cannot start the thread that reads ahead: {0}")]
    Thread(std::io::Error),
}

/// Random access to the micro-batches of a store, by their number over all epochs. Shared freely between ranks.
#[derive(Debug)]
pub struct PackedLoader {
    store: Arc<TokenStore>,
    config: LoaderConfig,
    /// Documents of at least `min_length` tokens, in the store's order.
    documents: Vec<u32>,
    tokens: u64,
    fingerprint: Fingerprint,
    vocab_size: u64,
    /// The epochs read last, newest at the end.
    plans: Mutex<Vec<Arc<EpochPlan>>>,
}

impl PackedLoader {
    /// Looks at the length of every document; tokens are read later.
    ///
    /// # Errors
    /// [`LoaderError::Shape`], or [`LoaderError::TooSmall`] when the documents do not fill one row.
    pub fn new(store: Arc<TokenStore>, config: LoaderConfig) -> Result<Self, LoaderError> {
        let (seq_len, micro_bsz) = (config.seq_len, config.micro_bsz);
        if !seq_len.checked_mul(micro_bsz).is_some_and(|tokens| (1..=i32::MAX as usize).contains(&tokens)) {
            return Err(LoaderError::Shape { seq_len, micro_bsz });
        }
        // A document without tokens has nothing to pack, whatever `min_length` says.
        let min_length = config.min_length.max(1);
        let documents: Vec<u32> = (0u32..)
            .zip(0..store.documents())
            .filter(|(_, document)| store.len(*document) >= min_length)
            .map(|(number, _)| number)
            .collect();
        let tokens = documents.iter().map(|document| store.len(*document as usize) as u64).sum();
        if tokens < seq_len as u64 {
            let (place, documents) = (store.place().into(), documents.len());
            return Err(LoaderError::TooSmall { place, documents, tokens, min_length, seq_len });
        }
        let fingerprint = store.fingerprint();
        Ok(Self { store, config, documents, tokens, fingerprint, vocab_size: u64::MAX, plans: Mutex::default() })
    }

    /// Checks from now on that every token is below `vocab_size`.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        self.vocab_size = vocab_size as u64;
        self
    }

    /// Micro-batch `index`, counted from the first one of the first epoch.
    ///
    /// # Errors
    /// [`LoaderError::Store`] for a damaged file, [`LoaderError::Vocabulary`].
    pub fn micro_batch(&self, index: u64) -> Result<PackedBatch, LoaderError> {
        let rows = self.config.micro_bsz as u64;
        let tokens = self.config.seq_len * self.config.micro_bsz;
        let mut batch = PackedBatch {
            tokens: Vec::with_capacity(tokens),
            labels: Vec::with_capacity(tokens),
            cu_seqlens: vec![0],
            position_ids: Vec::with_capacity(tokens),
        };
        for row in index * rows..(index + 1) * rows {
            let plan = self.plan(row / self.rows_per_epoch());
            let row = plan.row(row % self.rows_per_epoch());
            self.append_row(&plan, row, &mut batch)?;
        }
        Ok(batch)
    }

    /// Reads `indices` on a thread of its own, at most `depth` micro-batches ahead.
    ///
    /// # Errors
    /// [`LoaderError::Thread`] when the system gives no thread.
    pub fn prefetch(
        self: &Arc<Self>,
        indices: impl Iterator<Item = u64> + Send + 'static,
        depth: usize,
    ) -> Result<Prefetcher, LoaderError> {
        Prefetcher::start(Arc::clone(self), indices, depth)
    }

    /// Whole rows in one epoch.
    pub fn rows_per_epoch(&self) -> u64 {
        self.tokens / self.config.seq_len as u64
    }

    /// Indices of the first `limit` micro-batches, fewer when one epoch has fewer: what an evaluation reads, each time the
    /// same. At least one, which repeats rows if the store has less than one micro-batch.
    pub fn evaluation(&self, limit: u64) -> Range<u64> {
        0..limit.min((self.rows_per_epoch() / self.config.micro_bsz as u64).max(1))
    }

    /// Tokens of the documents that are long enough; up to `seq_len - 1` of them are dropped in each epoch.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Documents that are long enough.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Documents left out because they have fewer than `min_length` tokens.
    pub fn documents_left_out(&self) -> usize {
        self.store.documents() - self.documents.len()
    }

    /// Shape and order of the batches.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    fn plan(&self, epoch: u64) -> Arc<EpochPlan> {
        // Held while a plan is made, so that ranks that ask for the same new epoch wait instead of making it again.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.iter().find(|plan| plan.epoch() == epoch) {
            return Arc::clone(plan);
        }
        let plan = Arc::new(EpochPlan::new(&self.store, &self.documents, &self.config, epoch));
        if plans.len() == PLANS_KEPT {
            plans.remove(0);
        }
        plans.push(Arc::clone(&plan));
        plan
    }
}
