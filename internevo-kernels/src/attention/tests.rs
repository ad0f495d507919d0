//! Packed and cached attention against f64 and burn; masks and separate tensors in `masked`.

use super::cpu::{self, Outcome};
use super::{AttentionMask, QkvLayout, Segments, attention, attention_cached, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;

mod masked;

fn layout(random: &mut Random, q_per_kv: usize) -> QkvLayout {
    QkvLayout { kv_heads: random.between(1, 3), q_per_kv, head_dim: random.between(4, 70) }
}

/// The fused output for an interleaved `qkv`, causal.
fn forward(qkv: &[f32], layout: QkvLayout, cu_seqlens: &[u32]) -> Vec<f32> {
    let segments = Segments::packed(cu_seqlens);
    cpu::forward(cpu::interleaved(qkv, layout), layout, &segments, AttentionMask::default()).0
}

fn run_against_f64(random: &mut Random, layout: QkvLayout, cu_seqlens: &[u32], device: &burn::tensor::Device) {
    println!("{layout:?} {cu_seqlens:?}");
    let tokens = *cu_seqlens.last().unwrap() as usize;
    let (x, dy) = (random.values(tokens * layout.qkv_width()), random.values(tokens * layout.output_width()));
    let exact = reference::packed(&wide(&x), layout, cu_seqlens);
    let exact_gradient = reference::packed_backward(&wide(&x), layout, cu_seqlens, &wide(&dy));
    for set in [Fused, Reference] {
        let qkv = leaf(&x, [tokens, layout.qkv_width()], device);
        let y = attention(set, qkv.clone(), layout, cu_seqlens);
        assert_close("output", &values(y.clone()), &exact);
        let gradients = backward_with(y, &dy);
        assert_close("d_qkv", &gradient(&qkv, &gradients), &exact_gradient);
    }
}

#[test]
fn ragged_segments_agree_with_f64_forward_and_backward_for_every_group_size() {
    let mut random = Random::fresh();
    let devices = tracked_devices();
    for (i, q_per_kv) in [1, 2, 4, 6].into_iter().enumerate() {
        let (layout, tokens) = (layout(&mut random, q_per_kv), random.between(2, 320));
        let cu_seqlens = random.segments(tokens);
        run_against_f64(&mut random, layout, &cu_seqlens, &devices[i % 2]);
    }
}

#[test]
fn a_segment_longer_than_a_key_tile_agrees_with_f64() {
    let mut random = Random::fresh();
    let tokens = super::cpu::KEY_TILE as u32 + random.between(1, 200) as u32;
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 16 };
    run_against_f64(&mut random, layout, &[0, tokens], &tracked_devices()[0]);
}

#[test]
fn scores_that_overflow_an_exponential_are_still_exact() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 8 };
    let mut x = random.values(700 * layout.qkv_width());
    // Scores grow along the keys up to 100: the running maximum moves in every tile, and e^100 is no f32.
    x.chunks_exact_mut(layout.qkv_width()).enumerate().for_each(|(t, row)| {
        row[..8].fill(8.0);
        row[8..16].fill(t as f32 * 0.0065);
    });
    let output = forward(&x, layout, &[0, 700]);
    assert_close("output", &output, &reference::packed(&wide(&x), layout, &[0, 700]));
}

#[test]
fn the_reference_gradient_is_a_derivative() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 3 };
    let cu_seqlens = [0, 1, 5, 7];
    let (x, dy) = (wide(&random.values(7 * layout.qkv_width())), wide(&random.values(7 * layout.output_width())));
    let gradient = reference::packed_backward(&x, layout, &cu_seqlens, &dy);
    let f = |x: &[f64]| dot(&reference::packed(x, layout, &cu_seqlens), &dy);
    assert_gradient("d_qkv", &mut random, &x, &gradient, f);
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let (layout, tokens) = (QkvLayout { kv_heads: 3, q_per_kv: 2, head_dim: 24 }, 600);
    let segments = Segments::packed(&random.segments(tokens));
    let (qkv, dy) = (random.values(tokens * layout.qkv_width()), random.values(tokens * layout.output_width()));
    assert_deterministic("attention", || {
        let mask = AttentionMask::default();
        let (mut output, lse) = cpu::forward(cpu::interleaved(&qkv, layout), layout, &segments, mask);
        let outcome = Outcome { output: &output, log_sum_exp: &lse, d_output: &dy, d_log_sum_exp: None };
        let gradient = cpu::backward_interleaved(&qkv, outcome, layout, &segments, mask);
        output.extend(gradient);
        output
    });
}

#[test]
fn a_nan_reaches_later_tokens_of_its_segment_and_no_other_segment() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 8 };
    let mut qkv = random.values(90 * layout.qkv_width());
    qkv[40 * layout.qkv_width() + 2 * 8] = f32::NAN;
    let output = forward(&qkv, layout, &[0, 30, 80, 90]);
    for (token, row) in output.chunks_exact(layout.output_width()).enumerate() {
        let clean = row.iter().all(|v| !v.is_nan());
        assert!(clean || (30..80).contains(&token), "token {token} of another segment");
        assert!(!clean || !(40..80).contains(&token), "token {token} sees a key that is not a number");
    }
}

#[test]
fn cached_attention_equals_the_end_of_a_full_segment() {
    let mut random = Random::fresh();
    for q_per_kv in [1, 4] {
        let layout = layout(&mut random, q_per_kv);
        let (tokens, d) = (random.between(30, 200), layout.head_dim);
        let qkv = random.values(tokens * layout.qkv_width());
        let full = wide(&forward(&qkv, layout, &[0, tokens as u32]));
        let heads = |want: &dyn Fn(usize) -> bool| -> Vec<f32> {
            qkv.chunks_exact(d)
                .enumerate()
                .filter(|(i, _)| want(i % (q_per_kv + 2)))
                .flat_map(|(_, h)| h)
                .copied()
                .collect()
        };
        let (q, k, v) = (heads(&|i| i < q_per_kv), heads(&|i| i == q_per_kv), heads(&|i| i == q_per_kv + 1));
        for new in [1, random.between(2, tokens), tokens] {
            let q = plain(&q[(tokens - new) * layout.output_width()..], [new, layout.output_width()]);
            let cached = |x: &[f32]| plain(x, [tokens, layout.kv_width()]);
            let output = values(attention_cached(q, cached(&k), cached(&v), layout));
            assert_close("cached output", &output, &full[(tokens - new) * layout.output_width()..]);
        }
    }
}

#[test]
#[should_panic(expected = "cu_seqlens[2] does not exceed the entry before it")]
fn boundaries_that_do_not_increase_are_named() {
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 2 };
    attention(Fused, plain(&[0.0; 24], [4, 6]), layout, &[0, 3, 3, 4]);
}
