//! Masks, and separate tensors whose lengths differ, against f64: forward, log-sum-exp, all gradients.

use super::super::cpu::{self, KEY_TILE, Outcome};
use super::super::{AttentionMask, QkvLayout, Segments, attention_masked, flash_attention, reference};
use crate::KernelSet::{Fused, Reference};
use crate::testing::*;
use burn::tensor::{Device, Tensor};

/// Separate operands and the gradients that come in.
struct Case {
    layout: QkvLayout,
    segments: Segments,
    mask: AttentionMask,
    /// Queries, keys, values.
    inputs: [Vec<f32>; 3],
    d_output: Vec<f32>,
    d_lse: Vec<f32>,
}

impl Case {
    fn random(random: &mut Random, layout: QkvLayout, segments: Segments, mask: AttentionMask) -> Self {
        println!("{layout:?} {segments:?} {mask:?}");
        let (q, kv) = (segments.queries() * layout.output_width(), segments.keys() * layout.kv_width());
        let inputs = [q, kv, kv].map(|len| random.values(len));
        let d_output = random.values(q);
        let d_lse = random.values(segments.queries() * layout.heads());
        Self { layout, segments, mask, inputs, d_output, d_lse }
    }

    fn exact(&self, inputs: &[Vec<f64>; 3]) -> (Vec<f64>, Vec<f64>) {
        let [q, k, v] = inputs;
        reference::forward(views(q, k, v, self.layout), self.layout, &self.segments, self.mask)
    }

    fn exact_gradients(&self, inputs: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
        let ([q, k, v], layout) = (inputs, self.layout);
        let (dy, d_lse) = (wide(&self.d_output), wide(&self.d_lse));
        reference::backward(views(q, k, v, layout), layout, &self.segments, self.mask, &dy, &d_lse)
    }

    /// The kernel on slices: output, log-sum-exp, and the three gradients one after the other.
    fn on_slices(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let ([q, k, v], layout) = (&self.inputs, self.layout);
        let operands = cpu::separate(q, k, v, layout);
        let (output, lse) = cpu::forward(operands, layout, &self.segments, self.mask);
        let outcome = Outcome {
            output: &output,
            log_sum_exp: &lse,
            d_output: &self.d_output,
            d_log_sum_exp: Some(&self.d_lse),
        };
        let gradients = cpu::backward(operands, outcome, layout, &self.segments, self.mask).concat();
        (output, lse, gradients)
    }

    fn leaves(&self, device: &Device) -> [Tensor<3>; 3] {
        let QkvLayout { kv_heads, head_dim, .. } = self.layout;
        let shapes = [(self.segments.queries(), self.layout.heads()), (self.segments.keys(), kv_heads)];
        let [q, k, v] = &self.inputs;
        [(q, shapes[0]), (k, shapes[1]), (v, shapes[1])].map(|(x, (t, heads))| leaf(x, [t, heads, head_dim], device))
    }

    /// Both kernel sets against f64, through both results.
    fn check(&self, device: &Device) {
        let inputs = self.inputs.each_ref().map(|x| wide(x));
        let ((exact, exact_lse), exact_gradients) = (self.exact(&inputs), self.exact_gradients(&inputs));
        for set in [Fused, Reference] {
            let leaves = self.leaves(device);
            let [q, k, v] = leaves.clone();
            let (output, lse) = flash_attention(set, q, k, v, &self.segments, self.mask);
            assert_close("output", &values(output.clone()), &exact);
            assert_lse(&values(lse.clone()), &exact_lse);
            let d_lse = plain(&self.d_lse, lse.dims());
            let seen = plain(&values(lse.clone()), lse.dims()).is_inf();
            let loss = (output.clone() * plain(&self.d_output, output.dims())).sum()
                + (lse.mask_fill(seen, 0.0) * d_lse).sum();
            let gradients = loss.backward();
            for (name, (leaf, exact)) in ["dq", "dk", "dv"].iter().zip(leaves.iter().zip(&exact_gradients)) {
                assert_close(name, &gradient(leaf, &gradients), exact);
            }
        }
    }
}

fn views<'a>(q: &'a [f64], k: &'a [f64], v: &'a [f64], layout: QkvLayout) -> reference::Operands<'a> {
    let [q_heads, k_heads, v_heads] = layout.separate();
    [q_heads.on(q), k_heads.on(k), v_heads.on(v)]
}

/// `-∞` in the same places, and close everywhere else.
#[track_caller]
fn assert_lse(lse: &[f32], exact: &[f64]) {
    assert!(lse.iter().zip(exact).all(|(a, b)| (*a == f32::NEG_INFINITY) == (*b == f64::NEG_INFINITY)));
    let finite: Vec<_> = lse.iter().zip(exact).filter(|(_, b)| b.is_finite()).collect();
    let (lse, exact): (Vec<f32>, Vec<f64>) = finite.into_iter().map(|(a, b)| (*a, *b)).unzip();
    assert_close("log-sum-exp", &lse, &exact);
}

/// A few segments of up to `longest` queries and keys: equal and unequal lengths, one token, sides without tokens.
fn ragged(random: &mut Random, longest: usize) -> Segments {
    let (mut q, mut k) = (vec![0, 1], vec![0, 1]);
    for _ in 0..random.between(1, 3) {
        let queries = random.between(0, longest);
        let keys = if random.between(0, 1) == 0 { queries } else { random.between(0, longest) };
        q.push(q[q.len() - 1] + queries as u32);
        k.push(k[k.len() - 1] + keys as u32);
    }
    Segments::new(q, k)
}

fn masks(random: &mut Random, longest: usize) -> Vec<AttentionMask> {
    let windows = [None, Some(1), Some(random.between(2, longest)), Some(10 * longest)];
    windows.into_iter().flat_map(|window| [true, false].map(|causal| AttentionMask { causal, window })).collect()
}

#[test]
fn every_mask_agrees_with_f64_on_ragged_segments_of_other_numbers_of_queries_and_keys() {
    let mut random = Random::fresh();
    let devices = tracked_devices();
    for (i, mask) in masks(&mut random, 60).into_iter().enumerate() {
        let layout = QkvLayout {
            kv_heads: random.between(1, 3),
            q_per_kv: random.between(1, 5),
            head_dim: random.between(3, 70),
        };
        let segments = ragged(&mut random, 150);
        Case::random(&mut random, layout, segments, mask).check(&devices[i % 2]);
    }
}

#[test]
fn the_usual_head_widths_agree_with_f64() {
    let mut random = Random::fresh();
    for (head_dim, q_per_kv) in [(64, 8), (96, 3), (128, 1), (256, 2)] {
        let layout = QkvLayout { kv_heads: 1, q_per_kv, head_dim };
        let mask = AttentionMask { causal: true, window: Some(random.between(5, 90)) };
        let segments = Segments::new(vec![0, 70], vec![0, 100]);
        Case::random(&mut random, layout, segments, mask).check(&tracked_devices()[0]);
    }
}

#[test]
fn keys_of_several_tiles_agree_with_f64_under_every_mask() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 8 };
    let keys = (KEY_TILE + random.between(10, 300)) as u32;
    for mask in masks(&mut random, KEY_TILE) {
        let segments = Segments::new(vec![0, keys - 7], vec![0, keys]);
        Case::random(&mut random, layout, segments, mask).check(&tracked_devices()[1]);
    }
}

#[test]
fn a_fused_qkv_has_the_results_of_its_parts_under_every_mask() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 3, head_dim: 12 };
    for mask in masks(&mut random, 40) {
        let segments = Segments::packed(&random.segments(130));
        let case = Case::random(&mut random, layout, segments, mask);
        let inputs = case.inputs.each_ref().map(|x| wide(x));
        let none = vec![0.0; case.d_lse.len()];
        let [q, k, v] = &inputs;
        let dy = wide(&case.d_output);
        let gradients = reference::backward(views(q, k, v, layout), layout, &case.segments, mask, &dy, &none);
        for set in [Fused, Reference] {
            let fused = reference::interleave(case.inputs.clone(), layout);
            let qkv = leaf(&fused, [130, layout.qkv_width()], &tracked_devices()[0]);
            let y = attention_masked(set, qkv.clone(), layout, case.segments.cu_seqlens_q(), mask);
            assert_close("output", &values(y.clone()), &case.exact(&inputs).0);
            let exact = reference::interleave(gradients.clone(), layout);
            assert_close("d_qkv", &gradient(&qkv, &backward_with(y, &case.d_output)), &exact);
        }
    }
}

#[test]
fn queries_before_the_first_key_see_nothing_and_give_nothing() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 5 };
    // 90 queries over 20 keys: the first 70 stand before all keys.
    let segments = Segments::new(vec![0, 90], vec![0, 20]);
    let case = Case::random(&mut random, layout, segments, AttentionMask::default());
    let (output, lse, gradients) = case.on_slices();
    let (unseen, seen) = output.split_at(70 * layout.output_width());
    assert!(unseen.iter().all(|v| *v == 0.0) && seen.iter().all(|v| v.is_finite() && *v != 0.0));
    let (unseen, seen) = lse.split_at(70 * layout.heads());
    assert!(unseen.iter().all(|v| *v == f32::NEG_INFINITY) && seen.iter().all(|v| v.is_finite()));
    assert!(gradients[..70 * layout.output_width()].iter().all(|v| *v == 0.0));
    assert!(gradients.iter().all(|v| v.is_finite()));
    case.check(&tracked_devices()[0]);
}

#[test]
fn the_reference_gradients_are_derivatives_of_both_results() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 3 };
    for mask in masks(&mut random, 6) {
        let segments = Segments::new(vec![0, 4, 9, 10], vec![0, 6, 9, 10]);
        let mut case = Case::random(&mut random, layout, segments, mask);
        let inputs = case.inputs.each_ref().map(|x| wide(x));
        // A query that sees nothing has a log-sum-exp of -∞, which depends on nothing.
        let unseen: Vec<bool> = case.exact(&inputs).1.iter().map(|lse| lse.is_infinite()).collect();
        case.d_lse.iter_mut().zip(&unseen).filter(|(_, unseen)| **unseen).for_each(|(d, _)| *d = 0.0);
        let f = |inputs: &[Vec<f64>; 3]| {
            let (output, mut lse) = case.exact(inputs);
            lse.iter_mut().zip(&unseen).filter(|(_, unseen)| **unseen).for_each(|(lse, _)| *lse = 0.0);
            dot(&output, &wide(&case.d_output)) + dot(&lse, &wide(&case.d_lse))
        };
        for (i, gradient) in case.exact_gradients(&inputs).iter().enumerate() {
            assert_gradient(["dq", "dk", "dv"][i], &mut random, &inputs[i], gradient, |x| {
                let mut moved = inputs.clone();
                moved[i] = x.to_vec();
                f(&moved)
            });
        }
    }
}

#[test]
fn the_range_a_query_sees_is_what_the_mask_says_key_by_key() {
    let mut random = Random::fresh();
    for mask in masks(&mut random, 30) {
        for position in -40..40isize {
            let visible = mask.visible(position);
            assert!((-80..80).all(|key| mask.sees(position, key) == visible.contains(&key)), "{mask:?} {position}");
        }
        let segments = ragged(&mut random, 25);
        let pairs = segments.iter().flat_map(|(q, k)| {
            let shift = k.len() as isize - q.len() as isize;
            (0..q.len() as isize).flat_map(move |i| (0..k.len() as isize).map(move |j| mask.sees(i + shift, j)))
        });
        assert_eq!(segments.pairs(mask), pairs.filter(|sees| *sees).count() as u64);
    }
}

#[test]
fn a_nan_reaches_the_queries_that_see_it_and_no_other_segment() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 8 };
    let segments = Segments::new(vec![0, 30, 230, 240], vec![0, 30, 230, 240]);
    let mut case = Case::random(&mut random, layout, segments, AttentionMask::sliding(20));
    case.inputs[1][100 * layout.kv_width()] = f32::NAN;
    let (output, lse, _) = case.on_slices();
    for (token, (row, lse)) in output.chunks_exact(16).zip(lse.chunks_exact(2)).enumerate() {
        let (sees, clean) = ((100..120).contains(&token), row.iter().chain(lse).all(|v| v.is_finite()));
        assert_eq!(clean, !sees, "token {token}");
    }
}

#[test]
fn bits_do_not_depend_on_threads_under_any_mask() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 3, q_per_kv: 2, head_dim: 24 };
    for mask in masks(&mut random, 100) {
        let segments = ragged(&mut random, 300);
        let case = Case::random(&mut random, layout, segments, mask);
        assert_deterministic("masked attention", || {
            let (mut output, lse, gradients) = case.on_slices();
            output.extend(lse.into_iter().chain(gradients));
            output
        });
    }
}

#[test]
fn only_the_gradients_that_are_needed_are_given() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 4 };
    let segments = Segments::new(vec![0, 5], vec![0, 6]);
    let case = Case::random(&mut random, layout, segments, AttentionMask::FULL);
    let device = &tracked_devices()[0];
    let [q, k, v] = case.leaves(device);
    let constant = |x: Tensor<3>| x.without_autodiff();
    let (output, lse) =
        flash_attention(Fused, constant(q), k.clone(), constant(v), &case.segments, AttentionMask::FULL);
    // Through the log-sum-exp alone: nothing reaches the values, and the output has no gradient.
    let gradients = lse.sum().backward();
    drop(output);
    assert!(gradient(&k, &gradients).iter().any(|v| *v != 0.0));
}

#[test]
#[should_panic(expected = "cu_seqlens_k[2] is below the entry before it")]
fn boundaries_that_decrease_are_named() {
    Segments::new(vec![0, 3, 4], vec![0, 3, 2]);
}

#[test]
#[should_panic(expected = "a window of 0 keys")]
fn a_window_of_nothing_is_refused() {
    AttentionMask::sliding(0);
}

#[test]
#[should_panic(expected = "2 kv heads do not divide 3 heads")]
fn head_counts_that_do_not_divide_are_refused() {
    let q = plain(&[0.0; 12], [1, 3, 4]);
    let kv = || plain(&[0.0; 8], [1, 2, 4]);
    flash_attention(Fused, q, kv(), kv(), &Segments::packed(&[0, 1]), AttentionMask::FULL);
}
