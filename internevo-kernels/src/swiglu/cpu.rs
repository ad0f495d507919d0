//! SwiGLU on slices of one length.

use crate::rows::{GRAIN, for_blocks};
use crate::simd::{exp, madd, multiversion};

/// `silu(gate) · up`.
///
/// # Panics
/// If the lengths differ.
pub fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "SwiGLU: gate and up");
    let mut y = vec![0.0; gate.len()];
    for_blocks(&mut y, GRAIN, |block, y| {
        let range = block * GRAIN..block * GRAIN + y.len();
        forward_block(&gate[range.clone()], &up[range], y);
    });
    y
}

/// Turns `dy` into the gradient of `gate` in place and returns the gradient of `up`; `silu` is recomputed.
///
/// # Panics
/// If the lengths differ.
pub fn backward(gate: &[f32], up: &[f32], dy: &mut [f32]) -> Vec<f32> {
    assert_eq!((gate.len(), up.len()), (dy.len(), dy.len()), "SwiGLU: gate, up and gradient");
    let mut d_up = vec![0.0; dy.len()];
    let mut parts: Vec<_> = dy.chunks_mut(GRAIN).zip(d_up.chunks_mut(GRAIN)).collect();
    for_blocks(&mut parts, 1, |block, part| {
        let (dy, d_up) = &mut part[0];
        let range = block * GRAIN..block * GRAIN + dy.len();
        backward_block(&gate[range.clone()], &up[range], dy, d_up);
    });
    d_up
}

multiversion! {
    fn forward_block<const FMA>(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = *g / (1.0 + exp::<FMA>(-*g)) * *u;
        }
    }
}

multiversion! {
    fn backward_block<const FMA>(gate: &[f32], up: &[f32], dy: &mut [f32], d_up: &mut [f32]) {
        for (((dy, d_up), g), u) in dy.iter_mut().zip(d_up).zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*g));
            let silu = *g * sigmoid;
            *d_up = *dy * silu;
            *dy = *dy * *u * madd::<FMA>(silu, 1.0 - sigmoid, sigmoid);
        }
    }
}
