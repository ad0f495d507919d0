//! What the GPU kernels share: buffers, the machine they are shaped for, sums over a cube. The kernels live with their operations
//! (`<operation>/cube.rs`), each as `#[cube]` functions and launch functions on a [`Client`] that know nothing of burn.
//!
//! Every launch function takes its shape from [`Machine::of`] the client, so one source serves Vulkan on a CPU, a laptop's GPU
//! and a Hopper card. Launches are asynchronous; what goes wrong in one is reported by the read of its outputs.

pub mod bucket;
mod buffer;
mod cast;
pub(crate) mod lanes;
mod machine;
#[cfg(feature = "codegen")]
pub mod recorder;
pub(crate) mod reduce;
#[cfg(feature = "gpu")]
mod tensor;
#[cfg(test)]
pub(crate) mod testing;

pub use buffer::Buffer;
pub use cast::cast;
pub use cubecl;
pub use cubecl::client::Client;
pub use cubecl::ir::{ElemType, FloatKind};
pub(crate) use machine::address_type;
pub use machine::{Flat, Machine};
#[cfg(feature = "gpu")]
pub use tensor::{GpuTensor, product};

/// 32-bit floats, the type of sums, statistics and master weights.
pub const F32: ElemType = ElemType::Float(FloatKind::F32);
/// 16-bit floats of IEEE 754.
pub const F16: ElemType = ElemType::Float(FloatKind::F16);
/// bfloat16.
pub const BF16: ElemType = ElemType::Float(FloatKind::BF16);
