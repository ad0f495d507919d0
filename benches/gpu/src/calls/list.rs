//! The list, a file for each part of a training step.

mod conversions;
mod layers;

use super::Calls;

/// Every call of this crate's kernels.
pub fn complete() -> Calls {
    let mut calls = Calls::default();
    layers::add(&mut calls);
    conversions::add(&mut calls);
    calls
}
