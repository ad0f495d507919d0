//! One training step of one rank, `fused` beside `reference` kernels: `cargo bench -p benches --bench train_step`.
//! Beside PyTorch: `cargo xtask peers train`.

use benches::{is_test, step};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use internevo_kernels::KernelSet;

/// The product's allocator: what a step allocates is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn train_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("train_step");
    let names: &[&str] = if is_test() { &["test"] } else { &["5m", "base", "30m"] };
    for name in names {
        let shape = step::shape(name).expect("a known shape");
        group.throughput(Throughput::Elements((shape.seq * shape.batch) as u64));
        for (set_name, set) in [("fused", KernelSet::Fused), ("reference", KernelSet::Reference)] {
            let mut step = step::TrainStep::new(shape, set);
            group.bench_function(format!("{name}/{set_name}"), |b| b.iter(|| step.run()));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = train_step
}
criterion_main!(benches);
