//! SwiGLU (Shazeer, 2020): `silu(gate) · up` with `silu(x) = x / (1 + e^-x)`.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;

pub use op::swiglu;

#[cfg(test)]
mod tests;
