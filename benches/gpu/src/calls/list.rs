//! The list.

use internevo_kernels::cube::{BF16, ElemType, F16, F32, cast, reduce::column_sums};
use internevo_kernels::rms_norm;

use super::{Calls, Rules, type_name};

/// Every call of this crate's kernels.
pub fn complete() -> Calls {
    let mut calls = Calls::default();
    for elem in [BF16, F16, F32] {
        casts(&mut calls, elem);
        rms_norms(&mut calls, elem);
    }
    sums(&mut calls);
    calls
}

/// Rows and widths: the micro-batch of an 8B model; a smoke test's; rows that no vector divides. The first is timed.
fn shapes(elem: ElemType) -> &'static [(usize, usize)] {
    match elem {
        F16 => &[(16384, 4096)],
        _ => &[(16384, 4096), (64, 64), (333, 1001)],
    }
}

fn rms_norms(calls: &mut Calls, elem: ElemType) {
    for &(rows, width) in shapes(elem) {
        let (shape, bytes) = (format!("{rows}×{width}"), rows * width * elem.size());
        let rules = Rules::streaming().wide("forward_kernel", elem, width);
        let forward = calls.add("rms_norm forward", elem, &shape, rules, move |inputs| {
            let (x, weight) = (inputs.floats(rows * width, elem), inputs.floats(width, elem));
            move |client| drop(rms_norm::cube::forward(client, &x, &weight, 1e-5))
        });
        forward.moves(2 * bytes);
        let rules = Rules::streaming().wide("backward_kernel", elem, width);
        let backward = calls.add("rms_norm backward", elem, &shape, rules, move |inputs| {
            let [x, dy] = [(); 2].map(|()| inputs.floats(rows * width, elem));
            let (weight, rstd) = (inputs.floats(width, elem), inputs.floats(rows, F32));
            move |client| drop(rms_norm::cube::backward(client, &x, &weight, &rstd, &dy))
        });
        backward.moves(3 * bytes);
    }
}

fn casts(calls: &mut Calls, elem: ElemType) {
    const LEN: usize = 1 << 26;
    if elem == F32 {
        return;
    }
    for (from, to) in [(F32, elem), (elem, F32)] {
        let (rules, shape) = (Rules::streaming().wide("cast_kernel", F32, LEN), format!("{LEN} from {}", type_name(from)));
        let call = calls.add("cast", to, shape, rules, move |inputs| {
            let x = inputs.floats(LEN, from);
            move |client| drop(cast(client, &x, to))
        });
        call.moves(LEN * (from.size() + to.size()));
    }
}

fn sums(calls: &mut Calls) {
    for width in [4096, 1001] {
        calls.add("column_sums", F32, format!("264×{width}"), Rules::streaming(), move |inputs| {
            let matrix = inputs.floats(264 * width, F32);
            move |client| drop(column_sums(client, &matrix, width))
        });
    }
}
