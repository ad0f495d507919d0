//! Views of Flex tensors as host slices, without copies where the layout allows. No autodiff here.

use burn::backend::{DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::{Device, Element, Tensor, TensorData, bf16};
use burn_flex_tensor::FlexTensor;
use std::marker::PhantomData;
use std::ops::Deref;

/// The primitive of the Flex backend, named through the backend trait so that burn-flex is not a direct dependency.
mod burn_flex_tensor {
    /// burn-flex's tensor: shared bytes plus a layout.
    pub type FlexTensor = <burn::backend::Flex as burn::backend::BackendTypes>::FloatTensorPrimitive;
}

/// What a [`Host`] tensor may be of: f32 and bf16.
pub trait HostElement: Element {
    #[doc(hidden)]
    fn storage(tensor: &FlexTensor) -> &[Self];
    #[doc(hidden)]
    fn storage_mut(tensor: &mut FlexTensor) -> &mut [Self];
}

macro_rules! host_element {
    ($element:ty) => {
        impl HostElement for $element {
            fn storage(tensor: &FlexTensor) -> &[Self] {
                tensor.storage::<Self>()
            }
            fn storage_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                tensor.storage_mut::<Self>()
            }
        }
    };
}
host_element!(f32);
host_element!(bf16);

/// A contiguous tensor in host memory that reads as `&[E]`.
///
/// Cloning shares the buffer. [`Host::make_mut`] writes in place when this is the only holder and copies
/// otherwise, so a tensor that somebody else can still see is never changed.
#[derive(Clone, Debug)]
pub struct Host<E> {
    inner: FlexTensor,
    element: PhantomData<E>,
}

/// A contiguous f32 tensor in host memory.
pub type HostTensor = Host<f32>;

impl<E: HostElement> Host<E> {
    /// Whether [`Host::new`] accepts `tensor`: of this type, on the Flex backend (autodiff or not).
    pub fn accepts<const D: usize>(tensor: &Tensor<D>) -> bool {
        tensor.dtype() == E::dtype() && tensor.device().inner() == Device::flex()
    }

    /// The host view of a tensor without autodiff. Copies only if the tensor is strided or a window of a bigger one.
    ///
    /// # Panics
    /// If the tensor has autodiff, another backend or another dtype; see [`Host::accepts`].
    pub fn new(tensor: DispatchTensor) -> Self {
        let inner = <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(tensor)
            .unwrap_or_else(|error| panic!("host view of a tensor: {error}"))
            .float();
        let (expected, found) = (E::dtype(), inner.dtype());
        assert!(found == expected, "host view of a tensor: expected {expected:?}, found {found:?}");
        let fills = inner.is_contiguous() && inner.layout().num_elements() == E::storage(&inner).len();
        Self::of(if fills { inner } else { inner.to_contiguous() })
    }

    /// Takes the buffer of `data` without a copy. `shape` has `data.len()` elements.
    pub fn from_vec<const D: usize>(data: Vec<E>, shape: [usize; D]) -> Self {
        Self::of(FlexTensor::from_data(TensorData::new(data, shape)))
    }

    fn of(inner: FlexTensor) -> Self {
        Self { inner, element: PhantomData }
    }

    /// The elements, to be changed: in place if nobody shares the buffer, otherwise on a copy.
    pub fn make_mut(&mut self) -> &mut [E] {
        E::storage_mut(&mut self.inner)
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

impl<E: HostElement> Deref for Host<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        E::storage(&self.inner)
    }
}
