//! Norm, factor and scaling against f64.

use super::cpu::{Squares, scale_in_place, squares};
use super::{Limits, reference};
use crate::testing::*;

const OPEN: Limits = Limits { unscale: 1.0, max_norm: 0.0 };

#[test]
fn norm_and_factor_agree_with_f64_over_ragged_tensors() {
    let mut random = Random::fresh();
    for limits in [OPEN, Limits { unscale: 0.125, max_norm: 0.0 }, Limits { unscale: -0.5, max_norm: 3.0 }] {
        let tensors: Vec<Vec<f32>> = [0, 1, 7, 70_000, random.between(1, 200_000)].map(|n| random.values(n)).to_vec();
        let (norm, factor) = squares(&tensors.iter().map(Vec::as_slice).collect::<Vec<_>>()).norm_and_factor(limits);
        let exact = reference::norm(&wide(&tensors.concat()), limits);
        assert!((norm - exact.0).abs() <= 1e-12 * exact.0, "{norm} against {}", exact.0);
        assert_close("factor", &[factor], &[exact.1]);
    }
}

#[test]
fn a_gradient_within_the_limit_is_not_clipped() {
    let (norm, factor) = squares(&[&[3.0, 4.0]]).norm_and_factor(Limits { unscale: 1.0, max_norm: 6.0 });
    assert_eq!((norm, factor), (5.0, 1.0));
}

#[test]
fn what_is_not_finite_is_counted_and_makes_norm_and_factor_nan() {
    let mut values = vec![1.0f32; 100_000];
    (values[3], values[70_000], values[99_999]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let squares = squares(&[&values, &[f32::NAN]]);
    let (norm, factor) = squares.norm_and_factor(Limits { unscale: 1.0, max_norm: 1.0 });
    assert!(squares.not_finite == 4 && norm.is_nan() && factor.is_nan());
}

#[test]
fn the_largest_f32s_do_not_overflow() {
    assert_eq!(squares(&[&[f32::MAX; 4]]).norm_and_factor(OPEN).0, 2.0 * f64::from(f32::MAX));
    assert_eq!(squares(&[]), Squares::default());
}

#[test]
fn bits_do_not_depend_on_threads() {
    let mut random = Random::fresh();
    let tensors = [random.values(300_000), random.values(77_777)];
    assert_deterministic("grad_norm", || {
        let (norm, factor) =
            squares(&[&tensors[0], &tensors[1]]).norm_and_factor(Limits { unscale: 1.0, max_norm: 1.0 });
        let mut scaled = tensors.clone();
        scale_in_place(&mut scaled.each_mut().map(Vec::as_mut_slice), factor);
        let mut out = scaled.concat();
        out.extend([norm as f32, factor]);
        out
    });
}

#[test]
fn scaling_multiplies_every_element() {
    let mut random = Random::fresh();
    let (mut a, mut b) = (random.values(66_000), random.values(3));
    let exact: Vec<f64> = a.iter().chain(&b).map(|v| f64::from(*v) * 0.3).collect();
    scale_in_place(&mut [&mut a, &mut b], 0.3);
    a.extend(b);
    assert_close("scaled", &a, &exact);
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::super::cube;
    use super::*;
    use crate::cube::testing::{assert_buffer, clients, on_every_device, random};
    use crate::cube::{Buffer, F32};

    #[test]
    fn norm_factor_and_scaling_agree_with_f64_over_ragged_tensors() {
        let mut generator = Random::fresh();
        on_every_device(|client, elem| {
            for limits in [OPEN, Limits { unscale: 0.5, max_norm: 3.0 }] {
                let sizes = [1, 7, 0, 65_536, generator.between(65_000, 150_000)];
                let tensors = sizes.map(|n| random(&mut generator, client, n.max(1), elem));
                let buffers: Vec<&Buffer> = tensors.iter().map(|(_, buffer)| buffer).collect();
                let values: Vec<f64> = tensors.iter().flat_map(|(values, _)| values.clone()).collect();
                let norm = cube::norm(client, &buffers, limits);
                let (exact, factor) = reference::norm(&values, limits);
                assert_buffer("norm", client, &norm.norm, &[exact], F32);
                assert_buffer("factor", client, &norm.factor, &[factor], F32);
                assert_buffer("not finite", client, &norm.not_finite, &[0.0], F32);
                cube::scale_in_place(client, &buffers, &norm.factor);
                for (values, buffer) in &tensors {
                    let exact: Vec<f64> = values.iter().map(|v| v * factor).collect();
                    assert_buffer("scaled", client, buffer, &exact, elem);
                }
            }
        });
    }

    #[test]
    fn what_is_not_finite_is_counted_and_makes_norm_and_factor_nan() {
        on_every_device(|client, elem| {
            let mut values = vec![0.5; 70_001];
            (values[0], values[1], values[70_000]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
            let buffer = Buffer::from_f32(client, &values, elem);
            let norm = cube::norm(client, &[&buffer], Limits { unscale: 1.0, max_norm: 1.0 });
            let read = |buffer: &Buffer| buffer.read_f32(client).unwrap()[0];
            assert_eq!(read(&norm.not_finite), 3.0);
            assert!(read(&norm.norm).is_nan() && read(&norm.factor).is_nan());
        });
    }

    #[test]
    fn a_second_run_gives_the_same_bits() {
        let mut generator = Random::fresh();
        for client in clients() {
            let (_, buffer) = random(&mut generator, &client, 200_000, F32);
            let run = || cube::norm(&client, &[&buffer], OPEN).norm.read_f32(&client).unwrap()[0].to_bits();
            assert_eq!(run(), run());
        }
    }
}
