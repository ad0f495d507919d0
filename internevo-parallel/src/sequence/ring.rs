//! Ring attention over a context group: queries stay, keys and values go around. In the backward pass their gradients travel
//! with them and are home after a whole round.

use std::sync::Arc;

use internevo_kernels::{
    QkvLayout,
    attention::{
        Runs,
        cpu::{Held, PartialAttention, Saved, add_kv, backward_step, pack_kv},
    },
    autograd::{Function, HostTensor},
    burn::tensor::Tensor,
};

use super::Placement;
use crate::{
    comm::{Buffer, CommError, Communicator, ElementKind},
    strategy::failed,
};

/// Tag of keys and values on their way around.
const KV: u32 = 1;
/// Tag of their gradients.
const GRADIENT: u32 = 2;

/// A ring of ranks and where their tokens are.
#[derive(Clone)]
pub(super) struct Ring {
    pub(super) group: Arc<dyn Communicator>,
    pub(super) placement: Placement,
}

impl Ring {
    /// Attention of this rank's queries over the keys of all ranks: `qkv [t, (H + 2K) · D]` to `[t, H · D]`.
    pub(super) fn attend(&self, qkv: Tensor<2>, layout: QkvLayout, cu_seqlens: &[u32]) -> Tensor<2> {
        let (ring, segments) = (self.clone(), cu_seqlens.to_vec());
        let (function, [qkv]) = Function::enter([qkv.into()]);
        let qkv = HostTensor::new(qkv);
        let tokens = qkv.len() / layout.qkv_width();
        let done = self.forward(&qkv, layout, cu_seqlens).unwrap_or_else(|error| failed(error));
        let output = HostTensor::from_vec(done.output, [tokens, layout.output_width()]);
        let saved = function.tracked()[0].then(|| (qkv, output.clone(), done.log_sum_exp));
        function.finish(output.into_tensor(), move |d_output: Tensor<2>, [needed]| {
            [needed.then(|| {
                let (qkv, output, log_sum_exp) = saved.expect("kept because the input is tracked");
                let saved = Saved { qkv: &qkv, output: &output, log_sum_exp: &log_sum_exp };
                let d_output = HostTensor::new(d_output.into_dispatch());
                let d_qkv = ring.backward(saved, layout, &segments, &d_output).unwrap_or_else(|error| failed(error));
                HostTensor::from_vec(d_qkv, [tokens, layout.qkv_width()]).into_dispatch()
            })]
        })
    }

    fn forward(&self, qkv: &[f32], layout: QkvLayout, cu_seqlens: &[u32]) -> Result<PartialAttention, CommError> {
        let own = self.runs(0, cu_seqlens);
        let mut state = PartialAttention::new(own.rows(), layout);
        let mut kv = pack_kv(qkv, layout);
        for step in 0..self.group.size() {
            let next = if step + 1 < self.group.size() { Some(self.pass_on(&kv, KV)?) } else { None };
            let (queries, runs) = (Held { data: qkv, runs: &own }, self.runs(step, cu_seqlens));
            state.accumulate(queries, Held { data: &kv, runs: &runs }, layout, cu_seqlens);
            if let Some(next) = next {
                kv = next.wait()?.into_f32();
            }
        }
        Ok(state)
    }

    fn backward(
        &self,
        saved: Saved<'_>,
        layout: QkvLayout,
        cu_seqlens: &[u32],
        d_output: &[f32],
    ) -> Result<Vec<f32>, CommError> {
        let own = self.runs(0, cu_seqlens);
        let mut d_qkv = vec![0.0; saved.qkv.len()];
        let mut kv = pack_kv(saved.qkv, layout);
        let mut d_kv = vec![0.0; kv.len()];
        for step in 0..self.group.size() {
            let next = if step + 1 < self.group.size() { Some(self.pass_on(&kv, KV)?) } else { None };
            let runs = self.runs(step, cu_seqlens);
            let held = Held { data: &kv, runs: &runs };
            backward_step(saved, &own, held, layout, cu_seqlens, d_output, &mut d_qkv, &mut d_kv);
            // The gradient follows its keys; after the last step it is one place away from home.
            d_kv = self.pass_on(&d_kv, GRADIENT)?.wait()?.into_f32();
            if let Some(next) = next {
                kv = next.wait()?.into_f32();
            }
        }
        add_kv(&mut d_qkv, &d_kv, layout);
        Ok(d_qkv)
    }

    /// The tokens of the keys that are here at `step`: at step 0 the own ones.
    fn runs(&self, step: usize, cu_seqlens: &[u32]) -> Runs {
        let tokens = cu_seqlens.last().map_or(0, |end| *end as usize);
        let ranks = self.group.size();
        self.placement.of_context(tokens, (self.group.rank() + ranks - step) % ranks)
    }

    /// Sends to the next rank and receives as much from the one before.
    fn pass_on(&self, values: &[f32], tag: u32) -> Result<crate::comm::Pending, CommError> {
        let (rank, ranks) = (self.group.rank(), self.group.size());
        let sent = self.group.send(Buffer::F32(values.to_vec()), (rank + 1) % ranks, tag)?;
        let received = self.group.recv(ElementKind::F32, values.len(), (rank + ranks - 1) % ranks, tag)?;
        Ok(crate::comm::Pending::new(move || {
            let values = received.wait()?;
            sent.wait()?;
            Ok(values)
        }))
    }
}
