//! How a decoder runs on this rank: which kernels and strategy, where whole weights come from and gradients go, what is
//! computed again. Not here: the layers, and the communication (internevo-parallel).

use std::sync::Arc;

use burn::tensor::Tensor;
use internevo_core::config::Recompute;
use internevo_kernels::{
    KernelSet, Recall,
    autograd::{Recording, deliver},
};
use internevo_parallel::{GradientSink, Strategy, WeightGatherer, strategy::alone, weight::Pass};

/// What a forward pass needs beside parameters and data. Cloning shares everything.
#[derive(Clone)]
pub struct Execution {
    /// Which implementation of the operations runs.
    pub kernels: KernelSet,
    /// How the ranks of the tensor group share the work.
    pub strategy: Arc<dyn Strategy>,
    /// Gathers sharded weights, if there are any.
    pub gatherer: Option<Arc<WeightGatherer>>,
    /// Where gradients go. Without one they stay on the leaves of the tape.
    pub sink: Option<Arc<GradientSink>>,
    /// What the backward pass computes again.
    pub recompute: Recompute,
}

impl Execution {
    /// One rank that holds everything and keeps all activations; gradients stay on the leaves.
    pub fn alone(kernels: KernelSet) -> Self {
        Self { kernels, strategy: alone(), gatherer: None, sink: None, recompute: Recompute::Off }
    }
}

/// One run of a layer: for its value, recorded, or again.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) on: Execution,
    pub(super) recording: Recording,
    pub(super) pass: Pass,
}

impl Step {
    /// The forward pass.
    pub(super) fn forward(on: &Execution) -> Self {
        Self { on: on.clone(), recording: Recording::On, pass: Pass::Forward }
    }

    /// A run inside [`internevo_kernels::autograd::recompute`].
    pub(super) fn again(&self, recording: Recording) -> Self {
        let pass = if recording == Recording::On { Pass::Again } else { Pass::Forward };
        Self { on: self.on.clone(), recording, pass }
    }

    /// A matrix for a use together with `beside`: the whole one if it is sharded, and how the backward gets it again then.
    pub(super) fn matrix(
        &self,
        param: usize,
        leaf: Tensor<2>,
        beside: Option<&Tensor<2>>,
    ) -> (Tensor<2>, Option<Recall>) {
        let leaf = self.recording.of(leaf);
        match &self.on.gatherer {
            Some(gatherer) if gatherer.shards(param) => {
                gatherer.weight(param, &leaf, beside, self.pass, self.on.sink.as_ref())
            }
            _ => (self.delivered(param, leaf, beside), None),
        }
    }

    /// A vector that every rank has whole.
    pub(super) fn vector(&self, param: usize, leaf: Tensor<1>, beside: &Tensor<2>) -> Tensor<1> {
        self.delivered(param, self.recording.of(leaf), Some(beside))
    }

    fn delivered<const D: usize>(&self, param: usize, leaf: Tensor<D>, beside: Option<&Tensor<2>>) -> Tensor<D> {
        match self.on.sink.clone() {
            Some(sink) => deliver(leaf, beside, move |gradient| sink.deposit(param, &gradient)),
            None => leaf,
        }
    }
}
