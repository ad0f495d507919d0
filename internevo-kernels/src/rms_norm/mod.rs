//! RMSNorm (Zhang and Sennrich, 2019): `y = x / sqrt(mean(x²) + eps) · w`, one norm per row.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;

pub use op::rms_norm;

#[cfg(test)]
mod tests;
