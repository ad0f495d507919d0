//! Attention, by each route that serves a type.

use internevo_kernels::attention::cube::{self as kernels, Attention, Outcome, Route};
use internevo_kernels::attention::{AttentionMask, Heads, QkvLayout, Segments};
use internevo_kernels::cube::{BF16, Buffer, Client, ElemType, F16, F32};

use super::super::{Calls, Inputs, Rules, Tensor};

/// Query heads of an 8B model over its key/value heads.
const KV_HEADS: usize = 8;
const Q_PER_KV: usize = 4;
/// Tokens of a sequence; two are packed.
const SEQUENCE: usize = 8192;

/// Queries, keys, values, their gradients and what lies between, of two packed sequences.
struct Problem {
    layout: QkvLayout,
    segments: Segments,
    operands: [Buffer; 3],
    gradients: [Buffer; 3],
    output: Buffer,
    lse: Buffer,
    d_output: Buffer,
}

impl Problem {
    fn new(inputs: &Inputs, elem: ElemType, head_dim: usize) -> Self {
        let layout = QkvLayout { kv_heads: KV_HEADS, q_per_kv: Q_PER_KV, head_dim };
        let tokens = 2 * SEQUENCE;
        let lengths = [layout.heads(), KV_HEADS, KV_HEADS].map(|heads| tokens * heads * head_dim);
        let floats = |len| inputs.floats(len, elem);
        Self {
            layout,
            segments: Segments::packed(&[0, SEQUENCE as u32, tokens as u32]),
            operands: lengths.map(floats),
            gradients: lengths.map(floats),
            output: floats(lengths[0]),
            lse: inputs.floats(tokens * layout.heads(), F32),
            d_output: floats(lengths[0]),
        }
    }

    fn attention(&self) -> Attention<'_> {
        let (mask, scale) = (AttentionMask::default(), self.layout.scale() as f32);
        Attention { layout: self.layout, segments: &self.segments, mask, scale }
    }

    fn views<'a>(&self, buffers: &'a [Buffer; 3]) -> [Heads<&'a Buffer>; 3] {
        let [q, k, v] = self.layout.separate();
        [q.on(&buffers[0]), k.on(&buffers[1]), v.on(&buffers[2])]
    }

    fn forward(&self, client: &Client, route: Route) {
        drop(kernels::forward_by(route, client, &self.views(&self.operands), &self.attention()));
    }

    fn backward(&self, client: &Client, route: Route) {
        let outcome = Outcome { output: &self.output, lse: &self.lse, d_output: &self.d_output, d_lse: None };
        let (operands, gradients) = (self.views(&self.operands), self.views(&self.gradients));
        kernels::backward_by(route, client, &operands, &outcome, &self.attention(), &gradients);
    }
}

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for (elem, head_dim) in [BF16, F16].into_iter().flat_map(|elem| [64, 96, 128, 256].map(|head_dim| (elem, head_dim)))
    {
        by(calls, Route::Mma, "", elem, head_dim);
    }
    for (elem, head_dim) in [(BF16, 64), (BF16, 128), (BF16, 256), (F16, 128)] {
        by(calls, Route::Wgmma, "wgmma ", elem, head_dim);
    }
    // The last is for heads of no whole fragments.
    for (elem, head_dim) in [(F32, 64), (F32, 128), (F32, 256), (BF16, 128), (F16, 100)] {
        by(calls, Route::Portable, "portable ", elem, head_dim);
    }
}

fn by(calls: &mut Calls, route: Route, name: &str, elem: ElemType, head_dim: usize) {
    let shape = format!("2×{}/{KV_HEADS}×{SEQUENCE}×{head_dim} causal", KV_HEADS * Q_PER_KV);
    let rules = |kernel| {
        let rules = Rules::compute().wide(kernel, elem, head_dim);
        match route {
            Route::Mma => rules.tensor(kernel, Tensor::Hmma),
            Route::Wgmma => rules.tensor(kernel, Tensor::Hgmma),
            Route::Portable => rules,
        }
    };
    let flops = 2.0 * (2 * KV_HEADS * Q_PER_KV * head_dim) as f64 * (SEQUENCE as f64).powi(2);
    let forward =
        calls.add(&format!("{name}attention forward"), elem, &shape, rules("forward_kernel"), move |inputs| {
            let problem = Problem::new(inputs, elem, head_dim);
            move |client| problem.forward(client, route)
        });
    if route != Route::Portable {
        forward.computes(flops);
    }
    if route != Route::Mma {
        forward.only_on(&[90]);
    }
    if route == Route::Wgmma {
        // Its backward is that of the route before.
        return;
    }
    let rules = rules("backward_kernel");
    let backward = calls.add(&format!("{name}attention backward"), elem, &shape, rules, move |inputs| {
        let problem = Problem::new(inputs, elem, head_dim);
        move |client| problem.backward(client, route)
    });
    if route == Route::Mma {
        backward.computes(2.5 * flops);
    } else {
        backward.only_on(&[90]);
    }
}
