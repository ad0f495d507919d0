//! Every route against f64, on every device of the build.

use super::*;
use crate::attention::reference;
use crate::cube::testing::{assert_buffer, on_every_device, random};
use crate::cube::{ElemType, F32};
use crate::testing::Random;

/// Inputs on the device and what f64 makes of them.
struct Case {
    layout: QkvLayout,
    segments: Segments,
    mask: AttentionMask,
    buffers: [Buffer; 3],
    d_output: Buffer,
    d_lse: Buffer,
    output: Vec<f64>,
    lse: Vec<f64>,
    gradients: [Vec<f64>; 3],
}

impl Case {
    fn new(
        generator: &mut Random,
        client: &Client,
        elem: ElemType,
        layout: QkvLayout,
        segments: Segments,
        mask: AttentionMask,
    ) -> Self {
        let kv = segments.keys() * layout.kv_width();
        let lengths = [segments.queries() * layout.output_width(), kv, kv];
        let [q, k, v] = lengths.map(|len| random(generator, client, len, elem));
        let (dy, d_output) = random(generator, client, lengths[0], elem);
        let (d_log, d_lse) = random(generator, client, segments.queries() * layout.heads(), F32);
        let places = layout.separate();
        let operands = [places[0].on(&q.0[..]), places[1].on(&k.0[..]), places[2].on(&v.0[..])];
        let (output, lse) = reference::forward(operands, layout, &segments, mask);
        let gradients = reference::backward(operands, layout, &segments, mask, &dy, &d_log);
        Self { layout, segments, mask, buffers: [q.1, k.1, v.1], d_output, d_lse, output, lse, gradients }
    }

    fn attention(&self) -> Attention<'_> {
        Attention::new(self.layout, &self.segments, self.mask)
    }

    fn views<'a>(&self, buffers: &'a [Buffer; 3]) -> DeviceHeads<'a> {
        let places = self.layout.separate();
        std::array::from_fn(|i| places[i].on(&buffers[i]))
    }

    /// Buffers for gradients, full of NaN.
    fn spoilt(&self, client: &Client) -> [Buffer; 3] {
        self.buffers.each_ref().map(|like| Buffer::from_f32(client, &vec![f32::NAN; like.len], like.elem))
    }

    fn run(
        &self,
        client: &Client,
        forward: impl Fn(&DeviceHeads<'_>, &Attention<'_>) -> (Buffer, Buffer),
        backward: impl Fn(&DeviceHeads<'_>, &Outcome<'_>, &Attention<'_>, &DeviceHeads<'_>),
    ) {
        let elem = self.buffers[0].elem;
        let what = format!("{:?} {:?} {:?}", self.layout, self.segments, self.mask);
        println!("{what}");
        let (operands, attention) = (self.views(&self.buffers), self.attention());
        let (output, lse) = forward(&operands, &attention);
        assert_buffer(&format!("output of {what}"), client, &output, &self.output, elem);
        assert_lse(&what, &lse.read_f32(client).unwrap(), &self.lse, elem);
        let gradients = self.spoilt(client);
        let outcome = Outcome { output: &output, lse: &lse, d_output: &self.d_output, d_lse: Some(&self.d_lse) };
        backward(&operands, &outcome, &attention, &self.views(&gradients));
        for ((name, buffer), exact) in ["dq", "dk", "dv"].iter().zip(&gradients).zip(&self.gradients) {
            assert_buffer(&format!("{name} of {what}"), client, buffer, exact, elem);
        }
    }
}

/// `-∞` exactly where the reference has it; elsewhere near.
#[track_caller]
fn assert_lse(what: &str, lse: &[f32], exact: &[f64], elem: ElemType) {
    let finite = exact.iter().filter(|v| v.is_finite()).map(|v| v * v).sum::<f64>().sqrt().max(1.0);
    let mut difference = 0.0;
    for (out, exact) in lse.iter().zip(exact) {
        if exact.is_finite() {
            difference += (f64::from(*out) - exact).powi(2);
        } else {
            assert_eq!(f64::from(*out), *exact, "log-sum-exp of {what}");
        }
    }
    let relative = difference.sqrt() / finite;
    assert!(relative <= crate::cube::testing::tolerance(elem), "log-sum-exp of {what}: {relative:.2e}");
}

/// Segments of unequal lengths, with one of one token, one without queries, one without keys and one with more queries than
/// keys.
fn ragged(random: &mut Random, longest: usize) -> Segments {
    let (mut queries, mut keys) = (vec![0u32], vec![0u32]);
    let mut push = |q: usize, k: usize| {
        queries.push(queries[queries.len() - 1] + q as u32);
        keys.push(keys[keys.len() - 1] + k as u32);
    };
    push(1, 1);
    push(random.between(1, longest), random.between(1, longest));
    push(0, 3);
    push(3, 0);
    push(random.between(8, 20), random.between(1, 7));
    push(random.between(1, 40), random.between(41, longest));
    Segments::new(queries, keys)
}

fn masks(random: &mut Random) -> [AttentionMask; 3] {
    [AttentionMask::default(), AttentionMask::FULL, AttentionMask::sliding(random.between(1, 60))]
}

#[test]
fn ragged_segments_of_unequal_lengths_agree_with_f64_for_every_mask_group_and_odd_width() {
    let mut random = Random::fresh();
    on_every_device(|client, elem| {
        let layouts =
            [(1, 1, 64), (2, 3, 33), (1, 4, 96), (2, 1, 8 * random.between(1, 16)), (1, 2, random.between(1, 70))];
        for (i, (kv_heads, q_per_kv, head_dim)) in layouts.into_iter().enumerate() {
            let layout = QkvLayout { kv_heads, q_per_kv, head_dim };
            let mask = masks(&mut random)[i % 3];
            let segments = ragged(&mut random, 90);
            let case = Case::new(&mut random, client, elem, layout, segments, mask);
            case.run(
                client,
                |operands, attention| portable::forward(client, operands, attention, None),
                |operands, outcome, attention, gradients| {
                    let statistics = attention.statistics(client, operands, outcome, gradients);
                    portable::backward(client, operands, outcome.d_output, &statistics, attention, gradients, None);
                },
            );
        }
    });
}

#[test]
fn the_tensor_core_kernels_agree_with_f64_when_their_instructions_are_emulated() {
    let mut random = Random::fresh();
    on_every_device(|client, elem| {
        if elem.size() != 2 {
            return;
        }
        let tilings = [(2, 2, 32, 1, 32), (3, 1, 16, 1, 64), (1, 2, 32, 2, 64), (2, 1, 16, 1, 96), (1, 1, 16, 2, 128)];
        for (i, (warps, fragments, others, parts, head_dim)) in tilings.into_iter().enumerate() {
            let layout = QkvLayout { kv_heads: 1 + i % 2, q_per_kv: 1 + i % 3, head_dim };
            let mask = masks(&mut random)[i % 3];
            let segments = ragged(&mut random, 70);
            let case = Case::new(&mut random, client, elem, layout, segments, mask);
            let tiling = mma::Tiling { warps, fragments, others, parts };
            let whole = mma::Tiling { parts: 1, ..tiling };
            let emulated = mma::Instructions::Emulated;
            case.run(
                client,
                |operands, attention| mma::forward(client, operands, attention, emulated, Some(whole)),
                |operands, outcome, attention, gradients| {
                    let statistics = attention.statistics(client, operands, outcome, gradients);
                    let dy = outcome.d_output;
                    mma::backward(client, operands, dy, &statistics, attention, gradients, emulated, Some(tiling));
                },
            );
        }
    });
}
