//! Cross-entropy on a cubecl device, in two passes over the logits: statistics of each row by a cube (one read, online
//! softmax), then the gradient element by element (one read, one write, in place). Rows need no alignment: loads are 16 bytes
//! wide for any vocabulary as long as the whole buffer is a multiple of them.
//!
//! The pieces serve a vocabulary that ranks share as well: [`statistics`] of the own words, all-gathered, then [`combine`] and
//! [`gradient_in_place`]. Statistics and losses are f32.

mod kernels;

use super::cpu::{Options, Totals};
use super::{IGNORE_INDEX, check_labels};
use crate::cube::{Buffer, Client, F32, Flat, Machine, address_type};
use crate::vocab::VocabShard;
use cubecl::prelude::{BufferArg, CubeDim};
use cubecl::server::ServerError;
pub use kernels::STATISTICS;
use kernels::{COUNTED, NO_LABEL, combine_kernel, gradient_kernel, statistics_kernel};

/// What is known of each row once the whole vocabulary has been seen.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `log Σ exp(logit)`, f32 `[T]`; of no meaning where there is no label.
    pub log_sum_exp: Buffer,
    /// f32 `[3, T]`: loss without scale, negative log-likelihood, 1 where no logit exceeds the label's. Zero without a label.
    pub losses: Buffer,
    labelled: usize,
}

impl Rows {
    /// Adds up the rows, in order and in f64. Waits for the device.
    ///
    /// # Errors
    /// What went wrong on the device before.
    pub fn totals(&self, client: &Client) -> Result<Totals, ServerError> {
        let values = self.losses.read_f32(client)?;
        let mut sums = values.chunks(self.log_sum_exp.len.max(1)).map(|row| row.iter().copied().map(f64::from).sum());
        let mut next = || sums.next().unwrap_or(0.0);
        let (loss, nll, correct): (f64, f64, f64) = (next(), next(), next());
        Ok(Totals { loss, nll, labelled: self.labelled, correct: correct as usize })
    }
}

/// Labels on the device.
#[derive(Clone, Debug)]
pub struct Labels {
    words: Buffer,
    labelled: usize,
}

impl Labels {
    /// Copies labels to the device.
    ///
    /// # Panics
    /// If a label is outside the vocabulary; the message names its position.
    pub fn new(client: &Client, labels: &[i32], vocab: usize) -> Self {
        check_labels(labels, vocab);
        let words = labels.iter().map(|label| if *label == IGNORE_INDEX { NO_LABEL } else { *label as u32 });
        let mut words: Vec<u32> = words.collect();
        let labelled = words.iter().filter(|word| **word != NO_LABEL).count();
        // A device refuses a binding of no bytes.
        words.resize(words.len().max(1), NO_LABEL);
        let words = Buffer { len: labels.len(), ..Buffer::from_u32(client, &words) };
        Self { words, labelled }
    }
}

/// Losses of rows of a whole vocabulary; reads the logits once.
///
/// # Panics
/// If `logits` is not a row of `vocab` for each label.
pub fn forward(client: &Client, logits: &Buffer, vocab: usize, labels: &Labels, options: Options) -> Rows {
    let parts = statistics(client, logits, &VocabShard::whole(vocab), labels, options);
    combine(client, &parts, vocab, labels, options)
}

/// [`forward`] that turns `logits` into `scale` times the gradient of the loss. Rows without a label become zero.
///
/// # Panics
/// As [`forward`].
pub fn forward_with_gradient(
    client: &Client,
    logits: &Buffer,
    vocab: usize,
    labels: &Labels,
    options: Options,
) -> Rows {
    let rows = forward(client, logits, vocab, labels, options);
    gradient_in_place(client, logits, &VocabShard::whole(vocab), labels, &rows.log_sum_exp, options);
    rows
}

/// What a rank knows of each row from the words of its shard: f32 `[T, 4]` of the largest logit, the sum of exponentials
/// relative to it, the logit of the label (0 if another rank has it) and the sum of the logits (0 without label smoothing).
///
/// # Panics
/// If `logits` is not a row of the shard for each label.
pub fn statistics(client: &Client, logits: &Buffer, shard: &VocabShard, labels: &Labels, options: Options) -> Buffer {
    let rows = rows(logits, shard, labels);
    let (machine, words) = (Machine::of(client), shard.words());
    let statistics = Buffer::empty(client, rows * STATISTICS, F32);
    let vector = machine.vector(logits.elem, logits.len);
    // More would leave a unit too few registers on some cards.
    let units = machine.units(words, vector).min(512);
    // SAFETY: a cube without a row stops; the loads of a row are those that hold elements of it, and all loads of the buffer
    // are whole because `vector` divides its length; a label is used only where it is below `words`.
    unsafe {
        statistics_kernel::launch_unchecked(
            client,
            machine.count(rows),
            CubeDim::new_1d(units),
            address_type(&[logits]),
            vector,
            logits.arg(),
            labels.words.arg(),
            statistics.arg(),
            shard.range().start as u32,
            rows as u32,
            words,
            options.label_smoothing > 0.0,
            units,
            machine.plane,
            logits.elem,
        );
    }
    statistics
}

/// Losses from the [`statistics`] of all ranks, `[ranks, T, 4]`, added in the order of ranks: the same on every rank.
///
/// # Panics
/// If `parts` is no whole number of ranks.
pub fn combine(client: &Client, parts: &Buffer, vocab: usize, labels: &Labels, options: Options) -> Rows {
    let rows = labels.words.len;
    let ranks = if rows == 0 { 0 } else { parts.len / (rows * STATISTICS) };
    assert_eq!((parts.len, parts.elem), (ranks * rows * STATISTICS, F32), "cross_entropy: statistics of {rows} rows");
    let (log_sum_exp, losses) = (Buffer::empty(client, rows, F32), Buffer::empty(client, COUNTED * rows, F32));
    let machine = Machine::of(client);
    let units = machine.max_units.min(64);
    // SAFETY: a unit without a row does nothing; the others read one row of each rank.
    unsafe {
        combine_kernel::launch_unchecked(
            client,
            machine.count(rows.div_ceil(units as usize)),
            CubeDim::new_1d(units),
            address_type(&[parts]),
            parts.arg(),
            labels.words.arg(),
            log_sum_exp.arg(),
            losses.arg(),
            options.label_smoothing as f32,
            options.z_loss as f32,
            vocab as f32,
            ranks as u32,
            rows as u32,
        );
    }
    Rows { log_sum_exp, losses, labelled: labels.labelled }
}

/// Turns the logits of a shard into `scale` times the gradient of the loss. Rows without a label become zero.
///
/// # Panics
/// If `logits` is not a row of the shard for each label.
pub fn gradient_in_place(
    client: &Client,
    logits: &Buffer,
    shard: &VocabShard,
    labels: &Labels,
    log_sum_exp: &Buffer,
    options: Options,
) {
    let target = BufferArg::alias(0, logits.len);
    launch_gradient(client, logits, target, shard, labels, log_sum_exp, options);
}

/// [`gradient_in_place`] in a buffer of its own, for logits that somebody else still needs.
///
/// # Panics
/// As [`gradient_in_place`].
pub fn gradient(
    client: &Client,
    logits: &Buffer,
    shard: &VocabShard,
    labels: &Labels,
    log_sum_exp: &Buffer,
    options: Options,
) -> Buffer {
    let gradient = Buffer::empty(client, logits.len, logits.elem);
    launch_gradient(client, logits, gradient.arg(), shard, labels, log_sum_exp, options);
    gradient
}

fn launch_gradient(
    client: &Client,
    logits: &Buffer,
    target: BufferArg,
    shard: &VocabShard,
    labels: &Labels,
    log_sum_exp: &Buffer,
    options: Options,
) {
    let rows = rows(logits, shard, labels);
    assert_eq!((log_sum_exp.len, log_sum_exp.elem), (rows, F32), "cross_entropy: log-sum-exp of {rows} rows");
    if logits.len == 0 {
        return;
    }
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(logits.len, machine.vector(logits.elem, logits.len));
    let even = options.scale * options.label_smoothing / shard.vocab() as f64;
    // SAFETY: a unit beyond the last load does nothing; a load's elements belong to rows below `rows`; every load is written by
    // the one unit that read it, so the target may be the logits themselves.
    unsafe {
        gradient_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[logits]),
            vector,
            logits.arg(),
            labels.words.arg(),
            log_sum_exp.arg(),
            target,
            shard.range().start as u32,
            options.scale as f32,
            (options.scale * (1.0 - options.label_smoothing)) as f32,
            even as f32,
            (2.0 * options.z_loss) as f32,
            loads,
            shard.words(),
            logits.elem,
        );
    }
}

/// How many rows there are.
fn rows(logits: &Buffer, shard: &VocabShard, labels: &Labels) -> usize {
    let rows = labels.words.len;
    assert_eq!(logits.len, rows * shard.words(), "cross_entropy: {rows} labels over {shard:?}");
    rows
}
