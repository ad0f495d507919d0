//! Times single operations on request, in turns with `xtask/peers/kernels.py`: `cargo xtask peers kernels` talks to both.
//!
//! `cargo run --release -p benches --example kernels -- --shape 30m --tokens 1024 --threads 2` prints
//! `<operation> bytes|flops <work>` for each operation, then an empty line. Then each line read is the name of one, and the
//! answer its shortest time in seconds, which is what a busy machine disturbs least.

use std::{
    io::{BufRead as _, Write as _},
    time::{Duration, Instant},
};

use benches::{
    operations::{Operation, Sizes, Work, operations},
    step::{SHAPES, shape},
};
use internevo_kernels::KernelSet;

/// The product's allocator: what a step allocates is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Least time spent on one answer, and fewest runs of it.
const BUDGET: Duration = Duration::from_millis(300);
const RUNS: usize = 5;

fn main() -> std::io::Result<()> {
    let threads = argument("--threads", "2").parse().expect("--threads is a number");
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the pool is built once");
    let name = argument("--shape", "30m");
    let shape = shape(&name).unwrap_or_else(|| panic!("--shape is one of {SHAPES:?}"));
    let tokens = argument("--tokens", &(shape.seq * shape.batch).to_string());
    let mut all = operations(Sizes::of(&shape.with_tokens(tokens.parse().expect("--tokens is a number"))));
    let mut out = std::io::stdout().lock();
    for operation in &all {
        match operation.work {
            Work::Bytes(bytes) => writeln!(out, "{} bytes {bytes}", operation.name)?,
            Work::Flops(flops) => writeln!(out, "{} flops {flops}", operation.name)?,
        }
    }
    writeln!(out)?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let operation = all.iter_mut().find(|operation| operation.name == line).expect("the name of an operation");
        writeln!(out, "{}", shortest_seconds(operation))?;
        out.flush()?;
    }
    Ok(())
}

fn shortest_seconds(operation: &mut Operation) -> f64 {
    operation.run(KernelSet::Fused);
    let (start, mut shortest, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while start.elapsed() < BUDGET || runs < RUNS {
        let one = Instant::now();
        operation.run(KernelSet::Fused);
        shortest = shortest.min(one.elapsed().as_secs_f64());
        runs += 1;
    }
    shortest
}

fn argument(name: &str, default: &str) -> String {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().unwrap_or_else(|| default.to_owned())
}
