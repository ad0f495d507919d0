//! The GPU kernels of internevo, called as training calls them. Two programs share the list of calls:
//!
//! - `codegen` (`cargo xtask codegen`) records them on a card on paper, compiles what they launch and checks the machine code;
//! - `gpu` (`benches/gpu.sh`) compares them with f64 on a card and times them; `peers.py` does the same work in PyTorch.

#[cfg(feature = "calls")]
pub mod calls;
#[cfg(feature = "calls")]
pub mod random;
