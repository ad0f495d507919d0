//! The two kinds of leaf that hold parameters: a matrix and a norm vector. Their field is called `weight`, so that the
//! module path of a parameter is its global name.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use internevo_kernels::{KernelSet, linear, rms_norm};

/// A weight `[out, in]` without bias.
#[derive(Module, Debug)]
pub struct Matrix {
    weight: Param<Tensor<2>>,
}

impl Matrix {
    pub(super) fn take(shape: [usize; 2], source: &mut FlatReader<'_>) -> Self {
        Self { weight: source.parameter(shape) }
    }

    pub(super) fn refill(&mut self, source: &mut FlatReader<'_>) {
        self.weight = source.parameter(self.weight.val().dims());
    }

    /// The weight `[out, in]`.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// `x [T, in]` to `[T, out]`.
    pub fn apply(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        linear(set, x, self.weight())
    }
}

/// RMSNorm with a learnt scale `[width]`.
#[derive(Module, Debug)]
pub struct Norm {
    weight: Param<Tensor<1>>,
    eps: f64,
}

impl Norm {
    pub(super) fn take(width: usize, eps: f64, source: &mut FlatReader<'_>) -> Self {
        Self { weight: source.parameter([width]), eps }
    }

    pub(super) fn refill(&mut self, source: &mut FlatReader<'_>) {
        self.weight = source.parameter(self.weight.val().dims());
    }

    /// `x [T, width]`, normalised per row.
    pub fn apply(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        rms_norm(set, x, self.weight.val(), self.eps)
    }
}

/// Hands out the flat parameters front to back as fresh leaves on one device.
pub(super) struct FlatReader<'a> {
    rest: &'a [f32],
    device: Device,
}

impl<'a> FlatReader<'a> {
    pub(super) fn new(flat: &'a [f32], device: &Device) -> Self {
        Self { rest: flat, device: device.clone() }
    }

    fn parameter<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<D>> {
        let (own, rest) = self.rest.split_at(shape.iter().product());
        self.rest = rest;
        Param::from_tensor(Tensor::from_data(TensorData::new(own.to_vec(), shape), &self.device))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}
