//! Every kernel as a closure with the work it does, so that the criterion bench and the comparison with PyTorch measure the
//! same thing. `xtask/peers/kernels.py` has the same operations under the same names.

use burn::tensor::{Device, Tensor, bf16};
use internevo_kernels::{
    AttentionMask, KernelSet, QkvLayout, RotaryTable, VocabShard, adamw,
    attention::Segments,
    attention_masked,
    autograd::{Function, HostTensor},
    cross_entropy,
    cross_entropy::{cpu::Options, parallel},
    embedding, grad_norm, grouped_linear, linear, linear_cross_entropy,
    matmul::{Matrix, bf16::product_bf16, product},
    rms_norm, rms_norm_residual, rotary,
    simd::bf16::{round, widen},
    swiglu,
};
use rayon::prelude::*;

use crate::{boundaries, normals, tensor};

/// Bytes of an f32.
const FLOAT: u64 = 4;

/// Experts among which the rows of `grouped_linear` are divided, as evenly as they can be.
const EXPERTS: usize = 8;

/// Sizes of one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of every activation.
    pub tokens: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Head counts and width.
    pub layout: QkvLayout,
    /// Feed-forward width.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Tokens of a segment.
    pub seq: usize,
    /// Elements of a buffer that is copied or cast.
    pub buffer: usize,
    /// Rows and columns of the product that is the roof.
    pub side: usize,
}

impl Sizes {
    /// Those of a shape's model, with roofs outside of every cache.
    pub fn of(shape: &crate::step::Shape) -> Self {
        let layout = QkvLayout {
            kv_heads: shape.kv_heads,
            q_per_kv: shape.heads / shape.kv_heads,
            head_dim: shape.hidden / shape.heads,
        };
        let (tokens, hidden) = (shape.seq * shape.batch, shape.hidden);
        let (buffer, side) = (16 << 20, 1024);
        Self { tokens, hidden, layout, ffn: shape.ffn, vocab: shape.vocab, seq: shape.seq, buffer, side }
    }
}

/// What an operation cannot do without: each operand read once, each result written once, each multiply-add two FLOPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Limited by memory.
    Bytes(u64),
    /// Limited by arithmetic.
    Flops(u64),
}

/// Something to measure.
pub struct Operation {
    /// `<operation>/<forward | both | …>`; `both` is forward and backward.
    pub name: String,
    /// Per call.
    pub work: Work,
    /// Whether there is a version composed of burn's operations.
    pub composed: bool,
    run: Box<dyn FnMut(KernelSet)>,
}

impl Operation {
    /// Does it once.
    pub fn run(&mut self, set: KernelSet) {
        (self.run)(set);
    }
}

/// The operations of a decoder at these sizes, the machine's roofs first: `copy` and `gemm`.
pub fn operations(sizes: Sizes) -> Vec<Operation> {
    let mut list = List(Vec::new());
    list.roofs(sizes.buffer, sizes.side);
    list.matrix_products(sizes);
    list.attention(sizes);
    list.element_wise(sizes);
    list.losses(sizes);
    list.bf16(sizes);
    list.experts(sizes);
    list.optimizer(sizes.buffer);
    list.0
}

struct List(Vec<Operation>);

impl List {
    fn add(&mut self, name: &str, work: Work, run: impl FnMut() + 'static) {
        let mut run = run;
        self.0.push(Operation { name: name.to_owned(), work, composed: false, run: Box::new(move |_| run()) });
    }

    /// `forward` alone, and with the backward of a gradient of ones.
    fn both(&mut self, name: &str, works: [Work; 2], forward: impl Fn(KernelSet) -> Tensor<2> + Clone + 'static) {
        self.all(name, works, move |set| [forward(set)]);
    }

    /// [`List::both`] of several outputs of one shape.
    fn all<const N: usize>(
        &mut self,
        name: &str,
        works: [Work; 2],
        forward: impl Fn(KernelSet) -> [Tensor<2>; N] + Clone + 'static,
    ) {
        let (once, [alone, with_backward]) = (forward.clone(), works);
        let gradient = Tensor::ones(forward(KernelSet::Fused)[0].dims(), &Device::flex());
        let mut push = |suffix: &str, work, run| {
            self.0.push(Operation { name: format!("{name}/{suffix}"), work, composed: true, run });
        };
        push("forward", alone, Box::new(move |set| drop(once(set))));
        push("both", with_backward, Box::new(move |set| backward(forward(set), &gradient)));
    }

    fn roofs(&mut self, len: usize, side: usize) {
        let (source, mut target) = (normals("copy", len), vec![0.0f32; len]);
        self.add("copy", Work::Bytes(2 * FLOAT * len as u64), move || {
            let chunks = target.par_chunks_mut(1 << 20).zip(source.par_chunks(1 << 20));
            chunks.for_each(|(to, from)| to.copy_from_slice(from));
        });
        let (x, y) = (normals("x", side * side), normals("y", side * side));
        self.add("gemm", Work::Flops(2 * (side * side * side) as u64), move || {
            drop(product(Matrix::new(&x, side, side), Matrix::new(&y, side, side)));
        });
    }

    fn matrix_products(&mut self, s: Sizes) {
        let (x, weight) = (leaf("x", [s.tokens, s.hidden]), leaf("w", [s.ffn, s.hidden]));
        let flops = 2 * (s.tokens * s.hidden * s.ffn) as u64;
        self.both("linear", [Work::Flops(flops), Work::Flops(3 * flops)], move |set| {
            linear(set, x.clone(), weight.clone())
        });
        let table = leaf("table", [s.vocab, s.hidden]);
        let tokens: Vec<u32> = (0..s.tokens).map(|i| (i * 7 % s.vocab) as u32).collect();
        let (rows, table_bytes) = (FLOAT * (s.tokens * s.hidden) as u64, FLOAT * (s.vocab * s.hidden) as u64);
        // Backward: clear the table's gradient, read the rows' gradients, add them to rows of it.
        self.both("embedding", [Work::Bytes(2 * rows), Work::Bytes(5 * rows + table_bytes)], move |set| {
            embedding(set, table.clone(), &tokens)
        });
    }

    fn attention(&mut self, s: Sizes) {
        let window = (s.seq / 4).max(1);
        let halves = [s.seq / 2, s.seq - s.seq / 2];
        let masks = [
            ("attention", AttentionMask::default(), vec![s.seq]),
            ("attention_full", AttentionMask::FULL, vec![s.seq]),
            ("attention_window", AttentionMask::sliding(window), vec![s.seq]),
            // Documents of one eighth, one quarter, … of a row.
            ("attention_packed", AttentionMask::default(), vec![s.seq / 8, s.seq / 4, s.seq - s.seq / 8 - s.seq / 4]),
            ("attention_halves", AttentionMask::default(), halves.to_vec()),
        ];
        for (name, mask, lengths) in masks {
            let lengths: Vec<usize> = lengths.repeat(s.tokens / s.seq);
            let cu_seqlens = boundaries(&lengths);
            let pairs = Segments::packed(&cu_seqlens).pairs(mask) * s.layout.output_width() as u64;
            let qkv = leaf("qkv", [s.tokens, s.layout.qkv_width()]);
            // Two products forward; the backward has four and needs the scores again.
            self.both(name, [Work::Flops(4 * pairs), Work::Flops(14 * pairs)], move |set| {
                attention_masked(set, qkv.clone(), s.layout, &cu_seqlens, mask)
            });
        }
    }

    fn element_wise(&mut self, s: Sizes) {
        let pass = |width: usize| FLOAT * (s.tokens * width) as u64;
        let (x, weight) = (leaf("x", [s.tokens, s.hidden]), leaf("weight", [s.hidden]));
        let works = [2, 5].map(|passes| Work::Bytes(passes * pass(s.hidden)));
        let (input, scale) = (x.clone(), weight.clone());
        self.both("rms_norm", works, move |set| rms_norm(set, input.clone(), scale.clone(), 1e-5));
        let residual = leaf("residual", [s.tokens, s.hidden]);
        let works = [4, 8].map(|passes| Work::Bytes(passes * pass(s.hidden)));
        self.all("rms_norm_residual", works, move |set| {
            let (y, sum) = rms_norm_residual(set, x.clone(), residual.clone(), weight.clone(), 1e-5);
            [y, sum]
        });
        let qkv = leaf("qkv", [s.tokens, s.layout.qkv_width()]);
        let table = RotaryTable::new(s.layout.head_dim, 10_000.0, s.seq);
        let positions: Vec<u32> = (0..s.tokens).map(|i| (i % s.seq) as u32).collect();
        let works = [2, 4].map(|passes| Work::Bytes(passes * pass(s.layout.qkv_width())));
        self.both("rotary", works, move |set| rotary(set, qkv.clone(), s.layout, &positions, &table));
        let (gate, up) = (leaf("gate", [s.tokens, s.ffn]), leaf("up", [s.tokens, s.ffn]));
        let works = [3, 8].map(|passes| Work::Bytes(passes * pass(s.ffn)));
        self.both("swiglu", works, move |set| swiglu(set, gate.clone(), up.clone()));
    }

    fn losses(&mut self, s: Sizes) {
        let labels: Vec<i32> = (0..s.tokens).map(|i| (i * 13 % s.vocab) as i32).collect();
        let logits = leaf("logits", [s.tokens, s.vocab]);
        let work = Work::Bytes(2 * FLOAT * (s.tokens * s.vocab) as u64);
        let targets = labels.clone();
        self.loss("cross_entropy/both", work, move |set| {
            cross_entropy(set, logits.clone(), &targets, 0.0, 1.0).loss_sum
        });
        self.shard(s, labels.clone());
        let (x, head) = (leaf("hidden", [s.tokens, s.hidden]), leaf("head", [s.vocab, s.hidden]));
        let work = Work::Flops(6 * (s.tokens * s.hidden * s.vocab) as u64);
        self.loss("linear_cross_entropy/both", work, move |set| {
            linear_cross_entropy(set, x.clone(), head.clone(), &labels, 0.0, 1.0).loss_sum
        });
    }

    /// What a rank of vocabulary parallelism does for its quarter of the logits, over and over on one buffer; without the two
    /// reductions in between.
    fn shard(&mut self, s: Sizes, labels: Vec<i32>) {
        let shard = VocabShard::new(0..s.vocab / 4, s.vocab);
        let mut logits = normals("shard", s.tokens * shard.words());
        let options = Options::default();
        self.add("cross_entropy_shard/both", Work::Bytes(2 * FLOAT * logits.len() as u64), move || {
            let maxima = parallel::local_max(&logits, &shard, &labels);
            let sums = parallel::local_sums(&mut logits, &shard, &labels, &maxima, options);
            parallel::gradient_in_place(&mut logits, &shard, &labels, &maxima, &sums, options);
        });
    }

    fn loss(&mut self, name: &str, work: Work, loss: impl Fn(KernelSet) -> Tensor<1> + 'static) {
        let run = Box::new(move |set| drop(loss(set).backward()));
        self.0.push(Operation { name: name.to_owned(), work, composed: true, run });
    }

    fn experts(&mut self, s: Sizes) {
        let (x, weight) = (leaf("x", [s.tokens, s.hidden]), leaf("experts", [EXPERTS, s.ffn, s.hidden]));
        let offsets: Vec<u32> = (0..=EXPERTS).map(|expert| (s.tokens * expert / EXPERTS) as u32).collect();
        let flops = 2 * (s.tokens * s.hidden * s.ffn) as u64;
        self.both("grouped_linear", [Work::Flops(flops), Work::Flops(3 * flops)], move |set| {
            grouped_linear(set, x.clone(), weight.clone(), &offsets)
        });
    }

    fn optimizer(&mut self, elements: usize) {
        let grad = normals("grad", elements);
        let (mut master, mut exp_avg, mut exp_avg_sq) =
            (normals("master", elements), grad.clone(), vec![1.0; elements]);
        let segments = [adamw::Segment { range: 0..elements, weight_decay: 0.1 }];
        let gradient = grad.clone();
        let mut number = 0;
        // Reads gradient, master and both moments, writes the latter three.
        self.add("adamw/step", Work::Bytes(7 * FLOAT * elements as u64), move || {
            number += 1;
            let (master, exp_avg, exp_avg_sq) = (&mut master[..], &mut exp_avg[..], &mut exp_avg_sq[..]);
            let state = adamw::cpu::State { master, exp_avg, exp_avg_sq, copy: None };
            let update = adamw::Update { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, number, grad_scale: 1.0 };
            adamw::cpu::step(state, &gradient, &segments, update);
        });
        self.add("grad_norm/squares", Work::Bytes(FLOAT * elements as u64), move || {
            std::hint::black_box(grad_norm::cpu::squares(&[&grad]));
        });
    }

    fn bf16(&mut self, s: Sizes) {
        let halves = |name: &str, len: usize| -> Vec<bf16> {
            let mut out = vec![bf16::ZERO; len];
            round(&normals(name, len), &mut out);
            out
        };
        let (x, w) = (halves("x", s.tokens * s.hidden), halves("w", s.ffn * s.hidden));
        let work = Work::Flops(2 * (s.tokens * s.hidden * s.ffn) as u64);
        self.add("linear_bf16/forward", work, move || {
            let (x, w) = (Matrix::new(&x, s.tokens, s.hidden), Matrix::new(&w, s.ffn, s.hidden));
            drop(product_bf16(x, w.transposed()));
        });
        let table = halves("table", s.vocab * s.hidden);
        let tokens: Vec<u32> = (0..s.tokens).map(|i| (i * 7 % s.vocab) as u32).collect();
        self.add("embedding_bf16/forward", Work::Bytes(FLOAT * (s.tokens * s.hidden) as u64), move || {
            std::hint::black_box(embedding::cpu::forward(&table, s.hidden, &tokens));
        });
        let work = Work::Bytes(6 * s.buffer as u64);
        let (wide, mut narrow) = (normals("cast", s.buffer), vec![bf16::ZERO; s.buffer]);
        self.add("cast_to_bf16", work, move || {
            let chunks = narrow.par_chunks_mut(1 << 18).zip(wide.par_chunks(1 << 18));
            chunks.for_each(|(to, from)| round(from, to));
        });
        let (narrow, mut wide) = (halves("cast", s.buffer), vec![0.0; s.buffer]);
        self.add("cast_from_bf16", work, move || {
            let chunks = wide.par_chunks_mut(1 << 18).zip(narrow.par_chunks(1 << 18));
            chunks.for_each(|(to, from)| widen(from, to));
        });
    }
}

/// A trainable input.
fn leaf<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    tensor(name, shape, &Device::flex().autodiff()).require_grad()
}

/// Sends `gradient` into the backward of each output, without the cost of a loss.
fn backward<const N: usize>(outputs: [Tensor<2>; N], gradient: &Tensor<2>) {
    let (function, _) = Function::enter(outputs.map(Into::into));
    let gradient = gradient.clone();
    let loss: Tensor<1> = HostTensor::from_vec(vec![0.0], [1]).into_tensor();
    let send = move |_: Tensor<1>, _| std::array::from_fn(|_| Some(gradient.clone().into_dispatch()));
    drop(function.finish(loss, send).backward());
}
