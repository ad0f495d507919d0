//! Predicted and measured bytes of one rank at the peak of a training step:
//! `cargo run --release -p benches --example memory`.

use benches::memory::{Counting, cases, long_cases, materialised, measure};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    println!("| layout | predicted MB | measured MB | ratio | all ranks in one process, MB each | ratio |");
    println!("|---|---|---|---|---|---|");
    for case in cases() {
        let row = measure(&case).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let (predicted, megabytes) = (row.predicted.total(), |bytes: u64| bytes as f64 / 1e6);
        let ratio = |bytes: u64| bytes as f64 / predicted as f64;
        println!(
            "| `{}` | {:.1} | {:.1} | {:.3} | {:.1} | {:.3} |",
            row.name,
            megabytes(predicted),
            megabytes(row.alone),
            ratio(row.alone),
            megabytes(row.together),
            ratio(row.together)
        );
    }
    let [fused, reference] =
        long_cases().map(|case| measure(&case).unwrap_or_else(|error| panic!("{}: {error}", case.name)));
    println!(
        "\n4,096 tokens: fused kernels {:.1} MB (predicted {:.1}), burn's operations {:.1} MB; scores and logits once: {:.1} MB",
        fused.alone as f64 / 1e6,
        fused.predicted.total() as f64 / 1e6,
        reference.alone as f64 / 1e6,
        materialised() as f64 / 1e6,
    );
}
