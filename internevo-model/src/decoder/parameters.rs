//! Between a whole decoder and flat vectors of its parameters and gradients.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Gradients, Tensor},
};
use internevo_kernels::autograd::HostTensor;
use internevo_parallel::ParamSpec;

use super::Decoder;
use crate::spec::{param_specs, whole_table};

impl Decoder {
    /// The parameters in flat order, whole.
    pub fn specs(&self) -> Vec<ParamSpec> {
        param_specs(&self.spec)
    }

    /// Copies all parameters that this decoder holds to `flat`, in the order of the model.
    ///
    /// # Panics
    /// If `flat` does not have exactly their length.
    pub fn write_flat(&self, flat: &mut [f32]) {
        let mut copy = CopyOut { rest: flat, gradients: None };
        self.visit(&mut copy);
        assert!(copy.rest.is_empty(), "the flat vector has room for every parameter and no more");
    }

    /// Replaces all parameters of a whole decoder.
    ///
    /// # Panics
    /// If `flat` does not have exactly their length.
    pub fn read_flat(&mut self, flat: &[f32]) {
        self.load_local(&whole_table(&self.spec), flat, None);
    }

    /// Moves the gradients that a backward pass of [`Decoder::loss`] left on the leaves to `flat`; zero where the loss does not
    /// depend on a parameter (a batch without labels).
    ///
    /// # Panics
    /// If `flat` does not have exactly the length of the parameters.
    pub fn take_grads(&self, gradients: &mut Gradients, flat: &mut [f32]) {
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
            None => own.fill(0.0),
        }
    }
}
