//! Casts between float types.

use internevo_kernels::cube::{BF16, ElemType, F16, F32, cast};

use super::super::{Calls, Rules, type_name};

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F16] {
        casts(calls, elem);
    }
}

fn casts(calls: &mut Calls, elem: ElemType) {
    const LEN: usize = 1 << 26;
    for (from, to) in [(F32, elem), (elem, F32)] {
        let shape = format!("{LEN} from {}", type_name(from));
        // Widening stores 16 bytes at a time and loads half as many.
        let rules = if from == F32 { Rules::streaming().wide("cast_kernel", F32, LEN) } else { Rules::streaming() };
        let call = calls.add("cast", to, shape, rules, move |inputs| {
            let x = inputs.floats(LEN, from);
            move |client| drop(cast(client, &x, to))
        });
        call.moves(LEN * (from.size() + to.size()));
    }
}
