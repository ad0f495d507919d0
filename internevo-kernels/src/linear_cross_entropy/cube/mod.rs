//! The fused head on a cubecl device: logits exist for a chunk of rows at a time and become their gradient in place. Sums over
//! chunks are f32 and in order of rows.

mod product;

use super::cpu::{Reduction, Wanted};
use crate::cross_entropy::check_labels;
use crate::cross_entropy::cpu::{Options, RowSums, Totals};
use crate::cross_entropy::cube::{self as loss, Labels, Rows, STATISTICS};
use crate::cube::{Buffer, Client, ElemType, F32, Flat, Machine, address_type};
use crate::vocab::VocabShard;
use cubecl::prelude::*;
use cubecl::server::ServerError;
use product::{View, multiply};
use std::convert::Infallible;

/// Bytes of logits held at a time on a GPU, and where the device does not say how many multiprocessors it has.
const CHUNK_BYTES: usize = 192 << 20;
const SMALL_CHUNK_BYTES: usize = 16 << 20;

/// Bytes of a part of the weight's gradient on its way into the sum: it stays in the second-level cache.
const PART_BYTES: usize = 32 << 20;

/// Rows of a chunk and of a part are multiples of this: whole tiles, at offsets that every device can bind.
const UNIT: usize = 128;

/// A chunk has at most this part of the rows, where that is a [`UNIT`] or more.
const CHUNKS: usize = 16;

/// What the fused head makes. Gradients are those of the loss without the scale: [`scaled`] applies it.
#[derive(Clone, Debug)]
pub struct Outcome {
    chunks: Vec<Rows>,
    /// `[T, width]` of the type of `hidden`, if wanted.
    pub d_hidden: Option<Buffer>,
    /// f32 `[vocab, width]`, if wanted.
    pub d_weight: Option<Buffer>,
}

impl Outcome {
    /// Adds up the rows, in order and in f64. Waits for the device.
    ///
    /// # Errors
    /// What went wrong on the device before.
    pub fn totals(&self, client: &Client) -> Result<Totals, ServerError> {
        let mut totals = Totals::default();
        for rows in &self.chunks {
            totals.add(rows.totals(client)?);
        }
        Ok(totals)
    }
}

/// How the work is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Rows of logits at a time.
    pub rows: usize,
    /// Words whose gradient is made at a time, from the second chunk on.
    pub words: usize,
}

impl Cut {
    /// The cut for this machine: a chunk is at most a sixteenth of the logits unless that is less than 128 rows.
    pub fn new(machine: Machine, tokens: usize, vocab: usize, width: usize, elem: ElemType) -> Self {
        let bytes = if machine.multiprocessors.is_some() { CHUNK_BYTES } else { SMALL_CHUNK_BYTES };
        let units = |bytes: usize, row_bytes: usize| bytes / row_bytes.max(1) / UNIT;
        let rows = units(bytes, vocab * elem.size()).min(tokens / CHUNKS / UNIT).max(1) * UNIT;
        let words = units(PART_BYTES.min(rows * vocab * elem.size() / 4), width * F32.size()).max(1) * UNIT;
        Self { rows, words: words.min(vocab.max(1)) }
    }

    /// Bytes of device memory beside inputs, gradients and a few numbers a row.
    pub fn scratch_bytes(self, tokens: usize, vocab: usize, width: usize, elem: ElemType) -> usize {
        let part = if tokens > self.rows { self.words * width * F32.size() } else { 0 };
        self.rows.min(tokens) * vocab * elem.size() + part
    }
}

/// Loss and wanted gradients of the head: `hidden` is `[T, width]`, `weight` `[vocab, width]` of one type.
///
/// # Panics
/// If a label is outside the vocabulary (the message names its position), or lengths or types do not fit.
pub fn forward(
    client: &Client,
    hidden: &Buffer,
    weight: &Buffer,
    width: usize,
    labels: &[i32],
    options: Options,
    wanted: Wanted,
) -> Outcome {
    let shard = VocabShard::whole(weight.len / width.max(1));
    let cut = Cut::new(Machine::of(client), labels.len(), shard.vocab(), width, hidden.elem);
    let alone = &mut |statistics| Ok::<_, Infallible>(statistics);
    let outcome = forward_shard(client, hidden, weight, width, &shard, labels, options, wanted, cut, alone);
    outcome.unwrap_or_else(|error| match error {})
}

/// [`forward`] where `weight` is the rows of `shard`, and `hidden` and `labels` are the same on all ranks.
///
/// Each chunk of `cut.rows` rows, the same on every rank, calls `gather` once: it is given this rank's
/// [statistics](loss::statistics) of the rows and gives those of all ranks, `[ranks, rows, 4]`, in one order everywhere. The
/// losses are those of the whole vocabulary on every rank, `d_weight` is that of the shard, and `d_hidden` is this rank's part of
/// a sum over ranks.
///
/// # Errors
/// The first error of `gather`, which ends the work.
///
/// # Panics
/// As [`forward`].
pub fn forward_shard<E>(
    client: &Client,
    hidden: &Buffer,
    weight: &Buffer,
    width: usize,
    shard: &VocabShard,
    labels: &[i32],
    options: Options,
    wanted: Wanted,
    cut: Cut,
    gather: &mut dyn FnMut(Buffer) -> Result<Buffer, E>,
) -> Result<Outcome, E> {
    let (tokens, words) = (labels.len(), shard.words());
    check_labels(labels, shard.vocab());
    assert_eq!((hidden.len, weight.len), (tokens * width, words * width), "linear_cross_entropy: rows of {width}");
    assert_eq!(hidden.elem, weight.elem, "linear_cross_entropy: types of hidden states and weight");
    let options = Options { scale: 1.0, ..options };
    let head = Head { client, hidden, weight, width, words, cut };
    let chunk = Buffer::empty(client, cut.rows.min(tokens) * words, hidden.elem);
    // What no product writes is zero: nothing has a part in the gradient of hidden states, or no token in that of the weight.
    let made = |len, elem, written| match written {
        true => Buffer::empty(client, len, elem),
        false => Buffer::from_f32(client, &vec![0.0; len], elem),
    };
    let d_hidden = wanted.hidden.then(|| made(hidden.len, hidden.elem, words > 0));
    let d_weight = wanted.weight.then(|| made(weight.len, F32, tokens > 0));
    let mut chunks = Vec::new();
    for (index, labels) in labels.chunks(cut.rows).enumerate() {
        let (start, rows) = (index * cut.rows, labels.len());
        let logits = Buffer { len: rows * words, ..chunk.clone() };
        let labels = Labels::new(client, labels, shard.vocab());
        head.logits(&logits, start, rows);
        let statistics = gather(loss::statistics(client, &logits, shard, &labels, options))?;
        let losses = loss::combine(client, &statistics, shard.vocab(), &labels, options);
        if wanted.any() {
            loss::gradient_in_place(client, &logits, shard, &labels, &losses.log_sum_exp, options);
        }
        chunks.push(losses);
        if let Some(d_hidden) = &d_hidden {
            head.d_hidden(d_hidden, &logits, start, rows);
        }
        if let Some(d_weight) = &d_weight {
            head.d_weight(d_weight, &logits, start, rows);
        }
    }
    Ok(Outcome { chunks, d_hidden, d_weight })
}

/// The statistics of all ranks in one, as [`forward_shard`] wants them, from reductions on the host: a maximum and then a sum, in
/// the same order on every rank. Waits for the device.
///
/// # Errors
/// The first error of `reduce`.
///
/// # Panics
/// If the device failed.
pub fn reduced<E>(
    client: &Client,
    statistics: &Buffer,
    reduce: &mut dyn FnMut(Reduction<'_>) -> Result<(), E>,
) -> Result<Buffer, E> {
    let own = statistics.read_f32(client);
    let own = own.unwrap_or_else(|error| panic!("linear_cross_entropy: the device failed: {error}"));
    let (rows, _) = own.as_chunks::<STATISTICS>();
    let mut maxima: Vec<f32> = rows.iter().map(|[maximum, ..]| *maximum).collect();
    reduce(Reduction::Max(&mut maxima))?;
    let sums = rows.iter().zip(&maxima).map(|([own, sum, logit, logits], maximum)| {
        let [sum, logit, logits] = [sum, logit, logits].map(|value| f64::from(*value));
        [sum * (f64::from(*own) - f64::from(*maximum)).exp(), logit, logits]
    });
    let mut sums: Vec<RowSums> = sums.collect();
    reduce(Reduction::Sum(sums.as_flattened_mut()))?;
    let all =
        maxima.iter().zip(&sums).flat_map(|(maximum, sums)| [*maximum].into_iter().chain(sums.map(|sum| sum as f32)));
    Ok(Buffer::from_f32(client, &all.collect::<Vec<_>>(), F32))
}

/// The operands of all products.
struct Head<'a> {
    client: &'a Client,
    hidden: &'a Buffer,
    weight: &'a Buffer,
    width: usize,
    words: usize,
    cut: Cut,
}

impl Head<'_> {
    fn weight(&self) -> View<'_> {
        View::new(self.weight, 0, self.words, self.width, self.width)
    }

    /// `rows` rows of hidden states, or of their gradient.
    fn rows_of<'a>(&self, states: &'a Buffer, start: usize, rows: usize) -> View<'a> {
        View::new(states, start * self.width, rows, self.width, self.width)
    }

    fn logits(&self, logits: &Buffer, start: usize, rows: usize) {
        let out = View::new(logits, 0, rows, self.words, self.words);
        multiply(self.client, out, self.rows_of(self.hidden, start, rows), self.weight().transposed());
    }

    fn d_hidden(&self, d_hidden: &Buffer, gradient: &Buffer, start: usize, rows: usize) {
        let gradient = View::new(gradient, 0, rows, self.words, self.words);
        multiply(self.client, self.rows_of(d_hidden, start, rows), gradient, self.weight());
    }

    /// Adds a chunk's contribution, a part of the words at a time; that of the first chunk is the sum.
    fn d_weight(&self, sum: &Buffer, gradient: &Buffer, start: usize, rows: usize) {
        let hidden = self.rows_of(self.hidden, start, rows);
        let product = |out: &Buffer, first: usize, words: usize| {
            let gradient = View::new(gradient, first, rows, words, self.words).transposed();
            multiply(self.client, View::new(out, 0, words, self.width, self.width), gradient, hidden);
        };
        if start == 0 {
            return product(sum, 0, self.words);
        }
        let part = Buffer::empty(self.client, self.cut.words.min(self.words) * self.width, F32);
        for first in (0..self.words).step_by(self.cut.words) {
            let words = self.cut.words.min(self.words - first);
            product(&part, first, words);
            let offset = (first * self.width * F32.size()) as u64;
            let target = Buffer { handle: sum.handle.clone().offset_start(offset), len: words * self.width, elem: F32 };
            add_in_place(self.client, &target, &part);
        }
    }
}

/// `x · factor` as `elem`: brings a gradient to its scale and type.
pub fn scaled(client: &Client, x: &Buffer, factor: f32, elem: ElemType) -> Buffer {
    let out = Buffer::empty(client, x.len, elem);
    let wider = if x.elem.size() > elem.size() { x.elem } else { elem };
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(x.len, machine.vector(wider, x.len));
    // SAFETY: a unit beyond the last load does nothing.
    unsafe {
        scale_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[x]),
            vector,
            x.arg(),
            out.arg(),
            factor,
            loads,
            x.elem,
            elem,
        );
    }
    out
}

/// `sum += part`, over the elements of `sum`.
fn add_in_place(client: &Client, sum: &Buffer, part: &Buffer) {
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(sum.len, machine.vector(F32, sum.len));
    let part = Buffer { len: sum.len, ..part.clone() };
    // SAFETY: a unit beyond the last load does nothing, and a part is at least as long as what it is added to.
    unsafe {
        add_kernel::launch_unchecked(client, count, dim, address_type(&[sum]), vector, sum.arg(), part.arg(), loads);
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn scale_kernel<I: Float, O: Float, N: Size>(
    x: &[Vector<I, N>],
    out: &mut [Vector<O, N>],
    factor: f32,
    loads: usize,
    #[define(I)] _from: ElemType,
    #[define(O)] _to: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        out[i] = Vector::cast_from(Vector::<f32, N>::cast_from(x[i]) * Vector::new(factor));
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn add_kernel<N: Size>(sum: &mut [Vector<f32, N>], part: &[Vector<f32, N>], loads: usize) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        sum[i] += part[i];
    }
}
