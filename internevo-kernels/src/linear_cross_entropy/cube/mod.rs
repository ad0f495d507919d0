//! The fused head on a cubecl device: logits exist for a chunk of rows at a time and become their gradient in place. Sums over
//! chunks are f32 and in order of rows.

mod product;

use super::cpu::Wanted;
use crate::cross_entropy::cpu::{Options, Totals};
use crate::cross_entropy::cube::{self as loss, Labels, Rows};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;
use cubecl::server::ServerError;
use product::{View, multiply};

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
        Self { rows, words: words.min(vocab) }
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
    let (tokens, vocab) = (labels.len(), weight.len / width.max(1));
    assert_eq!((hidden.len, weight.len), (tokens * width, vocab * width), "linear_cross_entropy: rows of {width}");
    assert_eq!(hidden.elem, weight.elem, "linear_cross_entropy: types of hidden states and weight");
    let cut = Cut::new(Machine::of(client), tokens, vocab, width, hidden.elem);
    let options = Options { scale: 1.0, ..options };
    let head = Head { client, hidden, weight, width, vocab, cut };
    let chunk = Buffer::empty(client, cut.rows.min(tokens) * vocab, hidden.elem);
    let d_hidden = wanted.hidden.then(|| Buffer::empty(client, hidden.len, hidden.elem));
    let mut d_weight = None;
    let mut chunks = Vec::new();
    for (index, labels) in labels.chunks(cut.rows).enumerate() {
        let (start, rows) = (index * cut.rows, labels.len());
        let logits = Buffer { len: rows * vocab, ..chunk.clone() };
        let labels = Labels::new(client, labels, vocab);
        head.logits(&logits, start, rows);
        if d_hidden.is_none() && !wanted.weight {
            chunks.push(loss::forward(client, &logits, vocab, &labels, options));
            continue;
        }
        chunks.push(loss::forward_with_gradient(client, &logits, vocab, &labels, options));
        if let Some(d_hidden) = &d_hidden {
            head.d_hidden(d_hidden, &logits, start, rows);
        }
        if wanted.weight {
            match &d_weight {
                None => d_weight = Some(head.first_d_weight(&logits, rows)),
                Some(sum) => head.add_d_weight(sum, &logits, start, rows),
            }
        }
    }
    // Without a token there was no first chunk to make it.
    let d_weight = d_weight.or_else(|| wanted.weight.then(|| Buffer::from_f32(client, &vec![0.0; weight.len], F32)));
    Outcome { chunks, d_hidden, d_weight }
}

/// The operands of all products.
struct Head<'a> {
    client: &'a Client,
    hidden: &'a Buffer,
    weight: &'a Buffer,
    width: usize,
    vocab: usize,
    cut: Cut,
}

impl Head<'_> {
    fn weight(&self) -> View<'_> {
        View::new(self.weight, 0, self.vocab, self.width, self.width)
    }

    /// `rows` rows of hidden states, or of their gradient.
    fn rows_of<'a>(&self, states: &'a Buffer, start: usize, rows: usize) -> View<'a> {
        View::new(states, start * self.width, rows, self.width, self.width)
    }

    fn logits(&self, logits: &Buffer, start: usize, rows: usize) {
        let out = View::new(logits, 0, rows, self.vocab, self.vocab);
        multiply(self.client, out, self.rows_of(self.hidden, start, rows), self.weight().transposed());
    }

    fn d_hidden(&self, d_hidden: &Buffer, gradient: &Buffer, start: usize, rows: usize) {
        let gradient = View::new(gradient, 0, rows, self.vocab, self.vocab);
        multiply(self.client, self.rows_of(d_hidden, start, rows), gradient, self.weight());
    }

    fn first_d_weight(&self, gradient: &Buffer, rows: usize) -> Buffer {
        let d_weight = Buffer::empty(self.client, self.weight.len, F32);
        let gradient = View::new(gradient, 0, rows, self.vocab, self.vocab).transposed();
        let out = View::new(&d_weight, 0, self.vocab, self.width, self.width);
        multiply(self.client, out, gradient, self.rows_of(self.hidden, 0, rows));
        d_weight
    }

    /// Adds a chunk's contribution, a part of the words at a time.
    fn add_d_weight(&self, sum: &Buffer, gradient: &Buffer, start: usize, rows: usize) {
        let part = Buffer::empty(self.client, self.cut.words * self.width, F32);
        for first in (0..self.vocab).step_by(self.cut.words) {
            let words = self.cut.words.min(self.vocab - first);
            let gradient = View::new(gradient, first, rows, words, self.vocab).transposed();
            let out = View::new(&part, 0, words, self.width, self.width);
            multiply(self.client, out, gradient, self.rows_of(self.hidden, start, rows));
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
    let vector = machine.vector(wider, x.len);
    let (loads, units) = (x.len / vector, machine.max_units.min(256));
    // SAFETY: a unit beyond the last load does nothing.
    unsafe {
        scale_kernel::launch_unchecked(
            client,
            machine.count(loads.div_ceil(units as usize)),
            CubeDim::new_1d(units),
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
    let vector = machine.vector(F32, sum.len);
    let (loads, units) = (sum.len / vector, machine.max_units.min(256));
    let part = Buffer { len: sum.len, ..part.clone() };
    // SAFETY: a unit beyond the last load does nothing, and a part is at least as long as what it is added to.
    unsafe {
        add_kernel::launch_unchecked(
            client,
            machine.count(loads.div_ceil(units as usize)),
            CubeDim::new_1d(units),
            address_type(&[sum]),
            vector,
            sum.arg(),
            part.arg(),
            loads,
        );
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
