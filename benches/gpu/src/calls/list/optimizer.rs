//! The step after the backward: norm of the gradient, clipping, AdamW; experts' products.

use internevo_kernels::adamw::cube::{Plan, State, step};
use internevo_kernels::adamw::{Segment, Update};
use internevo_kernels::cube::{BF16, ElemType, F32};
use internevo_kernels::grad_norm::{Limits, cube as grad_norm};
use internevo_kernels::grouped_gemm::{Shape, cube as grouped};

use super::super::{Calls, Rules, Tensor, type_name};

/// Parameters of one rank's share.
const PARAMETERS: usize = 1 << 28;

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for grad in [F32, BF16] {
        adamw(calls, grad);
    }
    norms(calls);
    for elem in [BF16, F32] {
        grouped_gemm(calls, elem);
    }
}

fn adamw(calls: &mut Calls, grad: ElemType) {
    let shape = if grad == F32 { PARAMETERS.to_string() } else { format!("{PARAMETERS} {}", type_name(grad)) };
    let rules = Rules::streaming().wide("step_kernel", F32, PARAMETERS);
    let call = calls.add("adamw", grad, shape, rules, move |inputs| {
        let [master, exp_avg, exp_avg_sq] = [(); 3].map(|()| inputs.floats(PARAMETERS, F32));
        let state = State { master, exp_avg, exp_avg_sq, copy: Some(inputs.floats(PARAMETERS, BF16)) };
        let gradient = inputs.floats(PARAMETERS, grad);
        let segments = [Segment { range: 0..PARAMETERS, weight_decay: 0.1 }];
        let plan = Plan::new(inputs.client(), &segments, PARAMETERS);
        let update = Update { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, number: 10, grad_scale: 1.0 };
        move |client| step(client, &state, &gradient, &plan, update, None)
    });
    call.moves(PARAMETERS * (6 * F32.size() + BF16.size() + grad.size()));
}

fn norms(calls: &mut Calls) {
    let rules = Rules::streaming().wide("squares_kernel", F32, PARAMETERS);
    let norm = calls.add("grad_norm", F32, PARAMETERS.to_string(), rules, |inputs| {
        let tensors: Vec<_> = (0..16).map(|_| inputs.floats(PARAMETERS / 16, F32)).collect();
        move |client| {
            let limits = Limits { unscale: 1.0, max_norm: 1.0 };
            drop(grad_norm::norm(client, &tensors.iter().collect::<Vec<_>>(), limits));
        }
    });
    norm.moves(PARAMETERS * F32.size());
    let rules = Rules::streaming().wide("scale_kernel", F32, PARAMETERS);
    calls.add("grad_norm scale_in_place", F32, PARAMETERS.to_string(), rules, |inputs| {
        let (tensor, factor) = (inputs.floats(PARAMETERS, F32), inputs.floats(1, F32));
        move |client| grad_norm::scale_in_place(client, &[&tensor], &factor)
    });
}

fn grouped_gemm(calls: &mut Calls, elem: ElemType) {
    const ROWS: usize = 16384;
    let shape = Shape { experts: 8, d_in: 4096, d_out: 1792 };
    let name = format!("{ROWS}×{}×{} in {}", shape.d_in, shape.d_out, shape.experts);
    let rules = |kernel: &'static str| {
        let rules = Rules::compute().wide(kernel, elem, 4096);
        if kernel == "tensor_core_kernel" { rules.tensor(kernel, Tensor::Hmma) } else { rules }
    };
    let kernel = if elem == F32 { "tiled_kernel" } else { "tensor_core_kernel" };
    let flops = 2.0 * (ROWS * shape.d_in * shape.d_out) as f64;
    type Product = fn(&super::super::Inputs<'_>, ElemType, Shape) -> super::super::Prepared;
    let products: [(&str, Product); 3] = [
        ("grouped_gemm forward", |inputs, elem, shape| {
            let (x, weight) = (inputs.floats(ROWS * shape.d_in, elem), inputs.floats(shape.weight_len(), elem));
            let offsets = inputs.offsets(ROWS, shape.experts);
            Box::new(move |client| drop(grouped::forward(client, shape, &x, &weight, &offsets)))
        }),
        ("grouped_gemm backward_input", |inputs, elem, shape| {
            let (dy, weight) = (inputs.floats(ROWS * shape.d_out, elem), inputs.floats(shape.weight_len(), elem));
            let offsets = inputs.offsets(ROWS, shape.experts);
            Box::new(move |client| drop(grouped::backward_input(client, shape, &dy, &weight, &offsets)))
        }),
        ("grouped_gemm backward_weight", |inputs, elem, shape| {
            let (dy, x) = (inputs.floats(ROWS * shape.d_out, elem), inputs.floats(ROWS * shape.d_in, elem));
            let offsets = inputs.offsets(ROWS, shape.experts);
            Box::new(move |client| drop(grouped::backward_weight(client, shape, &dy, &x, &offsets)))
        }),
    ];
    for (call, product) in products {
        calls.add(call, elem, &name, rules(kernel), move |inputs| product(inputs, elem, shape)).computes(flops);
    }
}
