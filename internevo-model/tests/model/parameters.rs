//! Names, order and flat form of the parameters.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor},
};
use internevo_kernels::KernelSet;
use internevo_model::{Decoder, ModelError, param_table};

use crate::support::{random_batch, random_parameters, small_spec, training_device};

#[derive(Default)]
struct Paths {
    stack: Vec<String>,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.stack.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.stack.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.stack.join("."), param.val().dims().to_vec()));
    }
}

#[test]
fn module_paths_and_shapes_are_the_parameter_table() {
    let spec = small_spec(2, 3, KernelSet::Fused);
    let decoder = Decoder::init(&spec, 1, &Device::flex()).expect("a valid model");
    let mut paths = Paths::default();
    decoder.visit(&mut paths);
    let table: Vec<_> = param_table(&spec).into_iter().map(|p| (p.name, p.shape)).collect();
    assert_eq!(paths.found, table);
    assert_eq!(decoder.specs().len(), table.len());
}

#[test]
fn flat_parameters_go_in_and_come_out_unchanged() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let (first, second) = (random_parameters(&spec, 1), random_parameters(&spec, 2));
    let mut decoder = Decoder::from_flat(&spec, &first, &training_device()).expect("a valid model");
    let mut out = vec![0.0; first.len()];
    decoder.write_flat(&mut out);
    assert_eq!(out, first);
    decoder.read_flat(&second);
    decoder.write_flat(&mut out);
    assert_eq!(out, second);
    // The new values are leaves of the tape like the old ones.
    let mut gradients = decoder.loss(&random_batch(&spec, &[12], 3), 0.0, 1.0).loss_sum.backward();
    decoder.take_grads(&mut gradients, &mut out);
    assert!(out.iter().filter(|g| **g != 0.0).count() > out.len() / 2);
}

#[test]
fn a_wrong_number_of_parameters_is_refused() {
    let spec = small_spec(2, 2, KernelSet::Fused);
    let error = Decoder::from_flat(&spec, &[0.0; 7], &Device::flex()).expect_err("seven are too few");
    assert!(matches!(error, ModelError::ParameterCount { found: 7, .. }), "{error}");
}
