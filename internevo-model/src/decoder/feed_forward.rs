//! The SwiGLU feed-forward layer: `w2(silu(w1 x) * w3 x)`.

use burn::{module::Module, tensor::Tensor};
use internevo_kernels::{KernelSet, swiglu};

use super::weights::{FlatReader, Matrix};
use crate::spec::ModelSpec;

/// `w1` is the gate, `w3` the up and `w2` the down projection (InternLM2's names).
#[derive(Module, Debug)]
pub struct FeedForward {
    w1: Matrix,
    w3: Matrix,
    w2: Matrix,
}

impl FeedForward {
    pub(super) fn take(spec: &ModelSpec, source: &mut FlatReader<'_>) -> Self {
        Self {
            w1: Matrix::take([spec.ffn, spec.hidden], source),
            w3: Matrix::take([spec.ffn, spec.hidden], source),
            w2: Matrix::take([spec.hidden, spec.ffn], source),
        }
    }

    pub(super) fn refill(&mut self, source: &mut FlatReader<'_>) {
        self.w1.refill(source);
        self.w3.refill(source);
        self.w2.refill(source);
    }

    /// `x [T, hidden]` to the same shape.
    pub fn forward(&self, set: KernelSet, x: Tensor<2>) -> Tensor<2> {
        let gate = self.w1.apply(set, x.clone());
        let up = self.w3.apply(set, x);
        self.w2.apply(set, swiglu(set, gate, up))
    }
}
