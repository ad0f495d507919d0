//! Views of Flex tensors as host slices, without copies where the layout allows. No autodiff here.

use burn::backend::{DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex_tensor::FlexTensor;
use std::ops::Deref;

/// The primitive of the Flex backend, named through the backend trait so that burn-flex is not a direct dependency.
mod burn_flex_tensor {
    /// burn-flex's tensor: shared bytes plus a layout.
    pub type FlexTensor = <burn::backend::Flex as burn::backend::BackendTypes>::FloatTensorPrimitive;
}

/// A contiguous f32 tensor in host memory that reads as `&[f32]`.
///
/// Cloning shares the buffer. [`HostTensor::make_mut`] writes in place when this is the only holder and copies
/// otherwise, so a tensor that somebody else can still see is never changed.
#[derive(Clone, Debug)]
pub struct HostTensor {
    inner: FlexTensor,
}

impl HostTensor {
    /// Whether [`HostTensor::new`] accepts `tensor`: f32 on the Flex backend (autodiff or not).
    pub fn accepts<const D: usize>(tensor: &Tensor<D>) -> bool {
        tensor.dtype() == DType::F32 && tensor.device().inner() == Device::flex()
    }

    /// The host view of a tensor without autodiff. Copies only if the tensor is strided or a window of a bigger one.
    ///
    /// # Panics
    /// If the tensor has autodiff, another backend or another dtype; see [`HostTensor::accepts`].
    pub fn new(tensor: DispatchTensor) -> Self {
        let inner = <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(tensor)
            .unwrap_or_else(|error| panic!("host view of a tensor: {error}"))
            .float();
        assert!(inner.dtype() == DType::F32, "host view of a tensor: expected f32, found {:?}", inner.dtype());
        let inner = if inner.as_slice::<f32>().is_some_and(|slice| slice.len() == inner.storage::<f32>().len()) {
            inner
        } else {
            inner.to_contiguous()
        };
        Self { inner }
    }

    /// Takes the buffer of `data` without a copy. `shape` has `data.len()` elements.
    pub fn from_vec<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> Self {
        Self { inner: FlexTensor::from_data(TensorData::new(data, shape)) }
    }

    /// The elements, to be changed: in place if nobody shares the buffer, otherwise on a copy.
    pub fn make_mut(&mut self) -> &mut [f32] {
        self.inner.storage_mut::<f32>()
    }

    /// Back to a tensor (Flex, no autodiff), sharing the buffer.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.inner)
    }

    /// Back to an untyped tensor, as the gradients of a [`super::Function`] are given.
    pub fn into_dispatch(self) -> DispatchTensor {
        let inner = burn::backend::BackendTensor::Float(self.inner);
        <DispatchTensor as DispatchKindConversion<Flex>>::from_backend(inner)
    }
}

impl Deref for HostTensor {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.inner.storage::<f32>()
    }
}
