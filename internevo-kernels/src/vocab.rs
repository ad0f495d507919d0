//! The rows of a vocabulary that a rank of vocabulary parallelism holds. The kernels over such a part live with their
//! operations: [`crate::embedding::cpu`], [`crate::cross_entropy::parallel`] and [`crate::linear_cross_entropy::cpu`].

use std::ops::Range;

/// A range of the words of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabShard {
    range: Range<usize>,
    vocab: usize,
}

impl VocabShard {
    /// The words `range` of `0..vocab`; the range may be empty.
    ///
    /// # Panics
    /// If the range does not lie in the vocabulary.
    pub fn new(range: Range<usize>, vocab: usize) -> Self {
        assert!(range.start <= range.end && range.end <= vocab, "words {range:?} of a vocabulary of {vocab}");
        Self { range, vocab }
    }

    /// All words.
    pub fn whole(vocab: usize) -> Self {
        Self::new(0..vocab, vocab)
    }

    /// The words it holds.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// How many words it holds: rows of its table, columns of its logits.
    pub fn words(&self) -> usize {
        self.range.len()
    }

    /// Words of the whole vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Where the shard has `word`, if it does.
    pub fn place_of(&self, word: usize) -> Option<usize> {
        self.range.contains(&word).then(|| word - self.range.start)
    }
}
