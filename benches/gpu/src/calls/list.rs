//! The list, a file for each part of a training step.

mod attention;
mod conversions;
mod layers;
mod loss;
mod optimizer;

use super::Calls;

/// Every call of this crate's kernels.
pub fn complete() -> Calls {
    let mut calls = Calls::default();
    layers::add(&mut calls);
    attention::add(&mut calls);
    loss::add(&mut calls);
    optimizer::add(&mut calls);
    conversions::add(&mut calls);
    calls
}
