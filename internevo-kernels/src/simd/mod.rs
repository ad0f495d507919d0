//! How inner loops meet the machine: run-time selection of the instruction set and the few scalar functions that the
//! compiler can vectorise. The loops themselves live with their kernels.
//!
//! Bits may differ between machines of different instruction sets (fused multiply-add or not); on one machine they
//! depend on nothing but the input.

pub mod bf16;

/// Defines a function whose body is compiled three times (AVX-512, AVX2 + FMA, portable) and selected at run time.
///
/// The body sees a `const FMA: bool` (named by the caller) that says whether a fused multiply-add is one instruction. On
/// aarch64 that is part of what every processor has, as NEON is, so the portable body is the vector one.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<const $fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: `level` has just found every feature that `avx512` enables on this processor.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: `level` has just found every feature that `avx2` enables on this processor.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// The instruction set that `multiversion` functions use on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub enum Level {
    /// AVX-512 F, DQ, BW, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Whatever the target guarantees: SSE2 on x86-64, NEON with fused multiply-add on aarch64.
    Portable,
}

/// Detects the [`Level`]; the standard library caches the answer.
#[inline]
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        match (fma, wide) {
            (true, true) => return Level::Avx512,
            (true, false) => return Level::Avx2,
            _ => {}
        }
    }
    Level::Portable
}

/// Lanes of the accumulators in reductions: two AVX-512 registers. The number fixes the order of summation, so it is
/// the same on every instruction set.
pub const LANES: usize = 32;

/// `a * b + c`, fused where that is one instruction.
#[inline(always)]
pub fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` with a relative error below 2e-7; infinity where that is, NaN for NaN, zero below -69 (1e-30).
///
/// What is that small is lost beside the 1 of every softmax and sigmoid, but divided further it would become a denormal
/// number, and those cost a product a hundred cycles each.
///
/// Range reduction by `ln 2` in two parts and the coefficients of Cephes `expf`. Only arithmetic, compares and
/// bit casts, so loops over it vectorise.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOW: f32 = -69.0;
    /// The largest whose exponential is finite.
    const HIGH: f32 = 88.722_83;
    // 1.5 * 2^23: adding it rounds to an integer that sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -LN2_HIGH, x);
    let r = madd::<FMA>(n, -LN2_LOW, r);
    let p = madd::<FMA>(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = madd::<FMA>(p, r, 8.333_452e-3);
    let p = madd::<FMA>(p, r, 4.166_579_6e-2);
    let p = madd::<FMA>(p, r, 1.666_666_5e-1);
    let p = madd::<FMA>(p, r, 5e-1);
    let y = madd::<FMA>(madd::<FMA>(p, r, 1.0), r, 1.0);
    // Times 2^n, n in -100..=128: the bits of `ROUND` are shifted out, `y` is below 1 where n is 128.
    let scaled = f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23));
    // The sum is infinite, or NaN for NaN.
    let beyond = if x < LOW { 0.0 } else { x + f32::INFINITY };
    if (LOW..=HIGH).contains(&x) { scaled } else { beyond }
}

/// Adds up the lanes of an accumulator, pairwise.
#[inline(always)]
pub fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `f(x[i], y[i])` for slices of one length, in the fixed lane order. `f` gets the accumulator.
#[inline(always)]
pub fn reduce2(x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    assert_eq!(x.len(), y.len());
    let mut lanes = [0.0; LANES];
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (ys, y_tail) = y.as_chunks::<LANES>();
    for (a, b) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], a[i], b[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *lane = f(*lane, *a, *b);
    }
    add_lanes(lanes)
}

multiversion! {
    /// `Σ x[i] y[i]`.
    pub fn dot<const FMA>(x: &[f32], y: &[f32]) -> f32 {
        reduce2(x, y, |sum, a, b| madd::<FMA>(a, b, sum))
    }
}

multiversion! {
    /// `Σ x[i]`.
    pub fn sum<const FMA>(x: &[f32]) -> f32 {
        let _ = FMA;
        reduce2(x, x, |sum, a, _| sum + a)
    }
}

/// The largest element, `-∞` for none. A NaN is skipped: callers see it again in the exponentials.
#[inline(always)]
pub fn max_row(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *lane = if *v > *lane { *v } else { *lane };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

/// `x[i] = exp(x[i] * scale - shift)`; returns their sum.
#[inline(always)]
pub fn exp_row<const FMA: bool>(x: &mut [f32], scale: f32, shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(madd::<FMA>(chunk[i], scale, -shift));
            lanes[i] += chunk[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *v = exp::<FMA>(madd::<FMA>(*v, scale, -shift));
        *lane += *v;
    }
    add_lanes(lanes)
}

multiversion! {
    /// `x[i] = x[i] * a + b`.
    pub fn affine_in_place<const FMA>(x: &mut [f32], a: f32, b: f32) {
        for v in x {
            *v = madd::<FMA>(*v, a, b);
        }
    }
}

multiversion! {
    /// `x[i] += y[i]`.
    pub fn add_in_place<const FMA>(x: &mut [f32], y: &[f32]) {
        let _ = FMA;
        for (a, b) in x.iter_mut().zip(y) {
            *a += *b;
        }
    }
}

#[cfg(test)]
mod tests;
