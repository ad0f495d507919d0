//! Norm and scaling on slices: squares are exact in f64 and added in f64, in lanes, chunks and tensors of a fixed order.

use super::{Limits, TINY};
use crate::rows::for_blocks;
use crate::simd::multiversion;

/// Elements one task adds up or scales.
const CHUNK: usize = 64 * 1024;

/// Lanes of f64 sums: two AVX-512 registers.
const LANES: usize = 16;

/// The size of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Squares {
    /// Sum of squares; NaN or infinite if an element is.
    pub sum: f64,
    /// Elements that are NaN or infinite.
    pub not_finite: u64,
}

impl Squares {
    /// The norm after unscaling, and what to multiply the gradient by; both NaN if an element is not finite.
    pub fn norm_and_factor(self, limits: Limits) -> (f64, f32) {
        if self.not_finite > 0 {
            return (f64::NAN, f32::NAN);
        }
        let norm = self.sum.sqrt() * f64::from(limits.unscale).abs();
        let clip = f64::from(limits.max_norm) / (norm + f64::from(TINY));
        let clip = if limits.max_norm > 0.0 { clip.min(1.0) } else { 1.0 };
        (norm, (f64::from(limits.unscale) * clip) as f32)
    }
}

/// Adds up the squares of all tensors.
pub fn squares(tensors: &[&[f32]]) -> Squares {
    let chunks = tensors.iter().flat_map(|tensor| tensor.chunks(CHUNK));
    let mut parts: Vec<(&[f32], Squares)> = chunks.map(|chunk| (chunk, Squares::default())).collect();
    for_blocks(&mut parts, 1, |_, part| part[0].1 = squares_of(part[0].0));
    parts.into_iter().fold(Squares::default(), |all, (_, part)| Squares {
        sum: all.sum + part.sum,
        not_finite: all.not_finite + part.not_finite,
    })
}

/// Multiplies all tensors by `factor`, unless it is 1.
pub fn scale_in_place(tensors: &mut [&mut [f32]], factor: f32) {
    if factor == 1.0 {
        return;
    }
    let mut chunks: Vec<&mut [f32]> = tensors.iter_mut().flat_map(|tensor| tensor.chunks_mut(CHUNK)).collect();
    for_blocks(&mut chunks, 1, |_, chunk| crate::simd::affine_in_place(chunk[0], factor, 0.0));
}

multiversion! {
    fn squares_of<const FMA>(values: &[f32]) -> Squares {
        let _ = FMA;
        let (mut sums, mut not_finite) = ([0.0f64; LANES], [0u32; LANES]);
        let (chunks, tail) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let wide = f64::from(chunk[i]);
                sums[i] += wide * wide;
                not_finite[i] += u32::from(!chunk[i].is_finite());
            }
        }
        for (i, value) in tail.iter().enumerate() {
            sums[i] += f64::from(*value) * f64::from(*value);
            not_finite[i] += u32::from(!value.is_finite());
        }
        Squares { sum: sums.iter().sum(), not_finite: not_finite.iter().copied().map(u64::from).sum() }
    }
}
