//! Norm and factor in plain f64: the oracle of tests and benches.

use super::{Limits, TINY};

/// The norm after unscaling, and what to multiply the gradient by.
pub fn norm(gradient: &[f64], limits: Limits) -> (f64, f64) {
    let unscale = f64::from(limits.unscale);
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt() * unscale.abs();
    let clip =
        if limits.max_norm > 0.0 { (f64::from(limits.max_norm) / (norm + f64::from(TINY))).min(1.0) } else { 1.0 };
    (norm, unscale * clip)
}
