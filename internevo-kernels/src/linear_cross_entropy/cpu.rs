//! The fused head on slices. `hidden` is `[T, width]`, `weight` `[vocab, width]`, row-major. Its oracle is
//! [`crate::linear::reference`] followed by [`crate::cross_entropy::reference`].

use crate::cross_entropy::cpu::{Options, Totals, forward as loss, forward_with_gradient as loss_with_gradient};
use crate::cross_entropy::{check_labels, parallel};
use crate::matmul::{Matrix, Output, Threads, extend_with_product, multiply, product};
use crate::vocab::VocabShard;
use std::convert::Infallible;

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

impl Wanted {
    pub(super) fn any(self) -> bool {
        self.hidden || self.weight
    }
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
    check_labels(labels, vocab);
    let chunks = Chunks { hidden, weight, width, labels, rows: chunk_rows(vocab), wanted };
    let outcome = chunks.run(|logits, labels| {
        Ok::<_, Infallible>(match wanted.any() {
            true => loss_with_gradient(logits, vocab, labels, options),
            false => loss(logits, vocab, labels, options),
        })
    });
    outcome.unwrap_or_else(|error| match error {})
}

/// What the ranks that share a vocabulary combine, element by element; everyone gets the same result.
#[derive(Debug)]
pub enum Reduction<'a> {
    /// The largest over ranks.
    Max(&'a mut [f32]),
    /// The sum over ranks.
    Sum(&'a mut [f64]),
}

/// [`forward`] where `weight` is the rows of `shard`, and `hidden` and `labels` are the same on all ranks.
///
/// Each chunk of `rows` rows calls `reduce` twice, a maximum and then a sum, in the same order on every rank; `rows` must
/// be the same everywhere ([`chunk_rows`] of the largest shard, say). The totals are those of the whole vocabulary on every
/// rank, `d_weight` is that of the shard, and `d_hidden` is this rank's part of a sum over ranks.
///
/// # Errors
/// The first error of `reduce`, which ends the work.
///
/// # Panics
/// As [`forward`].
pub fn forward_parallel<E>(
    hidden: &[f32],
    weight: &[f32],
    width: usize,
    shard: &VocabShard,
    labels: &[i32],
    options: Options,
    wanted: Wanted,
    rows: usize,
    reduce: &mut dyn FnMut(Reduction<'_>) -> Result<(), E>,
) -> Result<Outcome, E> {
    assert_eq!(weight.len(), shard.words() * width, "linear_cross_entropy: weight of width {width} for {shard:?}");
    check_labels(labels, shard.vocab());
    let chunks = Chunks { hidden, weight, width, labels, rows, wanted };
    chunks.run(|logits, labels| {
        let mut maxima = parallel::local_max(logits, shard, labels);
        reduce(Reduction::Max(&mut maxima))?;
        let mut sums = parallel::local_sums(logits, shard, labels, &maxima, options);
        reduce(Reduction::Sum(sums.as_flattened_mut()))?;
        if wanted.any() {
            parallel::gradient_in_place(logits, shard, labels, &maxima, &sums, options);
        }
        Ok(parallel::totals(labels, &maxima, &sums, shard.vocab(), options))
    })
}

/// The walk over chunks of rows.
struct Chunks<'a> {
    hidden: &'a [f32],
    weight: &'a [f32],
    width: usize,
    labels: &'a [i32],
    rows: usize,
    wanted: Wanted,
}

impl Chunks<'_> {
    /// Makes the logits of each chunk, which `losses` turns into their gradient if any is wanted.
    fn run<E>(self, mut losses: impl FnMut(&mut [f32], &[i32]) -> Result<Totals, E>) -> Result<Outcome, E> {
        let Self { hidden, width, labels, rows, wanted, .. } = self;
        let words = self.weight.len() / width.max(1);
        assert_eq!(hidden.len(), labels.len() * width, "linear_cross_entropy: hidden states and labels");
        let mut logits = Vec::new();
        let mut d_hidden = wanted.hidden.then(|| Vec::with_capacity(hidden.len()));
        let mut d_weight = None;
        let weight = Matrix::new(self.weight, words, width);
        let mut totals = Totals::default();
        for (index, labels) in labels.chunks(rows).enumerate() {
            let (range, n) = (index * rows * width..(index * rows + labels.len()) * width, labels.len());
            let hidden = Matrix::new(&hidden[range], n, width);
            logits.clear();
            extend_with_product(&mut logits, hidden, weight.transposed());
            totals.add(losses(&mut logits, labels)?);
            let gradient = Matrix::new(&logits, n, words);
            if let Some(d_hidden) = &mut d_hidden {
                extend_with_product(d_hidden, gradient, weight);
            }
            match &mut d_weight {
                _ if !wanted.weight => {}
                None => d_weight = Some(product(gradient.transposed(), hidden)),
                Some(sum) => {
                    let sum = Output::new(sum, words, width);
                    multiply(sum, true, 1.0, gradient.transposed(), hidden, Threads::Pool);
                }
            }
        }
        // Without a token there was no first chunk to make it.
        let d_weight = d_weight.or_else(|| wanted.weight.then(|| vec![0.0; words * width]));
        Ok(Outcome { totals, d_hidden, d_weight })
    }
}
