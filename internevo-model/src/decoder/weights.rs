//! The two kinds of leaf that hold parameters: a matrix and a norm vector. Their field is called `weight`, so that the
//! module path of a parameter is its global name.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use internevo_kernels::{KernelSet, Recall, Recalled, linear, linear_recalled, rms_norm, rms_norm_residual};
use internevo_parallel::{state::LocalTable, strategy::Region};

use super::execution::Step;

/// A weight `[out, in]` without bias: this rank's share of it, or `[1, n]` flat elements of it when it is sharded.
#[derive(Module, Debug)]
pub struct Matrix {
    weight: Param<Tensor<2>>,
    #[module(skip)]
    param: usize,
}

impl Matrix {
    pub(super) fn take(source: &mut LocalReader<'_>) -> Self {
        let (param, weight) = source.next();
        Self { weight, param }
    }

    pub(super) fn refill(&mut self, source: &mut LocalReader<'_>) {
        self.weight = source.next().1;
    }

    /// Index of the parameter, in the order of the model.
    pub fn param(&self) -> usize {
        self.param
    }

    /// What this rank holds of the weight.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// `x [T, in]` to `[T, out]`, where this rank has all of the weight; gradients stay on the leaf.
    pub fn apply(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        linear(set, x, self.weight())
    }

    /// The input of a region to this rank's columns.
    pub(super) fn column(&self, step: &Step, region: &Region) -> Tensor<2> {
        self.multiply(step, region.x.clone(), region.recall.clone())
    }

    /// This rank's columns to its part of the output of a region.
    pub(super) fn row(&self, step: &Step, x: Tensor<2>) -> Tensor<2> {
        self.multiply(step, x, None)
    }

    fn multiply(&self, step: &Step, x: Tensor<2>, input: Option<Recall>) -> Tensor<2> {
        let (weight, recall) = step.matrix(self.param, self.weight(), Some(&x));
        linear_recalled(step.on.kernels, x, weight, Recalled { input, weight: recall })
    }
}

/// RMSNorm with a learnt scale `[width]`.
#[derive(Module, Debug)]
pub struct Norm {
    weight: Param<Tensor<1>>,
    eps: f64,
    #[module(skip)]
    param: usize,
}

impl Norm {
    pub(super) fn take(eps: f64, source: &mut LocalReader<'_>) -> Self {
        let (param, weight) = source.next();
        Self { weight, eps, param }
    }

    pub(super) fn refill(&mut self, source: &mut LocalReader<'_>) {
        self.weight = source.next().1;
    }

    /// `x [T, width]`, normalised per row; gradients stay on the leaf.
    pub fn apply(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        rms_norm(set, x, self.weight.val(), self.eps)
    }

    /// The same in a step.
    pub(super) fn run(&self, step: &Step, x: Tensor<2>) -> Tensor<2> {
        let weight = step.vector(self.param, self.weight.val(), &x);
        rms_norm(step.on.kernels, x, weight, self.eps)
    }

    /// The same of `x + addend`, and that sum, which takes the memory of `addend` if nobody else holds it.
    pub(super) fn run_sum(&self, step: &Step, x: Tensor<2>, addend: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let weight = step.vector(self.param, self.weight.val(), &addend);
        rms_norm_residual(step.on.kernels, addend, x, weight, self.eps)
    }
}

/// Hands out a rank's parameters, in the order of the model, as fresh leaves on one device.
pub(super) struct LocalReader<'a> {
    table: &'a LocalTable,
    values: &'a [f32],
    device: Device,
    next: usize,
}

impl<'a> LocalReader<'a> {
    pub(super) fn new(table: &'a LocalTable, values: &'a [f32], device: &Device) -> Self {
        assert_eq!(table.total(), values.len(), "elements of the local vector");
        Self { table, values, device: device.clone(), next: 0 }
    }

    fn next<const D: usize>(&mut self) -> (usize, Param<Tensor<D>>) {
        let param = self.next;
        self.next += 1;
        let local = &self.table.params()[param];
        let shape = if local.sharded { vec![1, local.len] } else { local.slab.local_shape() };
        let data = TensorData::new(self.values[local.range()].to_vec(), shape);
        (param, Param::from_tensor(Tensor::from_data(data, &self.device)))
    }

    /// Whether every parameter was handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.next == self.table.params().len()
    }
}
