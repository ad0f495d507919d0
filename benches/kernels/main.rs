//! Every kernel forward and backward, `fused` beside `reference` (composed of burn's operations), with the machine's copy
//! and matrix-product rates as roofs: `cargo bench -p benches --bench kernels [-- attention]`.
//!
//! Shapes are those of one micro-batch of the `tiny` preset: 1024 tokens, hidden 256, 8 heads over 4 kv heads.

use benches::{boundaries, normals, size, tensor};
use burn::tensor::{Device, Tensor};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use internevo_kernels::{
    CrossEntropy, KernelSet, QkvLayout, RotaryTable, attention, cross_entropy, embedding, linear, linear_cross_entropy,
    matmul::{Matrix, product},
    rms_norm, rotary, swiglu,
};

const SETS: [(&str, KernelSet); 2] = [("fused", KernelSet::Fused), ("reference", KernelSet::Reference)];
const LAYOUT: QkvLayout = QkvLayout { kv_heads: 4, q_per_kv: 2, head_dim: 32 };

struct Shape {
    tokens: usize,
    hidden: usize,
    ffn: usize,
    vocab: usize,
}

fn shape() -> Shape {
    Shape { tokens: size(1024, 32), hidden: 256, ffn: 704, vocab: size(4096, 128) }
}

/// A trainable input.
fn leaf<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    tensor(name, shape, &Device::flex().autodiff()).require_grad()
}

/// Measures `forward` alone and with its backward, for both kernel sets.
fn both(group: &mut BenchmarkGroup<'_, WallTime>, forward: impl Fn(KernelSet) -> Tensor<2>) {
    for (name, set) in SETS {
        group.bench_function(format!("{name}/forward"), |b| b.iter(|| forward(set)));
        group.bench_function(format!("{name}/forward+backward"), |b| b.iter(|| forward(set).sum().backward()));
    }
}

fn roofs(c: &mut Criterion) {
    let mut group = c.benchmark_group("roof");
    let len = size(16 << 20, 1 << 10);
    let source = normals("copy", len);
    let mut target = vec![0.0f32; len];
    group.throughput(Throughput::Bytes(8 * len as u64));
    group.bench_function("copy", |b| b.iter(|| target.copy_from_slice(std::hint::black_box(&source))));
    let n = size(1024, 16);
    let (x, y) = (normals("x", n * n), normals("y", n * n));
    group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
    group.bench_function("gemm", |b| b.iter(|| product(Matrix::new(&x, n, n), Matrix::new(&y, n, n))));
    group.finish();
}

fn element_wise(c: &mut Criterion) {
    let s = shape();
    let (x, weight) = (leaf("x", [s.tokens, s.hidden]), leaf("weight", [s.hidden]));
    let mut group = c.benchmark_group("rms_norm");
    group.throughput(Throughput::Bytes((8 * s.tokens * s.hidden) as u64));
    both(&mut group, |set| rms_norm(set, x.clone(), weight.clone(), 1e-5));
    group.finish();

    let (gate, up) = (leaf("gate", [s.tokens, s.ffn]), leaf("up", [s.tokens, s.ffn]));
    let mut group = c.benchmark_group("swiglu");
    group.throughput(Throughput::Bytes((12 * s.tokens * s.ffn) as u64));
    both(&mut group, |set| swiglu(set, gate.clone(), up.clone()));
    group.finish();

    let qkv = leaf("qkv", [s.tokens, LAYOUT.qkv_width()]);
    let table = RotaryTable::new(LAYOUT.head_dim, 10_000.0, s.tokens);
    let positions: Vec<u32> = (0..s.tokens as u32).collect();
    let mut group = c.benchmark_group("rotary");
    group.throughput(Throughput::Bytes((8 * s.tokens * LAYOUT.qkv_width()) as u64));
    both(&mut group, |set| rotary(set, qkv.clone(), LAYOUT, &positions, &table));
    group.finish();
}

fn attention_kernels(c: &mut Criterion) {
    let tokens = shape().tokens;
    let mut group = c.benchmark_group("attention");
    let documents: Vec<usize> = [3, 5, 2, 4, 1, 1].iter().map(|part| tokens * part / 16).collect();
    for (name, lengths) in [("rows", vec![tokens / 4; 4]), ("packed", documents), ("one", vec![tokens])] {
        let cu_seqlens = boundaries(&lengths);
        // Two products over the causal half of every segment.
        let pairs: usize = lengths.iter().map(|n| n * (n + 1) / 2).sum();
        group.throughput(Throughput::Elements((4 * pairs * LAYOUT.output_width()) as u64));
        let qkv = leaf("qkv", [tokens, LAYOUT.qkv_width()]);
        for (set_name, set) in SETS {
            let run = || attention(set, qkv.clone(), LAYOUT, &cu_seqlens);
            group.bench_function(format!("{name}/{set_name}/forward"), |b| b.iter(run));
            group.bench_function(format!("{name}/{set_name}/forward+backward"), |b| b.iter(|| run().sum().backward()));
        }
    }
    group.finish();
}

fn matrix_products(c: &mut Criterion) {
    let s = shape();
    let (x, weight) = (leaf("x", [s.tokens, s.hidden]), leaf("w", [s.ffn, s.hidden]));
    let mut group = c.benchmark_group("linear");
    group.throughput(Throughput::Elements((2 * s.tokens * s.hidden * s.ffn) as u64));
    both(&mut group, |set| linear(set, x.clone(), weight.clone()));
    group.finish();

    let table = leaf("table", [s.vocab, s.hidden]);
    let tokens: Vec<u32> = (0..s.tokens).map(|i| (i * 7 % s.vocab) as u32).collect();
    let mut group = c.benchmark_group("embedding");
    group.throughput(Throughput::Bytes((8 * s.tokens * s.hidden) as u64));
    both(&mut group, |set| embedding(set, table.clone(), &tokens));
    group.finish();
}

fn losses(c: &mut Criterion) {
    let s = shape();
    let labels: Vec<i32> = (0..s.tokens).map(|i| (i * 13 % s.vocab) as i32).collect();
    let backward = |loss: CrossEntropy| loss.loss_sum.backward();
    let logits = leaf("logits", [s.tokens, s.vocab]);
    let mut group = c.benchmark_group("cross_entropy");
    group.throughput(Throughput::Bytes((8 * s.tokens * s.vocab) as u64));
    for (name, set) in SETS {
        let run = || cross_entropy(set, logits.clone(), &labels, 0.0, 1.0);
        group.bench_function(format!("{name}/forward+backward"), |b| b.iter(|| backward(run())));
    }
    group.finish();

    let (hidden, head) = (leaf("hidden", [s.tokens, s.hidden]), leaf("head", [s.vocab, s.hidden]));
    let mut group = c.benchmark_group("linear_cross_entropy");
    group.throughput(Throughput::Elements((6 * s.tokens * s.hidden * s.vocab) as u64));
    for (name, set) in SETS {
        let run = || linear_cross_entropy(set, hidden.clone(), head.clone(), &labels, 0.0, 1.0);
        group.bench_function(format!("{name}/forward+backward"), |b| b.iter(|| backward(run())));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = roofs, element_wise, attention_kernels, matrix_products, losses
}
criterion_main!(benches);
