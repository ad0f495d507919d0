//! Bandwidth of the local collectives against a plain memory copy of the same bytes in the same run:
//! `cargo run --release -p internevo-parallel --example collective_bandwidth -- [RANKS] [MIB]`
//!
//! Prints milliseconds per call and algorithm bandwidth (bytes of one rank's buffer per second).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use internevo_parallel::comm::{Buffer, CommError, Communicator, ReduceOp, run_ranks};

const REPEATS: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let ranks = numbers.next().transpose()?.unwrap_or(2);
    let mib = numbers.next().transpose()?.unwrap_or(64);
    let times = run_ranks(ranks, |comm| measure(&comm, mib))?;
    println!("{ranks} ranks, {mib} MiB of f32 per rank, median of {REPEATS}");
    for (name, time, bytes) in &times[0] {
        let seconds = time.as_secs_f64();
        println!("{name:<26} {:>9.3} ms  {:>7.2} GB/s", seconds * 1e3, *bytes as f64 / seconds / 1e9);
    }
    Ok(())
}

type Row = (&'static str, Duration, usize);

fn measure(comm: &Arc<dyn Communicator>, mib: usize) -> Result<Vec<Row>, CommError> {
    let len = (mib << 18) / comm.size() * comm.size();
    let bytes = len * size_of::<f32>();
    let mut rows = Vec::new();

    let (source, mut target) = (vec![1.0f32; len], vec![0.0f32; len]);
    let copy = median(comm, || {
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&target);
        Ok(())
    })?;
    rows.push(("memcpy on every rank", copy, bytes));

    let mut buffer = Some(Buffer::F32(source));
    let time = median(comm, || {
        let full = buffer.take().expect("given back below");
        buffer = Some(comm.all_reduce(full, ReduceOp::Max)?.wait()?);
        Ok(())
    })?;
    rows.push(("all_reduce max", time, bytes));
    let time = median(comm, || {
        let full = buffer.take().expect("given back below");
        buffer = Some(comm.all_reduce(full, ReduceOp::Sum)?.wait()?);
        Ok(())
    })?;
    rows.push(("all_reduce sum", time, bytes));

    let mut spare = vec![0.0f32; len];
    let time = median(comm, || {
        let mut full = std::mem::take(&mut spare);
        full.resize(len, 0.0);
        spare = comm.reduce_scatter(Buffer::F32(full), ReduceOp::Sum)?.wait()?.into_f32();
        Ok(())
    })?;
    rows.push(("reduce_scatter + refill", time, bytes));
    let time = median(comm, || {
        let full = buffer.take().expect("given back below");
        buffer = Some(comm.all_gather_in_place(full)?.wait()?);
        Ok(())
    })?;
    rows.push(("all_gather_in_place", time, bytes));
    let part = Buffer::F32(vec![1.0; len / comm.size()]);
    let time = median(comm, || comm.all_gather(part.clone())?.wait().map(drop))?;
    rows.push(("all_gather, new memory", time, bytes));
    let time = median(comm, || comm.all_reduce(Buffer::F64(vec![1.0]), ReduceOp::Sum)?.wait().map(drop))?;
    rows.push(("all_reduce of one f64", time, size_of::<f64>()));
    Ok(rows)
}

fn median(
    comm: &Arc<dyn Communicator>,
    mut call: impl FnMut() -> Result<(), CommError>,
) -> Result<Duration, CommError> {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        comm.barrier()?;
        let started = Instant::now();
        call()?;
        comm.barrier()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
