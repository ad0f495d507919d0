//! What lies between the products of a decoder layer: norms, rotary embedding, SwiGLU; and the embedding table.

use internevo_kernels::cube::{BF16, ElemType, F16, F32};
use internevo_kernels::rms_norm::cube as rms_norm;
use internevo_kernels::rotary::cpu::Direction;
use internevo_kernels::rotary::cube::{DeviceTable, rotate};
use internevo_kernels::rotary::{RotaryHeads, RotaryTable};
use internevo_kernels::{QkvLayout, VocabShard, embedding, swiglu};

use super::super::{Calls, Rules};

/// Added to mean squares.
const EPS: f32 = 1e-5;
/// Tokens of a micro-batch.
const TOKENS: usize = 16384;

/// Adds the calls.
pub fn add(calls: &mut Calls) {
    for elem in [BF16, F16, F32] {
        for &(rows, width) in shapes(elem) {
            rms_norms(calls, elem, rows, width);
        }
    }
    for elem in [BF16, F16, F32] {
        for &(rows, width) in shapes(elem) {
            residuals(calls, elem, rows, width);
        }
        for (rows, width) in [(TOKENS, 14336), (333, 1001)] {
            swiglus(calls, elem, rows, width);
        }
        rotaries(calls, elem, RotaryHeads::all(40, 128), &format!("{TOKENS}×32+8×128"));
        let packed = QkvLayout { kv_heads: 8, q_per_kv: 4, head_dim: 96 };
        rotaries(calls, elem, packed.into(), &format!("{TOKENS}×8×(4+1+1)×96"));
        rotaries(calls, elem, RotaryHeads::all(5, 36), &format!("{TOKENS}×5×36"));
        for (vocab, width) in [(128_256, 4096), (1001, 333)] {
            embeddings(calls, elem, vocab, width);
        }
    }
}

/// Rows and widths: the micro-batch of an 8B model, a smoke test's, rows that no vector divides; the widths of larger models, up to
/// rows that do not stay in the registers of a cube, one of them of no whole vector.
fn shapes(elem: ElemType) -> &'static [(usize, usize)] {
    match elem {
        F16 => &[(16384, 4096), (16384, 8192)],
        _ => &[(16384, 4096), (64, 64), (333, 1001), (16384, 6144), (16384, 8192), (8192, 16384), (333, 16383)],
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

fn residuals(calls: &mut Calls, elem: ElemType, rows: usize, width: usize) {
    let (shape, bytes) = (format!("{rows}×{width}"), rows * width * elem.size());
    let rules = Rules::streaming().wide("forward_kernel", elem, width);
    let forward = calls.add("rms_norm forward_residual", elem, &shape, rules, move |inputs| {
        let [x, residual] = [(); 2].map(|()| inputs.floats(rows * width, elem));
        let weight = inputs.floats(width, elem);
        move |client| drop(rms_norm::forward_residual(client, &x, &residual, &weight, EPS))
    });
    forward.moves(4 * bytes);
    let rules = rules_of_backward(elem, width);
    let backward = calls.add("rms_norm backward_residual", elem, &shape, rules, move |inputs| {
        let [sum, dy, d_sum] = [(); 3].map(|()| inputs.floats(rows * width, elem));
        let (weight, rstd) = (inputs.floats(width, elem), inputs.floats(rows, F32));
        move |client| drop(rms_norm::backward_residual(client, &sum, &weight, &rstd, dy.clone(), Some(&d_sum)))
    });
    backward.moves(4 * bytes);
}

fn swiglus(calls: &mut Calls, elem: ElemType, rows: usize, width: usize) {
    let (len, shape) = (rows * width, format!("{rows}×{width}"));
    let rules = Rules::streaming().wide("forward_kernel", elem, len);
    let forward = calls.add("swiglu forward", elem, &shape, rules, move |inputs| {
        let [gate, up] = [(); 2].map(|()| inputs.floats(len, elem));
        move |client| drop(swiglu::cube::forward(client, &gate, &up))
    });
    forward.moves(3 * len * elem.size());
    let rules = Rules::streaming().wide("backward_kernel", elem, len);
    let backward = calls.add("swiglu backward", elem, &shape, rules, move |inputs| {
        let [gate, up, dy] = [(); 3].map(|()| inputs.floats(len, elem));
        move |client| drop(swiglu::cube::backward(client, &gate, &up, dy.clone()))
    });
    backward.moves(5 * len * elem.size());
}

fn rotaries(calls: &mut Calls, elem: ElemType, heads: RotaryHeads, shape: &str) {
    for (name, direction) in [("rotary", Direction::Forward), ("rotary back", Direction::Backward)] {
        let rules = Rules::streaming().wide("rotate_kernel", elem, heads.head_dim / 2);
        let call = calls.add(name, elem, shape, rules, move |inputs| {
            let x = inputs.floats(TOKENS * heads.width(), elem);
            let positions = inputs.indices(TOKENS, TOKENS as u32);
            let table = DeviceTable::new(inputs.client(), &RotaryTable::new(heads.head_dim, 10_000.0, TOKENS));
            move |client| rotate(client, &x, heads, &positions, &table, direction)
        });
        call.moves(2 * TOKENS * heads.groups * heads.rotated * heads.head_dim * elem.size());
    }
}

fn embeddings(calls: &mut Calls, elem: ElemType, vocab: usize, width: usize) {
    let (shape, tokens) = (format!("{TOKENS} of {vocab}×{width}"), move || {
        (0..TOKENS).map(|token| (token * 7919 % vocab) as u32).collect::<Vec<_>>()
    });
    let rules = Rules::streaming().wide("forward_kernel", elem, width);
    calls.add("embedding forward", elem, &shape, rules, move |inputs| {
        let (table, tokens, shard) = (inputs.floats(vocab * width, elem), tokens(), VocabShard::whole(vocab));
        move |client| drop(embedding::cube::forward(client, &table, &shard, width, &tokens))
    });
    let rules = Rules::streaming().wide("backward_kernel", elem, width);
    calls.add("embedding backward", elem, &shape, rules, move |inputs| {
        let (dy, tokens, shard) = (inputs.floats(TOKENS * width, elem), tokens(), VocabShard::whole(vocab));
        move |client| drop(embedding::cube::backward(client, &shard, width, &tokens, &dy, elem))
    });
}

/// Units of the backward hold their part of three operands from the first pass over a row to the second. The widest rows take
/// all registers that 512 units have.
fn rules_of_backward(elem: ElemType, width: usize) -> Rules {
    let registers = if width > 8192 { 128 } else { 80 };
    Rules::streaming().registers(registers).wide("backward_kernel", elem, width)
}
