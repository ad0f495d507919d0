#![doc = include_str!("../README.md")]

pub mod adamw;
pub mod attention;
pub mod autograd;
pub mod cross_entropy;
#[cfg(feature = "cube")]
pub mod cube;
pub mod embedding;
pub mod grad_norm;
pub mod grouped_gemm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod matmul;
pub mod rms_norm;
pub mod rotary;
mod rows;
pub mod simd;
pub mod swiglu;
#[cfg(test)]
mod testing;
pub mod vocab;

pub use attention::{AttentionMask, QkvLayout, attention, attention_cached, attention_masked, flash_attention};
pub use burn;
pub use cross_entropy::{CrossEntropy, IGNORE_INDEX, cross_entropy, cross_entropy_with};
pub use embedding::{embedding, embedding_shard};
pub use grouped_gemm::grouped_linear;
pub use linear::{Recall, Recalled, linear, linear_recalled};
pub use linear_cross_entropy::{linear_cross_entropy, linear_cross_entropy_shard, linear_cross_entropy_with};
pub use rms_norm::{rms_norm, rms_norm_residual};
pub use rotary::{RotaryScaling, RotaryTable, rotary, rotary_heads};
pub use swiglu::swiglu;
pub use vocab::VocabShard;

use autograd::HostTensor;
use burn::tensor::Tensor;

/// Which implementation of an operation runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelSet {
    /// The kernels of this crate, with their own backward: on the CPU for f32 on the Flex backend, on a GPU (features `wgpu`,
    /// `cuda`) for f32, f16 and bf16 on a cubecl device. Other inputs take the [`KernelSet::Reference`] path.
    #[default]
    Fused,
    /// The same formula composed of burn operations and differentiated by burn: any backend, any float dtype.
    Reference,
}

impl KernelSet {
    /// Whether the fused CPU kernel applies to an operation with these inputs.
    fn fused_for<const D: usize, const E: usize>(self, x: &Tensor<D>, y: &Tensor<E>) -> bool {
        self == KernelSet::Fused && HostTensor::accepts(x) && HostTensor::accepts(y)
    }
    /// Whether the fused GPU kernel applies to an operation with these inputs: on one kind of device, of one type.
    #[cfg(feature = "gpu")]
    fn gpu_for<const D: usize, const E: usize>(self, x: &Tensor<D>, y: &Tensor<E>) -> bool {
        let accepted = cube::GpuTensor::accepts(x) && cube::GpuTensor::accepts(y);
        self == KernelSet::Fused && accepted && x.dtype() == y.dtype()
    }
}
