//! What lies between the products of a decoder layer.

use internevo_kernels::cube::{BF16, ElemType, F16, F32};
use internevo_kernels::rms_norm::cube as rms_norm;

use super::super::{Calls, Rules};

/// Added to mean squares.
const EPS: f32 = 1e-5;

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F16, F32] {
        for &(rows, width) in shapes(elem) {
            rms_norms(calls, elem, rows, width);
        }
    }
}

/// Rows and widths: the micro-batch of an 8B model, a smoke test's, rows that no vector divides.
fn shapes(elem: ElemType) -> &'static [(usize, usize)] {
    match elem {
        F16 => &[(16384, 4096)],
        _ => &[(16384, 4096), (64, 64), (333, 1001)],
    }
}

fn rms_norms(calls: &mut Calls, elem: ElemType, rows: usize, width: usize) {
    let (shape, bytes) = (format!("{rows}×{width}"), rows * width * elem.size());
    let rules = Rules::streaming().wide("forward_kernel", elem, width);
    let forward = calls.add("rms_norm forward", elem, &shape, rules, move |inputs| {
        let (x, weight) = (inputs.floats(rows * width, elem), inputs.floats(width, elem));
        move |client| drop(rms_norm::forward(client, &x, &weight, EPS))
    });
    forward.moves(2 * bytes);
    let rules = rules_of_backward(elem, width);
    let backward = calls.add("rms_norm backward", elem, &shape, rules, move |inputs| {
        let [x, dy] = [(); 2].map(|()| inputs.floats(rows * width, elem));
        let (weight, rstd) = (inputs.floats(width, elem), inputs.floats(rows, F32));
        move |client| drop(rms_norm::backward(client, &x, &weight, &rstd, &dy))
    });
    backward.moves(3 * bytes);
}

/// Units of the backward hold their part of three operands from the first pass over a row to the second.
fn rules_of_backward(elem: ElemType, width: usize) -> Rules {
    Rules::streaming().registers(80).wide("backward_kernel", elem, width)
}
