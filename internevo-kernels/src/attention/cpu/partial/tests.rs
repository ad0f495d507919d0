//! Attention in steps over virtual ranks, against f64 and against attention in one piece.

use super::super::plan::Plan;
use super::super::{Outcome, backward_interleaved, forward, interleaved};
use super::{Held, PartialAttention, Saved, add_kv, backward_step, pack_kv};
use crate::attention::{AttentionMask, QkvLayout, Runs, Segments, reference};
use crate::testing::*;

/// A packed micro-batch.
struct Batch {
    layout: QkvLayout,
    cu_seqlens: Vec<u32>,
    qkv: Vec<f32>,
    d_output: Vec<f32>,
}

impl Batch {
    fn random(random: &mut Random, layout: QkvLayout, tokens: usize) -> Self {
        let cu_seqlens = random.segments(tokens);
        println!("{layout:?} {cu_seqlens:?}");
        let (qkv, d_output) =
            (random.values(tokens * layout.qkv_width()), random.values(tokens * layout.output_width()));
        Self { layout, cu_seqlens, qkv, d_output }
    }

    fn tokens(&self) -> usize {
        *self.cu_seqlens.last().unwrap() as usize
    }

    /// Output and gradient of `qkv`, each of the whole micro-batch, computed by ranks that hold `ranks`. Rank r meets the
    /// keys of rank r first, then r - 1, as in a ring.
    fn in_a_ring(&self, ranks: &[Runs]) -> (Vec<f32>, Vec<f32>) {
        let (layout, segments) = (self.layout, &self.cu_seqlens);
        let qkv: Vec<_> = ranks.iter().map(|runs| rows_of(&self.qkv, runs, layout.qkv_width())).collect();
        let kv: Vec<_> = qkv.iter().map(|qkv| pack_kv(qkv, layout)).collect();
        let mut d_qkv: Vec<_> = qkv.iter().map(|qkv| vec![0.0; qkv.len()]).collect();
        let mut d_kv: Vec<_> = kv.iter().map(|kv| vec![0.0; kv.len()]).collect();
        let (mut output, mut gradient) = (vec![0.0; self.d_output.len()], vec![0.0; self.qkv.len()]);
        for (rank, runs) in ranks.iter().enumerate() {
            let senders = (0..ranks.len()).map(|step| (rank + ranks.len() - step) % ranks.len());
            let held = |sender: usize| Held { data: &kv[sender], runs: &ranks[sender] };
            let mut state = PartialAttention::new(runs.rows(), layout);
            for sender in senders.clone() {
                state.accumulate(Held { data: &qkv[rank], runs }, held(sender), layout, segments);
            }
            let saved = Saved { qkv: &qkv[rank], output: &state.output, log_sum_exp: &state.log_sum_exp };
            let d_output = rows_of(&self.d_output, runs, layout.output_width());
            for sender in senders {
                let (d_qkv, d_kv) = (&mut d_qkv[rank], &mut d_kv[sender]);
                backward_step(saved, runs, held(sender), layout, segments, &d_output, d_qkv, d_kv);
            }
            put_rows(&mut output, runs, &state.output);
        }
        for ((runs, mut d_qkv), d_kv) in ranks.iter().zip(d_qkv).zip(&d_kv) {
            add_kv(&mut d_qkv, d_kv, layout);
            put_rows(&mut gradient, runs, &d_qkv);
        }
        (output, gradient)
    }
}

fn rows_of(data: &[f32], runs: &Runs, width: usize) -> Vec<f32> {
    runs.tokens().flat_map(|token| &data[token * width..][..width]).copied().collect()
}

fn put_rows(data: &mut [f32], runs: &Runs, rows: &[f32]) {
    let width = rows.len() / runs.rows().max(1);
    for (row, token) in runs.tokens().enumerate() {
        data[token * width..][..width].copy_from_slice(&rows[row * width..][..width]);
    }
}

/// `0..tokens` cut at random into pieces, dealt to `ranks` ranks in zig-zag or by chance.
fn random_runs(random: &mut Random, tokens: usize, ranks: usize, zig_zag: bool) -> Vec<Runs> {
    let pieces = if zig_zag { 2 * ranks } else { random.between(1, 4 * ranks) };
    let mut cuts: Vec<_> = (1..pieces).map(|_| random.between(0, tokens)).chain([0, tokens]).collect();
    cuts.sort_unstable();
    let mut held = vec![Vec::new(); ranks];
    for (piece, pair) in cuts.windows(2).enumerate() {
        let rank = if zig_zag { piece.min(2 * ranks - 1 - piece) } else { random.between(0, ranks - 1) };
        held[rank].push(pair[0]..pair[1]);
    }
    held.into_iter().map(Runs::new).collect()
}

#[test]
fn any_split_of_the_tokens_agrees_with_f64_forward_and_backward() {
    let mut random = Random::fresh();
    for (ranks, zig_zag) in (1..=4).flat_map(|ranks| [(ranks, true), (ranks, false)]) {
        let layout = QkvLayout {
            kv_heads: random.between(1, 3),
            q_per_kv: random.between(1, 5),
            head_dim: random.between(3, 40),
        };
        let tokens = random.between(2, 400);
        let batch = Batch::random(&mut random, layout, tokens);
        let held = random_runs(&mut random, tokens, ranks, zig_zag);
        println!("{held:?}");
        let (output, gradient) = batch.in_a_ring(&held);
        assert_close("output", &output, &reference::packed(&wide(&batch.qkv), layout, &batch.cu_seqlens));
        let exact = reference::packed_backward(&wide(&batch.qkv), layout, &batch.cu_seqlens, &wide(&batch.d_output));
        assert_close("d_qkv", &gradient, &exact);
    }
}

#[test]
fn long_segments_in_zig_zag_agree_with_f64() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 16 };
    let tokens = random.between(1300, 1500);
    let mut batch = Batch::random(&mut random, layout, tokens);
    batch.cu_seqlens = vec![0, 7, tokens as u32];
    let held = random_runs(&mut random, tokens, 2, true);
    let (output, gradient) = batch.in_a_ring(&held);
    assert_close("output", &output, &reference::packed(&wide(&batch.qkv), layout, &batch.cu_seqlens));
    let exact = reference::packed_backward(&wide(&batch.qkv), layout, &batch.cu_seqlens, &wide(&batch.d_output));
    assert_close("d_qkv", &gradient, &exact);
}

#[test]
fn one_run_of_all_tokens_has_the_bits_of_attention_in_one_piece() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 3, head_dim: 24 };
    let batch = Batch::random(&mut random, layout, 700);
    let (output, gradient) = batch.in_a_ring(&[Runs::from(0..700)]);
    let (segments, mask) = (Segments::packed(&batch.cu_seqlens), AttentionMask::default());
    let (whole, lse) = forward(interleaved(&batch.qkv, layout), layout, &segments, mask);
    assert!(bits(&output) == bits(&whole));
    let outcome = Outcome { output: &whole, log_sum_exp: &lse, d_output: &batch.d_output, d_log_sum_exp: None };
    assert!(bits(&gradient) == bits(&backward_interleaved(&batch.qkv, outcome, layout, &segments, mask)));
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 16 };
    let batch = Batch::random(&mut random, layout, 500);
    let held = random_runs(&mut random, batch.tokens(), 3, true);
    assert_deterministic("attention in a ring", || {
        let (mut output, gradient) = batch.in_a_ring(&held);
        output.extend(gradient);
        output
    });
}

#[test]
fn a_query_that_has_seen_no_key_stays_zero_until_it_sees_one() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 5 };
    let batch = Batch { cu_seqlens: vec![0, 40], ..Batch::random(&mut random, layout, 40) };
    let (all, late, early) = (Runs::from(0..40), Runs::from(25..40), Runs::from(0..25));
    let kv = |runs: &Runs| pack_kv(&rows_of(&batch.qkv, runs, layout.qkv_width()), layout);
    let queries = Held { data: &batch.qkv, runs: &all };
    let mut state = PartialAttention::new(40, layout);
    state.accumulate(queries, Held { data: &kv(&late), runs: &late }, layout, &batch.cu_seqlens);
    let (unseen, seen) = state.output.split_at(25 * layout.output_width());
    assert!(unseen.iter().all(|v| *v == 0.0) && seen.iter().all(|v| v.is_finite() && *v != 0.0));
    let seen = |lse: &[f32]| lse.chunks_exact(2).filter(|row| row.iter().all(|v| v.is_finite())).count();
    assert_eq!(seen(&state.log_sum_exp), 15);
    state.accumulate(queries, Held { data: &kv(&early), runs: &early }, layout, &batch.cu_seqlens);
    assert_eq!(seen(&state.log_sum_exp), 40);
    assert_close("output", &state.output, &reference::packed(&wide(&batch.qkv), layout, &batch.cu_seqlens));
}

#[test]
fn pairs_that_see_nothing_of_each_other_are_no_work() {
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 4 };
    let plan = |queries, keys| {
        Plan::packed(layout, &Runs::from(queries), &Runs::from(keys), &[0, 100, 200], AttentionMask::default())
    };
    assert!(plan(0..50, 50..100).blocks.is_empty(), "keys after all queries");
    assert!(plan(100..200, 0..100).blocks.is_empty(), "keys of another segment");
    let plan = plan(50..200, 90..110);
    let visible: usize = plan.blocks.iter().flat_map(|block| plan.tiles(block)).map(|tile| tile.mask.keys).sum();
    assert!(plan.blocks.iter().all(|block| block.len <= 64));
    assert!(visible <= 10 + 2 * 10, "the tail of the first segment's keys once, those of the second in two blocks");
}

#[test]
fn packing_takes_keys_and_values_and_adding_puts_them_back() {
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 1, head_dim: 1 };
    let qkv = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(pack_kv(&qkv, layout), [2.0, 3.0, 5.0, 6.0]);
    let mut d_qkv = [10.0; 6];
    add_kv(&mut d_qkv, &[1.0, 2.0, 3.0, 4.0], layout);
    assert_eq!(d_qkv, [10.0, 11.0, 12.0, 10.0, 13.0, 14.0]);
}

#[test]
#[should_panic(expected = "run 3..6 of tokens begins before 0..4 ends")]
fn runs_that_overlap_are_named() {
    Runs::new([0..4, 3..6]);
}

#[test]
#[should_panic(expected = "rows of token 9 in a micro-batch of 5")]
fn runs_beyond_the_micro_batch_are_named() {
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 1 };
    let runs = Runs::from(8..10);
    let (queries, kv) = (Held { data: &[0.0; 6], runs: &runs }, Held { data: &[0.0; 4], runs: &runs });
    PartialAttention::new(2, layout).accumulate(queries, kv, layout, &[0, 5]);
}
