//! Losses: cross-entropy of logits, and of a linear layer without its logits; alone and by a rank that shares the vocabulary.

use std::convert::Infallible;

use internevo_kernels::VocabShard;
use internevo_kernels::cross_entropy::cpu::Options;
use internevo_kernels::cross_entropy::cube::{self as loss, Labels};
use internevo_kernels::cube::{BF16, ElemType, F16, F32, Machine};
use internevo_kernels::linear_cross_entropy::{cpu::Wanted, cube as head};

use super::super::{Call, Calls, Rules, Tensor};

const TOKENS: usize = 8192;
const WIDTH: usize = 4096;
const VOCAB: usize = 128_256;
/// Every number of a loss.
const OPTIONS: Options = Options { label_smoothing: 0.1, z_loss: 1e-4, scale: 1.0 };
const WANTED: Wanted = Wanted { hidden: true, weight: true };

fn labels(tokens: usize, vocab: usize) -> Vec<i32> {
    (0..tokens).map(|token| (token * 7919 % vocab) as i32).collect()
}

/// The first quarter of a vocabulary.
fn quarter(vocab: usize) -> VocabShard {
    VocabShard::new(0..vocab / 4, vocab)
}

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F16, F32] {
        for (tokens, vocab) in [(TOKENS, VOCAB), (333, 92_543)] {
            cross_entropy(calls, elem, tokens, vocab);
        }
        shared_cross_entropy(calls, elem);
        linear_cross_entropy(calls, elem, TOKENS, WIDTH, VOCAB);
    }
    for elem in [BF16, F32] {
        linear_cross_entropy(calls, elem, 333, 1001, 5003).only_on(&[90]);
    }
    shared_linear_cross_entropy(calls, BF16);
}

fn cross_entropy(calls: &mut Calls, elem: ElemType, tokens: usize, vocab: usize) {
    let (shape, bytes) = (format!("{tokens}×{vocab}"), tokens * vocab * elem.size());
    let rules = Rules::streaming().wide("statistics_kernel", elem, tokens * vocab);
    let forward = calls.add("cross_entropy forward", elem, &shape, rules.clone(), move |inputs| {
        let logits = inputs.floats(tokens * vocab, elem);
        let labels = Labels::new(inputs.client(), &labels(tokens, vocab), vocab);
        move |client| drop(loss::forward(client, &logits, vocab, &labels, Options::default()))
    });
    if tokens == TOKENS {
        forward.moves(bytes);
    }
    let rules = rules.wide("gradient_kernel", elem, tokens * vocab);
    let both = calls.add("cross_entropy forward+gradient", elem, &shape, rules.clone(), move |inputs| {
        let logits = inputs.floats(tokens * vocab, elem);
        let labels = Labels::new(inputs.client(), &labels(tokens, vocab), vocab);
        move |client| drop(loss::forward_with_gradient(client, &logits, vocab, &labels, Options::default()))
    });
    if tokens == TOKENS {
        both.moves(3 * bytes);
    }
    calls.add("cross_entropy forward+gradient, all options", elem, &shape, rules, move |inputs| {
        let logits = inputs.floats(tokens * vocab, elem);
        let labels = Labels::new(inputs.client(), &labels(tokens, vocab), vocab);
        move |client| drop(loss::forward_with_gradient(client, &logits, vocab, &labels, OPTIONS))
    });
}

/// What one of four ranks does, the gradient in a buffer of its own.
fn shared_cross_entropy(calls: &mut Calls, elem: ElemType) {
    let (shard, len) = (quarter(VOCAB), TOKENS * VOCAB / 4);
    let rules = Rules::streaming().wide("statistics_kernel", elem, len).wide("gradient_kernel", elem, len);
    let shape = format!("{TOKENS}×{VOCAB} in 4");
    let call = calls.add("cross_entropy of a shard", elem, shape, rules, move |inputs| {
        let (logits, parts) = (inputs.floats(len, elem), inputs.floats(4 * TOKENS * loss::STATISTICS, F32));
        let labels = Labels::new(inputs.client(), &labels(TOKENS, VOCAB), VOCAB);
        let shard = shard.clone();
        move |client| {
            drop(loss::statistics(client, &logits, &shard, &labels, OPTIONS));
            let rows = loss::combine(client, &parts, VOCAB, &labels, OPTIONS);
            drop(loss::gradient(client, &logits, &shard, &labels, &rows.log_sum_exp, OPTIONS));
        }
    });
    call.moves(3 * len * elem.size());
}

fn linear_cross_entropy(calls: &mut Calls, elem: ElemType, tokens: usize, width: usize, vocab: usize) -> &mut Call {
    let (shape, rules) = (format!("{tokens}×{width}×{vocab}"), rules_of_head(elem, width));
    let call = calls.add("linear_cross_entropy forward+backward", elem, shape, rules, move |inputs| {
        let (hidden, weight) = (inputs.floats(tokens * width, elem), inputs.floats(vocab * width, elem));
        let labels = labels(tokens, vocab);
        move |client| {
            let out = head::forward(client, &hidden, &weight, width, &labels, Options::default(), WANTED);
            for gradient in out.d_hidden.iter().chain(&out.d_weight) {
                drop(head::scaled(client, gradient, 0.5, elem));
            }
        }
    });
    if elem == BF16 && tokens == TOKENS {
        call.computes(6.0 * (tokens * width) as f64 * vocab as f64);
    }
    call
}

/// What one of four ranks does, its own statistics standing in for those of the others.
fn shared_linear_cross_entropy(calls: &mut Calls, elem: ElemType) {
    let (shape, shard) = (format!("{TOKENS}×{WIDTH}×{VOCAB} in 4"), quarter(VOCAB));
    let call = calls.add("linear_cross_entropy of a shard", elem, shape, rules_of_head(elem, WIDTH), move |inputs| {
        let (hidden, weight) = (inputs.floats(TOKENS * WIDTH, elem), inputs.floats(shard.words() * WIDTH, elem));
        let (labels, shard) = (labels(TOKENS, VOCAB), shard.clone());
        move |client| {
            let cut = head::Cut::new(Machine::of(client), TOKENS, VOCAB, WIDTH, elem);
            let alone = &mut |statistics| Ok::<_, Infallible>(statistics);
            let out =
                head::forward_shard(client, &hidden, &weight, WIDTH, &shard, &labels, OPTIONS, WANTED, cut, alone);
            drop(out);
        }
    });
    call.computes(6.0 * (TOKENS * WIDTH * VOCAB / 4) as f64);
}

/// Tensor cores and wide loads where the type and rows of `width` allow them.
fn rules_of_head(elem: ElemType, width: usize) -> Rules {
    let rules = Rules::compute().wide("matmul_entry", elem, width);
    match elem {
        F32 => rules,
        _ => rules.tensor("matmul_entry", Tensor::Hmma),
    }
}
