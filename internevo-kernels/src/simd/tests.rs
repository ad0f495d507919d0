//! The scalar functions against the standard library.

use super::{LANES, dot, exp, sum};
use crate::testing::{Random, wide};

#[test]
fn the_exponential_is_within_two_tenths_of_a_millionth_and_keeps_the_special_values() {
    let mut random = Random::fresh();
    for _ in 0..200_000 {
        let x = -68.9 + 157.5 * (random.word() >> 40) as f32 / (1u64 << 24) as f32;
        for y in [exp::<true>(x), exp::<false>(x)] {
            let exact = f64::from(x).exp();
            assert!(((f64::from(y) - exact) / exact).abs() < 2e-7, "exp({x}) = {y}");
        }
    }
    for (x, expected) in
        [(0.0, 1.0), (f32::NEG_INFINITY, 0.0), (-1e30, 0.0), (f32::INFINITY, f32::INFINITY), (88.8, f32::INFINITY)]
    {
        assert_eq!((exp::<true>(x), exp::<false>(x)), (expected, expected), "exp({x})");
    }
    assert!(exp::<true>(f32::NAN).is_nan() && exp::<false>(f32::NAN).is_nan());
}

#[test]
fn reductions_agree_with_f64_at_every_length_around_the_lane_count() {
    let mut random = Random::fresh();
    for n in 0..3 * LANES {
        let (x, y) = (random.values(n), random.values(n));
        let exact: f64 = wide(&x).iter().zip(wide(&y)).map(|(a, b)| a * b).sum();
        assert!((f64::from(dot(&x, &y)) - exact).abs() < 1e-4);
        assert!((f64::from(sum(&x)) - wide(&x).iter().sum::<f64>()).abs() < 1e-4);
    }
}
