//! The kernel of the route `wgmma` around its emulated instructions: descriptors, swizzle, fragments, stages and masks are real.

use super::*;
use crate::attention::cube::lanes::Instructions;
use crate::attention::cube::wgmma::{Tiling, forward};

#[test]
fn the_kernel_agrees_with_f64_when_its_instructions_are_emulated() {
    let mut random = Random::fresh();
    on_every_device(|client, elem| {
        if elem != F16 {
            return;
        }
        let tilings = [(1, 32, 2, 64), (2, 16, 1, 64), (1, 16, 1, 128)];
        for (i, (groups, keys, stages, head_dim)) in tilings.into_iter().enumerate() {
            let layout = QkvLayout { kv_heads: 1 + i % 2, q_per_kv: 1 + i % 3, head_dim };
            let mask = masks(&mut random)[i % 3];
            let segments = ragged(&mut random, 150);
            let case = Case::new(&mut random, client, elem, layout, segments, mask);
            let tiling = Tiling { groups, keys, stages };
            case.run_forward(client, |operands, attention| {
                forward(client, operands, attention, Instructions::Emulated, Some(tiling))
            });
        }
    });
}

#[test]
fn a_nan_among_values_does_not_cross_into_the_segment_before() {
    for client in clients() {
        let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 64 };
        let segments = Segments::packed(&[0, 21, 40]);
        let mut values = vec![0.5; 40 * 64];
        values[21 * 64 + 3] = f32::NAN;
        let [v, other] = [&values, &vec![0.5; 40 * 64]].map(|values| Buffer::from_f32(&client, values, F16));
        let [place, ..] = layout.separate();
        let operands = [&other, &other, &v].map(|buffer| place.on(buffer));
        let attention = Attention::new(layout, &segments, AttentionMask::FULL);
        let tiling = Some(Tiling { groups: 1, keys: 32, stages: 2 });
        let (output, _) = forward(&client, &operands, &attention, Instructions::Emulated, tiling);
        let rows = output.read_f32(&client).unwrap();
        let nan = rows.iter().enumerate().map(|(i, value)| (i / 64 >= 21 && i % 64 == 3) == value.is_nan());
        assert!(nan.into_iter().all(|as_expected| as_expected));
    }
}
