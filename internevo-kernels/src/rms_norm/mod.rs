//! RMSNorm (Zhang and Sennrich, 2019): `y = x / sqrt(mean(x²) + eps) · w`, one norm per row. Alone, or fused
//! with the addition of a residual before it.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;

pub use op::{rms_norm, rms_norm_residual};

#[cfg(test)]
mod tests;
