//! Every route against f64, on every device of the build.

mod wgmma;

use super::*;
use crate::KernelSet::Reference;
use crate::attention::{attention_masked, flash_attention, reference};
use crate::cube::testing::{assert_buffer, clients, on_every_device, poison, random};
use crate::cube::{ElemType, F16, F32, Machine};
use crate::testing::*;
use burn::tensor::Tensor;

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

    fn name(&self) -> String {
        format!("{:?} {:?} {:?}", self.layout, self.segments, self.mask)
    }

    /// Runs a forward over memory full of NaN and compares what it gives.
    fn run_forward(
        &self,
        client: &Client,
        forward: impl Fn(&DeviceHeads<'_>, &Attention<'_>) -> (Buffer, Buffer),
    ) -> (Buffer, Buffer) {
        let (elem, what) = (self.buffers[0].elem, self.name());
        println!("{what}");
        poison(client, self.output.len(), elem);
        poison(client, self.lse.len(), F32);
        let (output, lse) = forward(&self.views(&self.buffers), &self.attention());
        assert_buffer(&format!("output of {what}"), client, &output, &self.output, elem);
        assert_lse(&what, &lse.read_f32(client).unwrap(), &self.lse, elem);
        (output, lse)
    }

    fn run(
        &self,
        client: &Client,
        forward: impl Fn(&DeviceHeads<'_>, &Attention<'_>) -> (Buffer, Buffer),
        backward: impl Fn(&DeviceHeads<'_>, &Outcome<'_>, &Attention<'_>, &DeviceHeads<'_>),
    ) {
        let (elem, what) = (self.buffers[0].elem, self.name());
        let (output, lse) = self.run_forward(client, forward);
        let (operands, attention) = (self.views(&self.buffers), self.attention());
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

/// Runs a case by the portable kernels with a cube of this shape.
fn run_portable(case: &Case, client: &Client, blocking: Option<portable::Blocking>) {
    case.run(
        client,
        |operands, attention| portable::forward(client, operands, attention, blocking),
        |operands, outcome, attention, gradients| {
            let statistics = attention.statistics(client, operands, outcome, gradients);
            for launch in launches(attention.layout, operands, outcome, &statistics, gradients) {
                portable::backward(client, &launch, attention, blocking);
            }
        },
    );
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
            run_portable(&case, client, None);
        }
    });
}

#[test]
fn every_shape_of_a_cube_down_to_one_unit_gives_the_same_attention() {
    let mut random = Random::fresh();
    on_every_device(|client, elem| {
        let layout = QkvLayout { kv_heads: 1, q_per_kv: 2, head_dim: 12 };
        let segments = ragged(&mut random, 70);
        let mask = masks(&mut random)[random.between(0, 2)];
        let case = Case::new(&mut random, client, elem, layout, segments, mask);
        for blocking in portable::BLOCKINGS {
            if blocking.units() <= Machine::of(client).max_units {
                run_portable(&case, client, Some(blocking));
            }
        }
    });
}

#[test]
fn the_tensor_core_kernels_agree_with_f64_when_their_instructions_are_emulated() {
    let mut random = Random::fresh();
    on_every_device(|client, elem| {
        if elem != F16 {
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
            let emulated = lanes::Instructions::Emulated;
            case.run(
                client,
                |operands, attention| mma::forward(client, operands, attention, emulated, Some(whole)),
                |operands, outcome, attention, gradients| {
                    let statistics = attention.statistics(client, operands, outcome, gradients);
                    for launch in launches(attention.layout, operands, outcome, &statistics, gradients) {
                        mma::backward(client, &launch, attention, emulated, Some(tiling));
                    }
                },
            );
        }
    });
}

#[test]
fn the_backward_gives_the_same_bits_again() {
    let mut random = Random::fresh();
    for client in clients() {
        let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 32 };
        let segments = ragged(&mut random, 90);
        let case = Case::new(&mut random, &client, F32, layout, segments, AttentionMask::default());
        let (operands, attention) = (case.views(&case.buffers), case.attention());
        let (output, lse) = forward(&client, &operands, &attention);
        let outcome = Outcome { output: &output, lse: &lse, d_output: &case.d_output, d_lse: None };
        let run = || {
            let gradients = case.spoilt(&client);
            backward(&client, &operands, &outcome, &attention, &case.views(&gradients));
            gradients.map(|buffer| bits(&buffer.read_f32(&client).unwrap()))
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn a_nan_in_a_query_spoils_its_row_and_the_gradients_of_the_keys_it_sees_and_no_other_segment() {
    for client in clients() {
        let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 8 };
        let mut q = vec![0.5; 10 * 8];
        q[4 * 8 + 3] = f32::NAN;
        let [q, other] = [&q, &vec![0.5; 10 * 8]].map(|values| Buffer::from_f32(&client, values, F32));
        let segments = Segments::packed(&[0, 6, 10]);
        let attention = Attention::new(layout, &segments, AttentionMask::default());
        let [place, ..] = layout.separate();
        let operands = [&q, &other, &other].map(|buffer| place.on(buffer));
        let (output, lse) = forward(&client, &operands, &attention);
        let rows = output.read_f32(&client).unwrap();
        assert!(rows.chunks_exact(8).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 4))));
        let gradients = [(); 3].map(|()| Buffer::empty(&client, 80, F32));
        let outcome = Outcome { output: &output, lse: &lse, d_output: &other, d_lse: None };
        backward(&client, &operands, &outcome, &attention, &gradients.each_ref().map(|buffer| place.on(buffer)));
        let dk = gradients[1].read_f32(&client).unwrap();
        let nan = |rows: std::ops::Range<usize>| dk[8 * rows.start..8 * rows.end].iter().filter(|v| v.is_nan()).count();
        assert_eq!((nan(0..5), nan(6..10)), (5 * 8, 0));
    }
}

#[test]
fn the_operation_on_a_fused_tensor_gives_what_burn_gives() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 24 };
    for (device, mask) in gpu_devices().into_iter().zip(masks(&mut random)) {
        let cu_seqlens = random.segments(70);
        let (x, dy) = (random.values(70 * layout.qkv_width()), random.values(70 * layout.output_width()));
        let run = |fused: bool| {
            let qkv = leaf(&x, [70, layout.qkv_width()], &device);
            let y = match fused {
                true => op::interleaved(qkv.clone(), layout, Segments::packed(&cu_seqlens), mask),
                false => attention_masked(Reference, qkv.clone(), layout, &cu_seqlens, mask),
            };
            let gradients = backward_with(y.clone(), &dy);
            [values(y), gradient(&qkv, &gradients)]
        };
        for (fused, composed) in run(true).iter().zip(run(false)) {
            assert_close("fused against composed", fused, &wide(&composed));
        }
    }
}

#[test]
fn the_operation_on_separate_tensors_differentiates_output_and_log_sum_exp_as_burn_does() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 3, head_dim: 16 };
    let segments = Segments::new(vec![0, 5, 40], vec![0, 30, 75]);
    let weights = |random: &mut Random, heads: usize, rows: usize| random.values(rows * heads * 16);
    for (device, mask) in gpu_devices().into_iter().zip(masks(&mut random)) {
        let [x, k, v] = [(6, 40), (2, 75), (2, 75)].map(|(heads, rows)| weights(&mut random, heads, rows));
        let (dy, d_lse) = (weights(&mut random, 6, 40), random.values(6 * 40));
        let run = |fused: bool| {
            let q = leaf(&x, [40, 6, 16], &device);
            let [k, v] = [&k, &v].map(|values| leaf(values, [75, 2, 16], &device));
            let (y, lse) = match fused {
                true => op::separate(q.clone(), k.clone(), v.clone(), layout, segments.clone(), mask),
                false => flash_attention(Reference, q.clone(), k.clone(), v.clone(), &segments, mask),
            };
            let both = Tensor::cat(vec![y.clone().reshape([40 * 6, 16]), lse.clone().reshape([40 * 6, 1])], 1);
            let rows = dy.chunks_exact(16).zip(&d_lse);
            let weights: Vec<f32> = rows.flat_map(|(row, last)| row.iter().chain([last])).copied().collect();
            let gradients = backward_with(both, &weights);
            [values(y), values(lse), gradient(&q, &gradients), gradient(&k, &gradients), gradient(&v, &gradients)]
        };
        for (fused, composed) in run(true).iter().zip(run(false)) {
            assert_close("fused against composed", fused, &wide(&composed));
        }
    }
}
