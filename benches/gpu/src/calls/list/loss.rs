//! Losses: cross-entropy of logits, and of a linear layer without its logits.

use internevo_kernels::cross_entropy::cpu::Options;
use internevo_kernels::cross_entropy::cube::{self as loss, Labels};
use internevo_kernels::cube::{BF16, ElemType, F32};
use internevo_kernels::linear_cross_entropy::{cpu::Wanted, cube as head};

use super::super::{Calls, Rules};

const TOKENS: usize = 8192;
const WIDTH: usize = 4096;
/// Debt: with 1024 units on a Blackwell card one register is missing.
const STATISTICS_DEBT: u32 = 8;

fn labels(tokens: usize, vocab: usize) -> Vec<i32> {
    (0..tokens).map(|token| (token * 7919 % vocab) as i32).collect()
}

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F32] {
        for (tokens, vocab) in [(TOKENS, 128_256), (333, 92_543)] {
            cross_entropy(calls, elem, tokens, vocab);
        }
    }
    let (vocab, elem) = (128_256, BF16);
    let shape = format!("{TOKENS}×{WIDTH}×{vocab}");
    // Debt: cubek's largest tiling, of 512 units, holds more than 128 registers.
    let rules = Rules::compute().debt("matmul_entry", 1060).debt("statistics_kernel", STATISTICS_DEBT);
    let call = calls.add("linear_cross_entropy forward+backward", elem, shape, rules, move |inputs| {
        let (hidden, weight) = (inputs.floats(TOKENS * WIDTH, elem), inputs.floats(vocab * WIDTH, elem));
        let labels = labels(TOKENS, vocab);
        let wanted = Wanted { hidden: true, weight: true };
        move |client| drop(head::forward(client, &hidden, &weight, WIDTH, &labels, Options::default(), wanted))
    });
    call.computes(6.0 * (TOKENS * WIDTH) as f64 * vocab as f64);
}

fn cross_entropy(calls: &mut Calls, elem: ElemType, tokens: usize, vocab: usize) {
    let (shape, bytes) = (format!("{tokens}×{vocab}"), tokens * vocab * elem.size());
    let rules = Rules::streaming().wide("statistics_kernel", elem, tokens * vocab);
    let rules = rules.debt("statistics_kernel", STATISTICS_DEBT);
    let forward = calls.add("cross_entropy forward", elem, &shape, rules.clone(), move |inputs| {
        let logits = inputs.floats(tokens * vocab, elem);
        let labels = Labels::new(inputs.client(), &labels(tokens, vocab), vocab);
        move |client| drop(loss::forward(client, &logits, vocab, &labels, Options::default()))
    });
    if tokens == TOKENS {
        forward.moves(bytes);
    }
    let rules = rules.wide("gradient_kernel", elem, tokens * vocab);
    let both = calls.add("cross_entropy forward+gradient", elem, &shape, rules, move |inputs| {
        let logits = inputs.floats(tokens * vocab, elem);
        let labels = Labels::new(inputs.client(), &labels(tokens, vocab), vocab);
        move |client| drop(loss::forward_with_gradient(client, &logits, vocab, &labels, Options::default()))
    });
    if tokens == TOKENS {
        both.moves(3 * bytes);
    }
}
