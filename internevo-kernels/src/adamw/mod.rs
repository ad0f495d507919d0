//! AdamW (Loshchilov and Hutter, ICLR 2019) on flat f32 state: Adam with decoupled weight decay, in the formulation of
//! `torch.optim.AdamW`, many tensors at once and in place. Not here: schedules, and who holds which shard.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
pub mod reference;

use std::ops::Range;

/// The scalars of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Number of this update, from 1.
    pub number: u64,
    /// What every gradient is multiplied by first: the inverse of a loss scale, times a clipping factor.
    pub grad_scale: f32,
}

impl Update {
    /// The scalars as elements see them: computed in f64, rounded once.
    fn constants(self) -> Constants {
        let number = self.number as f64;
        Constants {
            beta1: self.beta1 as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            root_correction2: (1.0 - self.beta2.powf(number)).sqrt() as f32,
            step_size: (self.lr / (1.0 - self.beta1.powf(number))) as f32,
            eps: self.eps as f32,
            grad_scale: self.grad_scale,
        }
    }
}

/// One update's constants.
#[derive(Clone, Copy, Debug)]
struct Constants {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    root_correction2: f32,
    step_size: f32,
    eps: f32,
    grad_scale: f32,
}

/// A part of flat buffers: a tensor, or what a rank holds of it. Elements outside all segments are padding and stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Its elements.
    pub range: Range<usize>,
    /// Decoupled weight decay; 0 for norms and biases.
    pub weight_decay: f64,
}

/// Checks that segments lie in order and apart in `len` elements.
fn check_segments(segments: &[Segment], len: usize) {
    let mut end = 0;
    for Segment { range, .. } in segments {
        let fits = end <= range.start && range.start <= range.end && range.end <= len;
        assert!(fits, "adamw: segment {range:?} after element {end} of {len}");
        end = range.end;
    }
}

#[cfg(test)]
mod tests;
