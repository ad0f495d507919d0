//! The step after the backward: norm of the gradient, clipping, AdamW; experts' products.

use internevo_kernels::adamw::cube::{Plan, State, step};
use internevo_kernels::adamw::{Segment, Update};
use internevo_kernels::cube::{BF16, ElemType, F16, F32};
use internevo_kernels::grad_norm::{Limits, cube as grad_norm};
use internevo_kernels::grouped_gemm::{Shape, cube as grouped};

use super::super::{Calls, Rules, Tensor, type_name};

/// Parameters of one rank's share.
const PARAMETERS: usize = 1 << 28;

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for grad in [F32, BF16, F16] {
        adamw(calls, grad, PARAMETERS, Some(BF16));
        norms(calls, grad);
    }
    adamw(calls, F32, PARAMETERS, None);
    adamw(calls, F32, 1001, Some(F16));
    // The width of an expert in the last is no whole number of 16 bytes.
    let [wide, narrow] = [(8, 4096, 1792), (3, 100, 60)].map(|(experts, d_in, d_out)| Shape { experts, d_in, d_out });
    for (elem, shape) in [(BF16, wide), (F16, wide), (F32, wide), (BF16, narrow)] {
        grouped_gemm(calls, elem, shape);
    }
}

fn adamw(calls: &mut Calls, grad: ElemType, len: usize, copy: Option<ElemType>) {
    let gradient = if grad == F32 { String::new() } else { format!(" {}", type_name(grad)) };
    let copied = match copy {
        Some(BF16) => String::new(),
        Some(other) => format!(", copy {}", type_name(other)),
        None => ", no copy".to_owned(),
    };
    let shape = format!("{len}{gradient}{copied}");
    let rules = Rules::streaming().wide("step_kernel", F32, len);
    let call = calls.add("adamw", grad, shape, rules, move |inputs| {
        let [master, exp_avg, exp_avg_sq] = [(); 3].map(|()| inputs.floats(len, F32));
        let state = State { master, exp_avg, exp_avg_sq, copy: copy.map(|copy| inputs.floats(len, copy)) };
        let gradient = inputs.floats(len, grad);
        let segments = [Segment { range: 0..len, weight_decay: 0.1 }];
        let plan = Plan::new(inputs.client(), &segments, len);
        let update = Update { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, number: 10, grad_scale: 1.0 };
        move |client| step(client, &state, &gradient, &plan, update, None)
    });
    call.moves(len * (6 * F32.size() + copy.map_or(0, |copy| copy.size()) + grad.size()));
}

fn norms(calls: &mut Calls, elem: ElemType) {
    let rules = Rules::streaming().wide("squares_kernel", elem, PARAMETERS);
    let norm = calls.add("grad_norm", elem, PARAMETERS.to_string(), rules, move |inputs| {
        let tensors: Vec<_> = (0..16).map(|_| inputs.floats(PARAMETERS / 16, elem)).collect();
        move |client| {
            let limits = Limits { unscale: 1.0, max_norm: 1.0 };
            drop(grad_norm::norm(client, &tensors.iter().collect::<Vec<_>>(), limits));
        }
    });
    norm.moves(PARAMETERS * elem.size());
    let rules = Rules::streaming().wide("scale_kernel", elem, PARAMETERS);
    calls.add("grad_norm scale_in_place", elem, PARAMETERS.to_string(), rules, move |inputs| {
        let (tensor, factor) = (inputs.floats(PARAMETERS, elem), inputs.floats(1, F32));
        move |client| grad_norm::scale_in_place(client, &[&tensor], &factor)
    });
}

fn grouped_gemm(calls: &mut Calls, elem: ElemType, shape: Shape) {
    const ROWS: usize = 16384;
    let name = format!("{ROWS}×{}×{} in {}", shape.d_in, shape.d_out, shape.experts);
    let wide = [shape.d_in, shape.d_out].iter().all(|width| (width * elem.size()).is_multiple_of(16));
    let rules = match (wide, elem) {
        (false, _) => Rules::compute(),
        (true, F32) => Rules::compute().wide("tiled_kernel", elem, shape.d_in),
        (true, _) => {
            let kernel = "tensor_core_kernel";
            Rules::compute().wide(kernel, elem, shape.d_in).tensor(kernel, Tensor::Hmma)
        }
    };
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
        let call = calls.add(call, elem, &name, rules.clone(), move |inputs| product(inputs, elem, shape));
        if wide {
            call.computes(flops);
        }
    }
}
