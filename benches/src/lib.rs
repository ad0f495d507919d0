//! Shared helpers of the benches: reproducible inputs, and the smaller sizes of a test run.
//!
//! `cargo bench -p benches` measures; `cargo test -p benches --benches` runs every bench once on small inputs.

pub mod memory;
pub mod step;

use burn::tensor::{Device, Tensor, TensorData};
use internevo_core::rng::CounterRng;

/// Whether this run only checks that the benches work.
pub fn is_test() -> bool {
    !std::env::args().any(|a| a == "--bench")
}

/// `full` when measuring, `small` when only checking.
pub fn size(full: usize, small: usize) -> usize {
    if is_test() { small } else { full }
}

/// Standard normal values, the same for the same name.
pub fn normals(name: &str, len: usize) -> Vec<f32> {
    let rng = CounterRng::new(0, name);
    (0..len as u64).map(|i| rng.normal(i) as f32).collect()
}

/// A tensor of standard normal values on `device`.
pub fn tensor<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(normals(name, shape.iter().product()), shape), device)
}

/// Segment boundaries of packed documents with these lengths.
pub fn boundaries(lengths: &[usize]) -> Vec<u32> {
    let mut ends = vec![0];
    for length in lengths {
        ends.push(ends[ends.len() - 1] + *length as u32);
    }
    ends
}

/// English-like text of about `bytes` bytes, one document a line; every tenth document nearly repeats an earlier one.
pub fn documents(bytes: usize) -> Vec<String> {
    const WORDS: [&str; 24] = [
        "the",
        "of",
        "and",
        "to",
        "in",
        "that",
        "with",
        "have",
        "be",
        "model",
        "gradient",
        "tensor",
        "layer",
        "corpus",
        "token",
        "filter",
        "document",
        "quality",
        "parallel",
        "memory",
        "bandwidth",
        "schedule",
        "checkpoint",
        "sequence",
    ];
    let rng = CounterRng::new(1, "documents");
    let (mut out, mut total, mut index) = (Vec::<String>::new(), 0, 0u64);
    while total < bytes {
        let mut text = String::new();
        if out.len() % 10 == 9 {
            text.push_str(&out[out.len() - 5]);
            text.push_str(" And one sentence more.");
        } else {
            for sentence in 0..20 {
                for _ in 0..12 {
                    index += 1;
                    let n = rng.below(index, 200) as usize;
                    text.push_str(WORDS.get(n % 30).copied().unwrap_or("word"));
                    if n >= 30 {
                        text.push_str(&n.to_string());
                    }
                    text.push(' ');
                }
                text.push_str(if sentence % 4 == 3 { ".\n" } else { ". " });
            }
        }
        total += text.len();
        out.push(text);
    }
    out
}
