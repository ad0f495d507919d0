//! The order of one epoch, a function of (seed, epoch, lengths of the documents).

use internevo_core::rng::CounterRng;

use super::LoaderConfig;
use crate::store::TokenStore;

/// Which document lies where in the stream of an epoch, and which row is read when.
#[derive(Debug)]
pub(super) struct EpochPlan {
    epoch: u64,
    /// Documents in the order of the stream.
    order: Vec<u32>,
    /// Where each of them starts in the stream, and the stream's length: one entry more than `order`.
    starts: Vec<u64>,
    /// Rows in the order they are read; `None` as they lie in the stream.
    rows: Option<Vec<u32>>,
}

/// A piece of a document in the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Number of the document in the store.
    pub(super) document: usize,
    /// First token of the piece in the document.
    pub(super) offset: usize,
    /// Tokens of the piece.
    pub(super) length: usize,
    /// Document that follows in the stream when the piece ends its own.
    pub(super) next: Option<usize>,
    /// True when the piece ends its document.
    pub(super) is_end: bool,
}

impl EpochPlan {
    pub(super) fn new(store: &TokenStore, documents: &[u32], config: &LoaderConfig, epoch: u64) -> Self {
        let permutation =
            |what: &str, n| CounterRng::new(config.seed, &format!("shuffle/epoch-{epoch}{what}")).permutation(n);
        let order: Vec<u32> = if config.shuffle {
            permutation("", documents.len()).into_iter().map(|i| documents[i as usize]).collect()
        } else {
            documents.to_vec()
        };
        let mut starts = Vec::with_capacity(order.len() + 1);
        let mut end = 0;
        starts.push(end);
        for document in &order {
            end += store.len(*document as usize) as u64;
            starts.push(end);
        }
        let rows = config.shuffle.then(|| permutation("/rows", (end / config.seq_len as u64) as usize));
        Self { epoch, order, starts, rows }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The place in the stream of the row that is read `nth` in this epoch.
    pub(super) fn row(&self, nth: u64) -> u64 {
        self.rows.as_ref().map_or(nth, |rows| u64::from(rows[nth as usize]))
    }

    /// The pieces of documents that tokens `start..end` of the stream are made of.
    pub(super) fn pieces(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> {
        let mut at = start;
        let mut i = self.starts.partition_point(|s| *s <= start) - 1;
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let stop = self.starts[i + 1].min(end);
            let piece = Piece {
                document: self.order[i] as usize,
                offset: (at - self.starts[i]) as usize,
                length: (stop - at) as usize,
                next: self.order.get(i + 1).map(|document| *document as usize),
                is_end: stop == self.starts[i + 1],
            };
            (at, i) = (stop, i + 1);
            Some(piece)
        })
    }
}
