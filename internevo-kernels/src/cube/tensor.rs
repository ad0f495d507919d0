//! burn's tensors on a cubecl device as [`Buffer`]s, without copies where the layout allows. No autodiff here.

use super::{Buffer, Client};
use burn::backend::{BackendTensor, Cube, DispatchDevice, DispatchKindConversion, DispatchTensor};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;

/// A contiguous float tensor in the memory of a cubecl device.
#[derive(Clone, Debug)]
pub struct GpuTensor {
    inner: CubeTensor,
}

impl GpuTensor {
    /// Whether [`GpuTensor::new`] accepts `tensor`: f32, f16 or bf16 on a cubecl device (autodiff or not).
    pub fn accepts<const D: usize>(tensor: &Tensor<D>) -> bool {
        let float = matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16);
        float && matches!(tensor.device().inner().as_dispatch(), DispatchDevice::Cube(_))
    }

    /// The device view of a tensor without autodiff. Copies only if the tensor is strided.
    ///
    /// # Panics
    /// If the tensor has autodiff or lives elsewhere; see [`GpuTensor::accepts`].
    pub fn new(tensor: DispatchTensor) -> Self {
        Self { inner: into_contiguous(cube_tensor(tensor)) }
    }

    /// A tensor over the elements of `buffer`, on the device of `self`.
    ///
    /// # Panics
    /// If `shape` has another number of elements.
    pub fn with<const D: usize>(&self, buffer: Buffer, shape: [usize; D]) -> Self {
        assert_eq!(buffer.len, shape.iter().product::<usize>(), "elements of a tensor of {shape:?}");
        let dtype = match buffer.elem {
            super::F32 => DType::F32,
            super::F16 => DType::F16,
            super::BF16 => DType::BF16,
            other => panic!("no float tensor holds {other:?}"),
        };
        let inner = CubeTensor::new_contiguous(
            self.inner.client.clone(),
            self.inner.device.clone(),
            shape.into(),
            buffer.handle,
            dtype,
        );
        Self { inner }
    }

    /// The queue of the tensor's device.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The elements, shared with the tensor.
    pub fn buffer(&self) -> Buffer {
        let elem: ElemType = match self.inner.dtype {
            DType::F32 => super::F32,
            DType::F16 => super::F16,
            DType::BF16 => super::BF16,
            other => unreachable!("`new` refuses {other:?}"),
        };
        let len = self.inner.meta.num_elements();
        Buffer { handle: self.inner.handle.clone(), len, elem }
    }

    /// The tensor's device.
    pub fn device(&self) -> &CubeDevice {
        &self.inner.device
    }

    /// The elements, to be changed: in place if nobody else holds them, otherwise on a copy.
    pub fn make_mut(&mut self) -> Buffer {
        if !self.inner.handle.can_mut() {
            self.inner = self.inner.copy();
        }
        self.buffer()
    }

    /// Gives the elements away; the buffer is exclusive if nobody else holds them.
    pub fn into_buffer(self) -> Buffer {
        self.buffer()
    }

    /// Back to a tensor without autodiff, sharing the memory.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_dispatch(self.into_dispatch())
    }

    /// Back to an untyped tensor, as the gradients of a [`crate::autograd::Function`] are given.
    pub fn into_dispatch(self) -> DispatchTensor {
        <DispatchTensor as DispatchKindConversion<Cube>>::from_backend(BackendTensor::Float(self.inner))
    }
}

/// `lhs · rhs` by burn's matrix product (cubek), with f32 sums, as `dtype`: rounded from the sums once, if at all. Plain tensors
/// of one type on one cubecl device; transposed ones are read as they lie.
///
/// # Panics
/// If the tensors do not fit, or the device cannot multiply them.
pub fn product(lhs: Tensor<2>, rhs: Tensor<2>, dtype: DType) -> Tensor<2> {
    let [lhs, rhs] = [lhs, rhs].map(|operand| cube_tensor(operand.into_dispatch()));
    let product = matmul(lhs, rhs, None, MatmulStrategy::default(), dtype)
        .unwrap_or_else(|error| panic!("matrix product on a cubecl device: {error:?}"));
    GpuTensor { inner: product }.into_tensor()
}

/// The primitive of a tensor without autodiff on a cubecl device.
fn cube_tensor(tensor: DispatchTensor) -> CubeTensor {
    <DispatchTensor as DispatchKindConversion<Cube>>::try_into_backend(tensor)
        .unwrap_or_else(|error| panic!("device view of a tensor: {error}"))
        .float()
}

#[cfg(test)]
mod tests {
    use crate::KernelSet::{self, Fused, Reference};
    use crate::testing::{Random, gpu_devices, gradient, leaf, values};
    use crate::{QkvLayout, RotaryTable, embedding, linear, rms_norm_residual, rotary, swiglu};
    use burn::tensor::{Device, FloatDType};

    const WIDTH: usize = 24;

    /// An embedding, a residual norm, a linear layer, a rotation and a gate in `dtype`; the output, and the gradients of the f32
    /// table and of the f32 master weight of the linear layer.
    fn layers(set: KernelSet, device: &Device, dtype: FloatDType, table: &[f32], weight: &[f32]) -> [Vec<f32>; 3] {
        let (table, weight) = (leaf(table, [17, WIDTH], device), leaf(weight, [WIDTH, WIDTH], device));
        let scale = leaf(&[0.5; WIDTH], [WIDTH], device).cast(dtype);
        let tokens: Vec<u32> = (0..40).map(|i| i * 7 % 17).collect();
        let x = embedding(set, table.clone().cast(dtype), &tokens);
        let (y, sum) = rms_norm_residual(set, x.clone(), x, scale, 1e-5);
        let layout = QkvLayout { kv_heads: 1, q_per_kv: 1, head_dim: WIDTH / 3 };
        let positions: Vec<u32> = (0..40).collect();
        let qkv = linear(set, y, weight.clone());
        let qkv = rotary(set, qkv, layout, &positions, &RotaryTable::new(layout.head_dim, 1e4, 40));
        let out = swiglu(set, qkv, sum.clone()) + sum;
        assert_eq!(out.dtype(), dtype.into());
        let out = out.cast(FloatDType::F32);
        let gradients = out.clone().sum().backward();
        [values(out), gradient(&table, &gradients), gradient(&weight, &gradients)]
    }

    #[test]
    fn layers_in_f16_over_f32_weights_agree_with_f32() {
        let mut random = Random::fresh();
        let (table, weight) = (random.values(17 * WIDTH), random.values(WIDTH * WIDTH));
        for device in gpu_devices() {
            let half = layers(Fused, &device, FloatDType::F16, &table, &weight);
            let exact = layers(Reference, &device, FloatDType::F32, &table, &weight);
            for (what, (half, exact)) in ["out", "table", "weight"].iter().zip(half.iter().zip(&exact)) {
                let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
                let error = norm(&mut half.iter().zip(exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
                assert!(error <= 1e-2, "{what}: relative error {error:.2e}");
            }
        }
    }
}
