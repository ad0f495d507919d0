//! SwiGLU on slices of one length.

use crate::rows::{GRAIN, for_blocks, written};
use crate::simd::{exp, madd, multiversion};
use std::mem::MaybeUninit;

/// `silu(gate) · up`.
///
/// # Panics
/// If the lengths differ.
pub fn forward(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "SwiGLU: gate and up");
    let fill = |y: &mut [MaybeUninit<f32>]| {
        for_blocks(y, GRAIN, |block, y| {
            let range = block * GRAIN..block * GRAIN + y.len();
            forward_block(&gate[range.clone()], &up[range], y);
        });
    };
    // SAFETY: the blocks cover `y`, and `forward_block` writes all of its block: the three slices have one length.
    unsafe { written(gate.len(), fill) }
}

/// Turns `dy` into the gradient of `gate` in place and returns the gradient of `up`; `silu` is recomputed.
///
/// # Panics
/// If the lengths differ.
pub fn backward(gate: &[f32], up: &[f32], dy: &mut [f32]) -> Vec<f32> {
    assert_eq!((gate.len(), up.len()), (dy.len(), dy.len()), "SwiGLU: gate, up and gradient");
    let fill = |d_up: &mut [MaybeUninit<f32>]| {
        let mut parts: Vec<_> = dy.chunks_mut(GRAIN).zip(d_up.chunks_mut(GRAIN)).collect();
        for_blocks(&mut parts, 1, |block, part| {
            let (dy, d_up) = &mut part[0];
            let range = block * GRAIN..block * GRAIN + dy.len();
            backward_block(&gate[range.clone()], &up[range], dy, d_up);
        });
    };
    // SAFETY: the blocks cover `d_up`, and `backward_block` writes all of its block: the four slices have one length.
    unsafe { written(gate.len(), fill) }
}

multiversion! {
    fn forward_block<const FMA>(gate: &[f32], up: &[f32], y: &mut [MaybeUninit<f32>]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            y.write(*g / (1.0 + exp::<FMA>(-*g)) * *u);
        }
    }
}

multiversion! {
    fn backward_block<const FMA>(gate: &[f32], up: &[f32], dy: &mut [f32], d_up: &mut [MaybeUninit<f32>]) {
        for (((dy, d_up), g), u) in dy.iter_mut().zip(d_up).zip(gate).zip(up) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*g));
            let silu = *g * sigmoid;
            d_up.write(*dy * silu);
            *dy = *dy * *u * madd::<FMA>(silu, 1.0 - sigmoid, sigmoid);
        }
    }
}
