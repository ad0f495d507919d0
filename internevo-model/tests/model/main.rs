//! Tests of the whole model; one binary, because linking the tensor engine is what takes time.

mod cached;
mod hf_errors;
mod hf_round_trip;
mod loss_and_gradients;
mod parameters;
mod reference;
mod support;
