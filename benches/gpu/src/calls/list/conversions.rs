//! Casts between float types, alone and on the way into and out of buckets for communication.

use internevo_kernels::cube::bucket::{gather, scatter};
use internevo_kernels::cube::{BF16, ElemType, F16, F32, cast};

use super::super::{Calls, Rules, type_name};

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F16] {
        for len in [1 << 26, 1001] {
            casts(calls, elem, len);
        }
    }
    for elem in [BF16, F16, F32] {
        buckets(calls, elem);
    }
}

fn casts(calls: &mut Calls, elem: ElemType, len: usize) {
    for (from, to) in [(F32, elem), (elem, F32)] {
        let shape = format!("{len} from {}", type_name(from));
        // Widening stores 16 bytes at a time and loads half as many.
        let rules = if from == F32 { Rules::streaming().wide("cast_kernel", F32, len) } else { Rules::streaming() };
        let call = calls.add("cast", to, shape, rules, move |inputs| {
            let x = inputs.floats(len, from);
            move |client| drop(cast(client, &x, to))
        });
        call.moves(len * (from.size() + to.size()));
    }
}

fn buckets(calls: &mut Calls, elem: ElemType) {
    // Tensors of a decoder layer, norms included.
    const LENGTHS: [usize; 5] = [4096 * 6144, 4096, 4096 * 14336, 4096, 1001];
    let bytes = LENGTHS.iter().sum::<usize>() * (F32.size() + elem.size());
    let rules = Rules::streaming();
    let into = calls.add("bucket gather", elem, "5 tensors from f32", rules.clone(), move |inputs| {
        let tensors = LENGTHS.map(|len| inputs.floats(len, F32));
        move |client| drop(gather(client, &tensors.each_ref(), elem))
    });
    into.moves(bytes);
    let out = calls.add("bucket scatter", elem, "5 tensors to f32", rules, move |inputs| {
        let tensors = LENGTHS.map(|len| inputs.floats(len, F32));
        let bucket = inputs.floats(LENGTHS.iter().sum(), elem);
        move |client| scatter(client, &bucket, &tensors.each_ref())
    });
    out.moves(bytes);
}
