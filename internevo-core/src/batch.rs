//! The packed micro-batch: what the loader hands to the model. No tensors here, so that the data crate needs no engine.

/// Label of a token that is input only and takes no part in the loss (as in InternEvo and HF).
pub const IGNORE_INDEX: i32 = -100;

/// One micro-batch of packed documents: `tokens.len()` = `micro_bsz * seq_len`, flattened row by row.
///
/// Documents never see each other: attention is causal inside each segment `cu_seqlens[i]..cu_seqlens[i + 1]`, and
/// `position_ids` restart at zero with each segment. A segment never crosses a row of `seq_len` tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Next token of each position, or [`IGNORE_INDEX`]; `[T]`.
    pub labels: Vec<i32>,
    /// Segment boundaries, first 0, last `T`, strictly increasing.
    pub cu_seqlens: Vec<u32>,
    /// Position inside the segment, `[T]`.
    pub position_ids: Vec<u32>,
}

impl PackedBatch {
    /// How many positions have a label: the denominator of the loss, summed over all ranks of a step.
    pub fn label_count(&self) -> usize {
        self.labels.iter().filter(|l| **l != IGNORE_INDEX).count()
    }

    /// One segment over `tokens`, each predicting the next; the last position has no label.
    pub fn single(tokens: &[u32]) -> Self {
        let labels = tokens.iter().skip(1).map(|t| *t as i32).chain([IGNORE_INDEX]).take(tokens.len()).collect();
        Self {
            tokens: tokens.to_vec(),
            labels,
            cu_seqlens: vec![0, tokens.len() as u32],
            position_ids: (0..tokens.len() as u32).collect(),
        }
    }
}
