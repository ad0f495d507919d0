//! Between a decoder and the flat vectors of optimizer and checkpoints.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Gradients, Tensor},
};
use internevo_kernels::autograd::HostTensor;
use internevo_parallel::{ParamSpec, ParameterSource};

use super::{Decoder, weights::FlatReader};
use crate::spec::param_specs;

impl ParameterSource for Decoder {
    type Gradients = Gradients;

    fn specs(&self) -> Vec<ParamSpec> {
        param_specs(&self.spec)
    }

    fn write_flat(&self, flat: &mut [f32]) {
        let mut copy = CopyOut { rest: flat, gradients: None };
        self.visit(&mut copy);
        assert!(copy.rest.is_empty(), "the flat vector has room for every parameter and no more");
    }

    fn read_flat(&mut self, flat: &[f32]) {
        let device = self.output.weight().device();
        let source = &mut FlatReader::new(flat, &device);
        self.tok_embeddings.refill(source);
        self.layers.iter_mut().for_each(|block| block.refill(source));
        self.norm.refill(source);
        self.output.refill(source);
        assert!(source.is_empty(), "the flat vector holds every parameter and no more");
    }

    fn take_grads(&self, gradients: &mut Gradients, flat: &mut [f32]) {
        let mut copy = CopyOut { rest: flat, gradients: Some(gradients) };
        self.visit(&mut copy);
        assert!(copy.rest.is_empty(), "the flat vector has room for every gradient and no more");
    }
}

/// Copies each visited parameter, or its gradient, to the front of what is left of the flat vector.
struct CopyOut<'a> {
    rest: &'a mut [f32],
    gradients: Option<&'a mut Gradients>,
}

impl ModuleVisitor for CopyOut<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let count = value.shape().num_elements();
        let (own, rest) = std::mem::take(&mut self.rest).split_at_mut(count);
        self.rest = rest;
        let source = match &mut self.gradients {
            None => Some(value.inner()),
            Some(gradients) => value.grad_remove(gradients),
        };
        match source {
            Some(tensor) => own.copy_from_slice(&HostTensor::new(tensor.into_dispatch())),
            // The loss does not depend on it (a batch without labels).
            None => own.fill(0.0),
        }
    }
}
