//! Every kernel forward and backward, `fused` beside `reference` (composed of burn's operations), as rates, and at the end as
//! shares of this machine's copy and matrix-product rates in the same run:
//! `cargo bench -p benches --bench kernels [-- attention]`.
//!
//! Shapes are those of one micro-batch of the 5M model: 1024 tokens, hidden 256, 8 heads over 4 kv heads. `attention_window`
//! sees a quarter of a row, `attention_packed` and `attention_halves` are packed and dense segments of about equal FLOPs.
//! Beside PyTorch: `cargo xtask peers kernels`.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use benches::{
    is_test,
    operations::{Sizes, Work, operations},
    step::shape,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use internevo_kernels::KernelSet;

/// The product's allocator: what a step allocates is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SETS: [(&str, KernelSet); 2] = [("fused", KernelSet::Fused), ("reference", KernelSet::Reference)];

fn sizes() -> Sizes {
    match is_test() {
        true => Sizes { buffer: 1 << 10, side: 16, ..Sizes::of(&shape("test").expect("a known shape")) },
        false => Sizes::of(&shape("5m").expect("a known shape")),
    }
}

fn kernels(c: &mut Criterion) {
    let mut rates: Vec<(String, Work, f64)> = Vec::new();
    for mut operation in operations(sizes()) {
        let name = operation.name.clone();
        let (subject, part) = name.split_once('/').unwrap_or(("roof", &name));
        let mut group = c.benchmark_group(subject);
        group.throughput(match operation.work {
            Work::Bytes(bytes) => Throughput::Bytes(bytes),
            Work::Flops(flops) => Throughput::Elements(flops),
        });
        for (set_name, set) in SETS.into_iter().take(if operation.composed { 2 } else { 1 }) {
            let best = Cell::new(Duration::MAX);
            group.bench_function(format!("{part}/{set_name}"), |b| {
                b.iter_custom(|runs| (0..runs).map(|_| timed(&best, || operation.run(set))).sum());
            });
            if best.get() < Duration::MAX {
                let (Work::Bytes(amount) | Work::Flops(amount)) = operation.work;
                let rate = amount as f64 / best.get().as_secs_f64() / 1e9;
                rates.push((format!("{name} {set_name}"), operation.work, rate));
            }
        }
        group.finish();
    }
    print_shares(&rates);
}

/// Times `f`, and keeps the time if it is the shortest so far.
fn timed(shortest: &Cell<Duration>, f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    let time = start.elapsed();
    shortest.set(shortest.get().min(time));
    time
}

/// Best rate of each operation, and its share of the roof it lives under; none if the roof was not measured.
fn print_shares(rates: &[(String, Work, f64)]) {
    let roof = |name: &str| rates.iter().find(|(found, ..)| found == name).map(|(.., rate)| *rate);
    let (copy, product) = (roof("copy fused"), roof("gemm fused"));
    println!("{:<44} {:>10}  share of the roof", "best of the run", "rate");
    for (name, work, rate) in rates {
        let (unit, roof) = match work {
            Work::Bytes(_) => ("GB/s", copy),
            Work::Flops(_) => ("GFLOP/s", product),
        };
        let share = roof.map_or_else(|| "-".to_owned(), |roof| format!("{:.0} %", 100.0 * rate / roof));
        println!("{name:<44} {rate:>10.2} {unit:<8} {share}");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = kernels
}
criterion_main!(benches);
