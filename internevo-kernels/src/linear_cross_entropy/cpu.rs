//! The fused head on slices. `hidden` is `[T, width]`, `weight` `[vocab, width]`, row-major. Its oracle is
//! [`crate::linear::reference`] followed by [`crate::cross_entropy::reference`].

use crate::cross_entropy::cpu::{Options, Totals, forward as loss, forward_with_gradient as loss_with_gradient};
use crate::matmul::{Matrix, Output, Threads, extend_with_product, multiply, product};

/// Logits held at a time: 16 MiB, at least `MIN_ROWS` rows.
const CHUNK_LOGITS: usize = 4 << 20;

/// Fewer rows per product than this would make it wait for memory.
const MIN_ROWS: usize = 64;

/// Which gradients the forward makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The gradient of `hidden`.
    pub hidden: bool,
    /// The gradient of `weight`.
    pub weight: bool,
}

/// What the fused head returns; gradients are those of `scale` times the loss.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Loss and counts.
    pub totals: Totals,
    /// `[T, width]`, if wanted.
    pub d_hidden: Option<Vec<f32>>,
    /// `[vocab, width]`, if wanted.
    pub d_weight: Option<Vec<f32>>,
}

/// Rows of logits in one chunk: a function of the vocabulary only, so that sums have one order everywhere.
pub fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_LOGITS / vocab.max(1) / MIN_ROWS * MIN_ROWS).clamp(MIN_ROWS, 1024)
}

/// Loss and wanted gradients of the head.
///
/// # Panics
/// If a label is outside the vocabulary (the message names its position) or the lengths do not fit.
pub fn forward(
    hidden: &[f32],
    weight: &[f32],
    width: usize,
    labels: &[i32],
    options: Options,
    wanted: Wanted,
) -> Outcome {
    let vocab = weight.len() / width.max(1);
    assert_eq!(hidden.len(), labels.len() * width, "linear_cross_entropy: hidden states and labels");
    crate::cross_entropy::check_labels(labels, vocab);
    let rows = chunk_rows(vocab);
    let mut logits = Vec::new();
    let mut d_hidden = wanted.hidden.then(|| Vec::with_capacity(hidden.len()));
    let mut d_weight = None;
    let weight = Matrix::new(weight, vocab, width);
    let mut totals = Totals::default();
    for (index, labels) in labels.chunks(rows).enumerate() {
        let (range, n) = (index * rows * width..(index * rows + labels.len()) * width, labels.len());
        let hidden = Matrix::new(&hidden[range], n, width);
        logits.clear();
        extend_with_product(&mut logits, hidden, weight.transposed());
        if !(wanted.hidden || wanted.weight) {
            totals.add(loss(&logits, vocab, labels, options));
            continue;
        }
        totals.add(loss_with_gradient(&mut logits, vocab, labels, options));
        let gradient = Matrix::new(&logits, n, vocab);
        if let Some(d_hidden) = &mut d_hidden {
            extend_with_product(d_hidden, gradient, weight);
        }
        match &mut d_weight {
            None if !wanted.weight => {}
            None => d_weight = Some(product(gradient.transposed(), hidden)),
            Some(sum) => {
                let sum = Output::new(sum, vocab, width);
                multiply(sum, true, 1.0, gradient.transposed(), hidden, Threads::Pool);
            }
        }
    }
    // Without a token there was no first chunk to make it.
    let d_weight = d_weight.or_else(|| wanted.weight.then(|| vec![0.0; vocab * width]));
    Outcome { totals, d_hidden, d_weight }
}
