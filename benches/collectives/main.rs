//! Collectives of the `local` communicator, in bytes of each rank's buffer per second, beside a plain copy:
//! `cargo bench -p benches --bench collectives`.

use std::time::{Duration, Instant};

use benches::size;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use internevo_parallel::comm::{Buffer, CommError, Communicator, ReduceOp, run_ranks};

type Collective = fn(&dyn Communicator, Vec<f32>) -> Result<Buffer, CommError>;

const COLLECTIVES: [(&str, Collective); 3] = [
    ("all_reduce", |comm, data| comm.all_reduce(Buffer::F32(data), ReduceOp::Sum)?.wait()),
    ("reduce_scatter", |comm, data| comm.reduce_scatter(Buffer::F32(data), ReduceOp::Sum)?.wait()),
    ("all_gather", |comm, mut data| {
        data.truncate(data.len() / comm.size());
        comm.all_gather(Buffer::F32(data))?.wait()
    }),
];

/// Time of `iterations` calls, the slowest rank's.
fn timed(ranks: usize, len: usize, iterations: u64, collective: Collective) -> Duration {
    let times = run_ranks(ranks, |comm| {
        let data = vec![1.0f32; len];
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            let buffer = data.clone();
            comm.barrier()?;
            let start = Instant::now();
            collective(&*comm, buffer)?;
            total += start.elapsed();
        }
        Ok::<_, CommError>(total)
    });
    times.expect("no rank fails").into_iter().max().expect("at least one rank")
}

fn collectives(c: &mut Criterion) {
    for (name, collective) in COLLECTIVES {
        let mut group = c.benchmark_group(name);
        for ranks in [2, 4] {
            for len in [size(1 << 18, 64), size(1 << 24, 128)] {
                group.throughput(Throughput::Bytes(4 * len as u64));
                let id = BenchmarkId::new(format!("ranks-{ranks}"), format!("{}KiB", len / 256));
                group.bench_function(id, |b| b.iter_custom(|n| timed(ranks, len, n, collective)));
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = collectives
}
criterion_main!(benches);
