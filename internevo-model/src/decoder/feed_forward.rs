//! The SwiGLU feed-forward layer: `w2(silu(w1 x) * w3 x)`.

use burn::{module::Module, tensor::Tensor};
use internevo_kernels::{KernelSet, swiglu};
use internevo_parallel::strategy::Region;

use super::{
    execution::Step,
    weights::{LocalReader, Matrix},
};

/// `w1` is the gate, `w3` the up and `w2` the down projection (InternLM2's names).
#[derive(Module, Debug)]
pub struct FeedForward {
    w1: Matrix,
    w3: Matrix,
    w2: Matrix,
}

impl FeedForward {
    pub(super) fn take(source: &mut LocalReader<'_>) -> Self {
        Self { w1: Matrix::take(source), w3: Matrix::take(source), w2: Matrix::take(source) }
    }

    pub(super) fn refill(&mut self, source: &mut LocalReader<'_>) {
        self.w1.refill(source);
        self.w3.refill(source);
        self.w2.refill(source);
    }

    pub(super) fn matrices(&self) -> [&Matrix; 3] {
        [&self.w1, &self.w3, &self.w2]
    }

    /// `x [T, hidden]` to the same shape, on a rank that holds everything. Inference.
    pub(super) fn infer(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        let gate = self.w1.apply(set, x.clone());
        let up = self.w3.apply(set, x);
        self.w2.apply(set, swiglu(set, gate, up))
    }

    /// The input of a region to this rank's part of its output.
    pub(super) fn run(&self, step: &Step, region: &Region) -> Tensor<2> {
        let (gate, up) = (self.w1.column(step, region), self.w3.column(step, region));
        self.w2.row(step, swiglu(step.on.kernels, gate, up))
    }
}
