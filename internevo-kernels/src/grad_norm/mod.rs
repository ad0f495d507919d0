//! The norm of a gradient that many tensors make up, and the factor that unscales and clips it. One read of the gradient; the
//! factor can go straight into [`crate::adamw`], so the gradient need not be written.
//!
//! Sums have a fixed order: the same bits for any number of threads, but not for any division into tensors or ranks.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
pub mod reference;

/// What a gradient is to become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Factor that undoes a loss scale and the like; 1 for none.
    pub unscale: f32,
    /// Largest norm after unscaling; 0 for no limit.
    pub max_norm: f32,
}

/// Added to the norm before dividing by it, as in `torch.nn.utils.clip_grad_norm_`.
const TINY: f32 = 1e-6;

#[cfg(test)]
mod tests;
