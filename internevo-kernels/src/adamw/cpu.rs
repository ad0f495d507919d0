//! AdamW on slices. Every element is updated on its own in a fixed order of IEEE operations (no fused multiply-add), so bits
//! depend neither on threads nor on the instruction set nor on how the state is cut into shards.

use super::{Constants, Segment, Update, check_segments};
use crate::rows::for_blocks;
use crate::simd::multiversion;

/// Elements one task updates: four streams of this length fit a second-level cache.
const CHUNK: usize = 16 * 1024;

/// Flat state that is updated in place; all slices have one length.
#[derive(Debug)]
pub struct State<'a> {
    /// Parameters.
    pub master: &'a mut [f32],
    /// First moments.
    pub exp_avg: &'a mut [f32],
    /// Second moments.
    pub exp_avg_sq: &'a mut [f32],
    /// The parameters as bits of bfloat16, rounded to the nearest, if somebody computes with those.
    pub copy: Option<&'a mut [u16]>,
}

/// One update of `segments`, which lie in order. `grad` has the length of the state.
///
/// # Panics
/// If lengths differ, or segments overlap or leave the state.
pub fn step(state: State<'_>, grad: &[f32], segments: &[Segment], update: Update) {
    check_segments(segments, grad.len());
    let constants = update.constants();
    let mut pieces = pieces(state, grad, segments, update.lr);
    for_blocks(&mut pieces, 1, |_, piece| {
        let Piece { master, exp_avg, exp_avg_sq, copy, grad, decay } = &mut piece[0];
        update_piece(master, exp_avg, exp_avg_sq, grad, *decay, constants);
        if let Some(copy) = copy {
            round_to_bf16(master, copy);
        }
    });
}

/// What one task updates.
struct Piece<'a> {
    master: &'a mut [f32],
    exp_avg: &'a mut [f32],
    exp_avg_sq: &'a mut [f32],
    copy: Option<&'a mut [u16]>,
    grad: &'a [f32],
    decay: f32,
}

/// Cuts segments into pieces of at most [`CHUNK`] elements.
fn pieces<'a>(state: State<'a>, grad: &'a [f32], segments: &[Segment], lr: f64) -> Vec<Piece<'a>> {
    let State { mut master, mut exp_avg, mut exp_avg_sq, mut copy } = state;
    let lengths = [master.len(), exp_avg.len(), exp_avg_sq.len(), copy.as_ref().map_or(grad.len(), |copy| copy.len())];
    assert!(lengths.iter().all(|len| *len == grad.len()), "adamw: state of {lengths:?}, gradient of {}", grad.len());
    let mut at = 0;
    let mut take = |start: usize, end: usize, decay: f32| {
        let (skip, len) = (start - at, end - start);
        at = end;
        Piece {
            master: next(&mut master, skip, len),
            exp_avg: next(&mut exp_avg, skip, len),
            exp_avg_sq: next(&mut exp_avg_sq, skip, len),
            copy: copy.as_mut().map(|copy| next(copy, skip, len)),
            grad: &grad[start..end],
            decay,
        }
    };
    let mut pieces = Vec::new();
    for Segment { range, weight_decay } in segments {
        let starts = range.clone().step_by(CHUNK);
        pieces.extend(starts.map(|start| take(start, (start + CHUNK).min(range.end), (lr * weight_decay) as f32)));
    }
    pieces
}

/// Takes `len` elements off the front of `rest`, after the first `skip`.
fn next<'a, T>(rest: &mut &'a mut [T], skip: usize, len: usize) -> &'a mut [T] {
    let taken = rest.split_off_mut(..skip + len).expect("segments were checked against the length");
    &mut taken[skip..]
}

multiversion! {
    /// `p -= lr wd p + lr m̂ / (sqrt(v̂) + eps)`. Not `p (1 - lr wd)`: rounding that factor to f32 errs in the same direction at
    /// every step.
    fn update_piece<const FMA>(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], decay: f32, c: Constants) {
        let _ = FMA;
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = *g * c.grad_scale;
            *m = c.beta1 * *m + c.one_minus_beta1 * g;
            *v = c.beta2 * *v + c.one_minus_beta2 * (g * g);
            let denominator = v.sqrt() / c.root_correction2 + c.eps;
            *p -= decay * *p + c.step_size * (*m / denominator);
        }
    }
}

multiversion! {
    /// The upper halves of f32, rounded to the nearest, ties to even; a NaN stays one.
    fn round_to_bf16<const FMA>(values: &[f32], out: &mut [u16]) {
        let _ = FMA;
        for (value, out) in values.iter().zip(out) {
            let bits = value.to_bits();
            let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
            *out = if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded };
        }
    }
}
