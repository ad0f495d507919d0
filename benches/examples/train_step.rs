//! Times training steps and prints `tokens_per_second <median>` last:
//! `cargo run --release -p benches --example train_step -- --shape 30m --tokens 1024 --threads 2 --steps 8`.
//! `cargo xtask peers train` runs it in turns with PyTorch.

use std::time::Instant;

use benches::step::{SHAPES, TrainStep, shape};
use internevo_kernels::KernelSet;

/// The product's allocator: what a step allocates is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let (shape_name, threads, steps) =
        (argument("--shape", "tiny"), argument("--threads", "2"), argument("--steps", "8"));
    let kernels = match argument("--kernels", "fused").as_str() {
        "reference" => KernelSet::Reference,
        _ => KernelSet::Fused,
    };
    let threads = threads.parse().expect("--threads is a number");
    let steps: usize = steps.parse().expect("--steps is a number");
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the pool is built once");
    let shape = shape(&shape_name).unwrap_or_else(|| panic!("--shape is one of {SHAPES:?}"));
    let tokens = argument("--tokens", &(shape.seq * shape.batch).to_string());
    let shape = shape.with_tokens(tokens.parse().expect("--tokens is a number"));
    let mut step = TrainStep::new(shape, kernels);
    let mut seconds = Vec::new();
    for index in 0..steps + 2 {
        let start = Instant::now();
        let loss = step.run();
        seconds.push(start.elapsed().as_secs_f64());
        println!("step {index} loss {loss:.5} {:.1} ms", seconds[index] * 1e3);
    }
    let timed = &mut seconds[2..];
    timed.sort_by(f64::total_cmp);
    println!("tokens_per_second {:.1}", step.tokens() as f64 / timed[timed.len() / 2]);
}

fn argument(name: &str, default: &str) -> String {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().unwrap_or_else(|| default.to_owned())
}
