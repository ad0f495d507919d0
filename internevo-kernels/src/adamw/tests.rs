//! AdamW against f64 over several updates.

use super::cpu::{State, step};
use super::{Segment, Update, reference};
use crate::testing::*;

fn update(number: u64) -> Update {
    Update { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, number, grad_scale: 0.5 }
}

/// Ragged segments of `len` elements with two gaps: one between, one at the end.
fn ragged(random: &mut Random, len: usize) -> Vec<Segment> {
    let mut cuts: Vec<usize> = (0..5).map(|_| random.between(0, len)).chain([0]).collect();
    cuts.sort_unstable();
    let segment = |(i, pair): (usize, &[usize])| {
        (i != 2).then(|| Segment { range: pair[0]..pair[1], weight_decay: [0.1, 0.0, 0.2][i % 3] })
    };
    cuts.windows(2).enumerate().filter_map(segment).collect()
}

/// State after some updates by `kernel`, and the same by the reference; parameters, then moments.
fn after_updates(
    random: &mut Random,
    start: &[f32],
    segments: &[Segment],
    mut kernel: impl FnMut(&[f32], Update),
) -> [Vec<f64>; 3] {
    let mut exact = [wide(start), vec![0.0; start.len()], vec![0.0; start.len()]];
    for number in 1..=4 {
        let grad = random.values(start.len());
        kernel(&grad, update(number));
        reference::step(exact.each_mut().map(Vec::as_mut_slice), &wide(&grad), segments, update(number));
    }
    exact
}

#[test]
fn updates_agree_with_f64_and_padding_stays() {
    let mut random = Random::fresh();
    let len = random.between(1, 90_000);
    let (start, segments) = (random.values(len), ragged(&mut random, len));
    let (mut master, mut m, mut v, mut copy) = (start.clone(), vec![0.0; len], vec![0.0; len], vec![0x4040; len]);
    let exact = after_updates(&mut random, &start, &segments, |grad, update| {
        let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: Some(copy.as_mut_slice()) };
        step(state, grad, &segments, update);
    });
    for (what, out, exact) in [("master", &master, &exact[0]), ("m", &m, &exact[1]), ("v", &v, &exact[2])] {
        assert_close(what, out, exact);
    }
    let covered = |i: usize| segments.iter().any(|segment| segment.range.contains(&i));
    for i in 0..len {
        let copied = f32::from_bits(u32::from(copy[i]) << 16);
        let expected = if covered(i) { master[i] } else { 3.0 };
        assert!((copied - expected).abs() <= expected.abs() / 256.0, "element {i}: {copied} for {expected}");
    }
}

#[test]
fn the_copy_is_rounded_to_the_nearest_even_and_keeps_nan() {
    // Halfway between neighbours, just above halfway, the largest f32, NaN; an update of nothing leaves them.
    let mut master = [1.003_906_2, 1.003_906_4, 1.011_718_8, f32::MAX, f32::NAN, -0.0];
    let (mut m, mut v, mut copy) = ([0.0; 6], [0.0; 6], [0; 6]);
    let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: Some(&mut copy) };
    let segment = Segment { range: 0..6, weight_decay: 0.0 };
    step(state, &[0.0; 6], &[segment], update(1));
    let values = copy.map(|bits| f32::from_bits(u32::from(bits) << 16));
    assert_eq!(values[..4], [1.0, 1.007_812_5, 1.015_625, f32::INFINITY]);
    assert!(values[4].is_nan() && values[5] == 0.0);
}

#[test]
fn bits_depend_neither_on_threads_nor_on_cuts() {
    let mut random = Random::fresh();
    let len = 100_000;
    let (start, grad) = (random.values(len), random.values(len));
    let run = |segments: &[Segment]| {
        let (mut master, mut m, mut v) = (start.clone(), vec![0.0; len], vec![0.0; len]);
        for number in 1..=2 {
            let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: None };
            step(state, &grad, segments, update(number));
        }
        master.extend(m);
        master.extend(v);
        master
    };
    let segment = |range| Segment { range, weight_decay: 0.1 };
    let (whole, cut) = ([segment(0..len)], random.between(0, len));
    assert_deterministic("adamw", || run(&whole));
    assert!(bits(&run(&whole)) == bits(&run(&[segment(0..cut), segment(cut..len)])));
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_plain_formula() {
    let mut random = Random::fresh();
    let (grad, mut p) = (random.values(333), random.values(333));
    let (mut master, mut m, mut v) = (p.clone(), vec![0.0; 333], vec![0.0; 333]);
    let u = update(1);
    let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: None };
    step(state, &grad, &[Segment { range: 0..333, weight_decay: 0.1 }], u);
    let (decay, step_size) = ((u.lr * 0.1) as f32, (u.lr / (1.0 - u.beta1)) as f32);
    let root = (1.0 - u.beta2).sqrt() as f32;
    for (p, g) in p.iter_mut().zip(grad) {
        let g = g * u.grad_scale;
        let (m, v) = ((1.0 - u.beta1) as f32 * g, (1.0 - u.beta2) as f32 * (g * g));
        *p -= decay * *p + step_size * (m / (v.sqrt() / root + u.eps as f32));
    }
    assert!(bits(&master) == bits(&p));
}

#[test]
fn a_nan_in_a_gradient_spoils_its_element_alone() {
    let (mut master, mut m, mut v) = ([1.0f32; 40], [0.0; 40], [0.0; 40]);
    let mut grad = [1.0; 40];
    grad[33] = f32::NAN;
    let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: None };
    step(state, &grad, &[Segment { range: 0..40, weight_decay: 0.1 }], update(1));
    assert!(master.iter().enumerate().all(|(i, p)| p.is_nan() == (i == 33)));
}

#[test]
#[should_panic(expected = "segment 3..5 after element 4 of 8")]
fn overlapping_segments_are_named() {
    let (mut master, mut m, mut v) = ([0.0; 8], [0.0; 8], [0.0; 8]);
    let state = State { master: &mut master, exp_avg: &mut m, exp_avg_sq: &mut v, copy: None };
    let segments = [0..4, 3..5].map(|range| Segment { range, weight_decay: 0.0 });
    step(state, &[0.0; 8], &segments, update(1));
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube::{Plan, State, step};
    use super::*;
    use crate::cube::testing::{assert_buffer, on_every_device};
    use crate::cube::{Buffer, Client, F32};

    fn zero_state(client: &Client, start: &[f32], copy: Option<Buffer>) -> State {
        let f32s = |values: &[f32]| Buffer::from_f32(client, values, F32);
        let zeros = vec![0.0; start.len()];
        State { master: f32s(start), exp_avg: f32s(&zeros), exp_avg_sq: f32s(&zeros), copy }
    }

    #[test]
    fn updates_agree_with_f64_and_padding_stays() {
        let mut random = Random::fresh();
        on_every_device(|client, elem| {
            for len in [1, 4096, 4 * random.between(1, 5000), random.between(1, 20_000)] {
                let (start, segments) = (random.values(len), ragged(&mut random, len));
                let plan = Plan::new(client, &segments, len);
                let state = zero_state(client, &start, Some(Buffer::from_f32(client, &start, elem)));
                // Two factors of a half and two: the one of the device counts too.
                let two = Buffer::from_f32(client, &[2.0], F32);
                let exact = after_updates(&mut random, &start, &segments, |grad, update| {
                    let grad: Vec<f32> = grad.iter().map(|g| g * 0.5).collect();
                    step(client, &state, &Buffer::from_f32(client, &grad, F32), &plan, update, Some(&two));
                });
                let copy = state.copy.as_ref().unwrap();
                assert_buffer("master", client, &state.master, &exact[0], F32);
                assert_buffer("copy", client, copy, &exact[0], elem);
                assert_buffer("m", client, &state.exp_avg, &exact[1], F32);
                assert_buffer("v", client, &state.exp_avg_sq, &exact[2], F32);
            }
        });
    }

    #[test]
    fn gradients_of_sixteen_bits_need_no_copy_of_the_parameters() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            let (grad, grad_on) = crate::cube::testing::random(&mut generator, client, 999, elem);
            let (start, segments) = (generator.values(999), [Segment { range: 0..999, weight_decay: 0.1 }]);
            let state = zero_state(client, &start, None);
            step(client, &state, &grad_on, &Plan::new(client, &segments, 999), update(1), None);
            let mut exact = [wide(&start), vec![0.0; 999], vec![0.0; 999]];
            reference::step(exact.each_mut().map(Vec::as_mut_slice), &grad, &segments, update(1));
            assert_buffer("master", client, &state.master, &exact[0], F32);
        });
    }

    #[test]
    fn a_factor_that_is_not_finite_changes_nothing() {
        on_every_device(|client, _| {
            let state = zero_state(client, &[1.0; 50], None);
            let plan = Plan::new(client, &[Segment { range: 0..50, weight_decay: 0.1 }], 50);
            let factor = Buffer::from_f32(client, &[f32::NAN], F32);
            let grad = Buffer::from_f32(client, &[1.0; 50], F32);
            step(client, &state, &grad, &plan, update(1), Some(&factor));
            assert_eq!(state.master.read_f32(client).unwrap(), [1.0; 50]);
            assert_eq!(state.exp_avg.read_f32(client).unwrap(), [0.0; 50]);
        });
    }

    #[test]
    fn a_nan_in_a_gradient_spoils_its_element_alone() {
        on_every_device(|client, elem| {
            let state = zero_state(client, &[1.0; 40], None);
            let mut grad = [1.0; 40];
            grad[33] = f32::NAN;
            let plan = Plan::new(client, &[Segment { range: 0..40, weight_decay: 0.1 }], 40);
            step(client, &state, &Buffer::from_f32(client, &grad, elem), &plan, update(1), None);
            let master = state.master.read_f32(client).unwrap();
            assert!(master.iter().enumerate().all(|(i, p)| p.is_nan() == (i == 33)));
        });
    }
}
