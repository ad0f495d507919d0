//! Cross-entropy with label smoothing and z-loss over a vocabulary, summed over the labelled positions. Its gradient is made in
//! the forward, in the buffer of the logits where possible.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
pub(crate) mod op;
pub mod parallel;
pub mod reference;

pub use op::{cross_entropy, cross_entropy_with};

use burn::tensor::Tensor;

/// Label of a position that takes no part in the loss (as in InternEvo, PyTorch and Hugging Face).
pub const IGNORE_INDEX: i32 = -100;

/// The loss of a micro-batch and what is counted along the way.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// `scale` times the sum of the losses (with smoothing and z-loss) of labelled positions, `[1]`: what to call `backward` on.
    pub loss_sum: Tensor<1>,
    /// Sum of the plain negative log-likelihoods, without smoothing and scale.
    pub nll_sum: f64,
    /// How many positions have a label.
    pub labelled: usize,
    /// At how many of them no logit exceeds the label's.
    pub correct: usize,
}

/// Checks labels against the vocabulary.
///
/// # Panics
/// If a label is neither [`IGNORE_INDEX`] nor in `0..vocab`; the message names its position.
pub(crate) fn check_labels(labels: &[i32], vocab: usize) {
    let bad = |label: &i32| *label != IGNORE_INDEX && usize::try_from(*label).map_or(true, |label| label >= vocab);
    if let Some(position) = labels.iter().position(bad) {
        panic!("cross_entropy: label {} at position {position} is outside 0..{vocab}", labels[position]);
    }
}

#[cfg(test)]
mod tests;
