//! The rotation against f64 and burn, and its scalings against the formulas they come from.

use super::reference::frequencies;
use super::{RotaryHeads, RotaryScaling, RotaryTable, reference, rotary, rotary_heads};
use crate::KernelSet::{Fused, Reference};
use crate::attention::QkvLayout;
use crate::testing::*;

const BASE: f64 = 10_000.0;

#[test]
fn rotation_and_its_gradient_agree_with_f64() {
    let mut random = Random::fresh();
    for (device, q_per_kv) in tracked_devices().iter().zip([3, 1]) {
        let layout = QkvLayout { kv_heads: random.between(1, 3), q_per_kv, head_dim: 2 * random.between(1, 40) };
        let tokens = random.between(1, 120);
        let positions: Vec<u32> = (0..tokens).map(|_| random.between(0, 99) as u32).collect();
        let table = RotaryTable::new(layout.head_dim, BASE, 100);
        let angles = frequencies(layout.head_dim, BASE);
        let (x, dy) = (random.values(tokens * layout.qkv_width()), random.values(tokens * layout.qkv_width()));
        for set in [Fused, Reference] {
            let qkv = leaf(&x, [tokens, layout.qkv_width()], device);
            let y = rotary(set, qkv.clone(), layout, &positions, &table);
            assert_close("y", &values(y.clone()), &reference::rotate(&wide(&x), layout, &positions, &angles, 1.0));
            let gradients = backward_with(y, &dy);
            let exact = reference::rotate(&wide(&dy), layout, &positions, &angles, -1.0);
            assert_close("dqkv", &gradient(&qkv, &gradients), &exact);
            assert_eq!(values(qkv), x, "the input is not changed while somebody holds it");
        }
    }
}

#[test]
fn every_head_of_a_tensor_of_its_own_is_rotated() {
    let mut random = Random::fresh();
    let (tokens, heads, head_dim) = (random.between(1, 50), random.between(1, 5), 2 * random.between(1, 20));
    let positions: Vec<u32> = (0..tokens).map(|_| random.between(0, 99) as u32).collect();
    let table = RotaryTable::new(head_dim, BASE, 100);
    let x = random.values(tokens * heads * head_dim);
    let all = RotaryHeads::all(heads, head_dim);
    let exact = reference::rotate(&wide(&x), all, &positions, &frequencies(head_dim, BASE), 1.0);
    for set in [Fused, Reference] {
        let y = rotary_heads(set, plain(&x, [tokens, heads * head_dim]), heads, &positions, &table);
        assert_close("y", &values(y), &exact);
    }
}

#[test]
fn the_reference_gradient_is_a_derivative() {
    let mut random = Random::fresh();
    let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 4 };
    let (x, dy) = (wide(&random.values(3 * 32)), wide(&random.values(3 * 32)));
    let (positions, angles) = ([0, 5, 2], frequencies(4, BASE));
    let gradient = reference::rotate(&dy, layout, &positions, &angles, -1.0);
    let f = |x: &[f64]| dot(&reference::rotate(x, layout, &positions, &angles, 1.0), &dy);
    assert_gradient("dqkv", &mut random, &x, &gradient, f);
}

#[test]
#[should_panic(expected = "position 10 of token 1 is outside 0..10")]
fn a_position_outside_the_table_is_named() {
    let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: 2 };
    rotary(Fused, plain(&[0.0; 12], [2, 6]), layout, &[9, 10], &RotaryTable::new(2, BASE, 10));
}

/// The angle per position and the length of the pairs of a table, read back from its second row.
fn measured(table: &RotaryTable) -> (Vec<f64>, Vec<f64>) {
    let (cos, sin) = table.at(1);
    cos.iter().zip(sin).map(|(c, s)| (f64::from(*s).atan2(f64::from(*c)), f64::from(*c).hypot(f64::from(*s)))).unzip()
}

#[track_caller]
fn assert_angles(scaling: RotaryScaling, head_dim: usize, positions: usize, exact: impl Fn(usize, f64) -> f64) {
    let (angles, _) = measured(&RotaryTable::scaled(head_dim, BASE, positions, scaling));
    for (pair, (angle, plain)) in angles.into_iter().zip(frequencies(head_dim, BASE)).enumerate() {
        let exact = exact(pair, plain);
        assert!((angle - exact).abs() <= 1e-6 * exact, "pair {pair}: {angle}, not {exact}");
    }
}

#[test]
fn linear_scaling_divides_every_angle() {
    assert_angles(RotaryScaling::None, 64, 10, |_, plain| plain);
    assert_angles(RotaryScaling::Linear { factor: 4.0 }, 64, 10, |_, plain| plain / 4.0);
}

#[test]
fn dynamic_scaling_leaves_the_first_pair_alone_and_interpolates_the_last_by_its_stretch() {
    let scaling = RotaryScaling::DynamicNtk { factor: 2.0, original_positions: 256 };
    assert_angles(scaling, 64, 256, |_, plain| plain);
    // 2 · 768 / 256 - 1 = 5: the last of 32 pairs turns five times slower, the others geometrically between.
    assert_angles(scaling, 64, 768, |pair, plain| plain / 5f64.powf(pair as f64 / 31.0));
}

#[test]
fn yarn_keeps_fast_pairs_interpolates_slow_ones_and_lengthens_all() {
    let scaling = RotaryScaling::Yarn { factor: 8.0, original_positions: 4096, beta_fast: 32.0, beta_slow: 1.0 };
    // Turns of pair i in the original context: 4096 / 2π · 10000^(-i/64) is 32 at pair 20.94, 1 at pair 45.03.
    assert_angles(scaling, 128, 16, |pair, plain| {
        let ramp = ((pair as f64 - 20.0) / 26.0).clamp(0.0, 1.0);
        plain * (1.0 - ramp) + plain / 8.0 * ramp
    });
    let (_, lengths) = measured(&RotaryTable::scaled(128, BASE, 16, scaling));
    assert!(lengths.iter().all(|length| (length - (0.1 * 8f64.ln() + 1.0)).abs() < 1e-6));
}

#[test]
fn llama_3_scaling_blends_by_wavelength() {
    let scaling =
        RotaryScaling::Llama3 { factor: 8.0, low_frequency: 1.0, high_frequency: 4.0, original_positions: 8192 };
    assert_angles(scaling, 128, 16, |_, plain| {
        let wavelength = std::f64::consts::TAU / plain;
        match wavelength {
            _ if wavelength < 8192.0 / 4.0 => plain,
            _ if wavelength > 8192.0 => plain / 8.0,
            _ => {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                (1.0 - smooth) * plain / 8.0 + smooth * plain
            }
        }
    });
}

#[test]
fn the_gradient_of_a_lengthening_rotation_is_its_transpose() {
    let mut random = Random::fresh();
    let scaling = RotaryScaling::Yarn { factor: 4.0, original_positions: 64, beta_fast: 32.0, beta_slow: 1.0 };
    let table = RotaryTable::scaled(16, BASE, 256, scaling);
    let positions: Vec<u32> = (0..20).map(|_| random.between(0, 255) as u32).collect();
    let (x, dy) = (random.values(20 * 32), random.values(20 * 32));
    for set in [Fused, Reference] {
        let leaf = leaf(&x, [20, 32], &tracked_devices()[0]);
        let y = rotary_heads(set, leaf.clone(), 2, &positions, &table);
        let forward = dot(&wide(&values(y.clone())), &wide(&dy));
        let backward = dot(&wide(&x), &wide(&gradient(&leaf, &backward_with(y, &dy))));
        assert!((forward - backward).abs() <= 1e-4 * forward.abs().max(1.0), "{forward} {backward}");
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cpu::Direction;
    use super::super::cube;
    use super::*;
    use crate::cube::Buffer;
    use crate::cube::testing::{assert_buffer, on_every_device, random};

    #[test]
    fn rotation_in_place_and_back_agrees_with_f64() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            let odd = QkvLayout { kv_heads: 3, q_per_kv: 2, head_dim: 2 * generator.between(1, 30) };
            let even = QkvLayout { kv_heads: 2, q_per_kv: 4, head_dim: 64 };
            for heads in [odd.into(), even.into(), RotaryHeads::all(5, 48)] {
                let tokens = generator.between(1, 60);
                let positions: Vec<u32> = (0..tokens).map(|_| generator.between(0, 99) as u32).collect();
                let table = cube::DeviceTable::new(client, &RotaryTable::new(heads.head_dim, BASE, 100));
                let angles = frequencies(heads.head_dim, BASE);
                for (direction, sign) in [(Direction::Forward, 1.0), (Direction::Backward, -1.0)] {
                    let (x, x_on) = random(&mut generator, client, tokens * heads.width(), elem);
                    cube::rotate(client, &x_on, heads, &Buffer::from_u32(client, &positions), &table, direction);
                    let exact = reference::rotate(&x, heads, &positions, &angles, sign);
                    assert_buffer(&format!("{direction:?} {heads:?}"), client, &x_on, &exact, elem);
                }
            }
        });
    }

    #[test]
    fn a_position_outside_the_table_spoils_its_row_alone() {
        on_every_device(|client, elem| {
            let table = cube::DeviceTable::new(client, &RotaryTable::new(8, BASE, 10));
            let x = Buffer::from_f32(client, &[1.0; 3 * 16], elem);
            let positions = Buffer::from_u32(client, &[9, 10, 0]);
            cube::rotate(client, &x, RotaryHeads::all(2, 8), &positions, &table, Direction::Forward);
            let out = x.read_f32(client).unwrap();
            assert!(out.chunks_exact(16).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 1))));
        });
    }

    #[test]
    fn the_operation_gives_the_gradients_of_burn_and_keeps_an_input_that_somebody_holds() {
        let mut random = Random::fresh();
        let layout = QkvLayout { kv_heads: 2, q_per_kv: 2, head_dim: 12 };
        let shape = [30, layout.qkv_width()];
        for device in gpu_devices() {
            let (x, dy) = (random.values(shape[0] * shape[1]), random.values(shape[0] * shape[1]));
            let positions: Vec<u32> = (0..30).map(|_| random.between(0, 63) as u32).collect();
            let scaling = RotaryScaling::Yarn { factor: 4.0, original_positions: 16, beta_fast: 8.0, beta_slow: 1.0 };
            let table = RotaryTable::scaled(12, BASE, 64, scaling);
            let run = |set| {
                let qkv = leaf(&x, shape, &device);
                let y = rotary(set, qkv.clone(), layout, &positions, &table);
                let gradients = backward_with(y.clone(), &dy);
                assert_eq!(values(qkv.clone()), x);
                [values(y), gradient(&qkv, &gradients)]
            };
            for (fused, composed) in run(Fused).iter().zip(run(Reference)) {
                assert_close("fused against composed", fused, &wide(&composed));
            }
        }
    }
}
