//! Norms, rotary embedding, SwiGLU, casts.

use internevo_kernels::cube::{Buffer, ElemType, F32, cast};
use internevo_kernels::rotary::cpu::Direction;
use internevo_kernels::rotary::cube::{DeviceTable, rotate};
use internevo_kernels::rotary::{self, RotaryTable};
use internevo_kernels::{QkvLayout, rms_norm, swiglu};

use super::{Check, Draw, add as check, error, wide, worst};

const EPS: f32 = 1e-5;

/// Adds the checks.
pub fn add(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    rms_norms(checks, elem, tiny);
    residuals(checks, elem, tiny);
    swiglus(checks, elem, tiny);
    rotaries(checks, elem, tiny);
    casts(checks, elem, tiny);
}

fn rows(tiny: bool) -> (usize, usize) {
    if tiny { (33, 96) } else { (16384, 4096) }
}

fn rms_norms(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let (rows, width) = rows(tiny);
    check(checks, "rms_norm", elem, format!("{rows}×{width}"), move |client, seed| {
        let mut draw = Draw::new(client, seed);
        let ((x, x_gpu), (w, w_gpu)) = (draw.floats(rows * width, elem)?, draw.floats(width, elem)?);
        let (dy, dy_gpu) = draw.floats(rows * width, elem)?;
        let (y_gpu, rstd) = rms_norm::cube::forward(client, &x_gpu, &w_gpu, EPS);
        let (dx_gpu, dw_gpu) = rms_norm::cube::backward(client, &x_gpu, &w_gpu, &rstd, &dy_gpu);
        let y = rms_norm::reference::forward(&x, &w, f64::from(EPS));
        let (dx, dw) = rms_norm::reference::backward(&x, &w, f64::from(EPS), &dy);
        worst([error(client, &y_gpu, &y), error(client, &dx_gpu, &dx), error(client, &dw_gpu, &dw)])
    });
}

fn residuals(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let (rows, width) = rows(tiny);
    check(checks, "rms_norm with residual", elem, format!("{rows}×{width}"), move |client, seed| {
        let mut draw = Draw::new(client, seed);
        let ((x, x_gpu), (r, r_gpu)) = (draw.floats(rows * width, elem)?, draw.floats(rows * width, elem)?);
        let ((w, w_gpu), (dy, dy_gpu)) = (draw.floats(width, elem)?, draw.floats(rows * width, elem)?);
        let (d_sum, d_sum_gpu) = draw.floats(rows * width, elem)?;
        let normed = rms_norm::cube::forward_residual(client, &x_gpu, &r_gpu, &w_gpu, EPS);
        let (norm_gpu, rstd) = (&normed.sum, &normed.rstd);
        let (dx_gpu, dw_gpu) =
            rms_norm::cube::backward_residual(client, norm_gpu, &w_gpu, rstd, dy_gpu, Some(&d_sum_gpu));
        let exact: Vec<f64> = x.iter().zip(&r).map(|(x, r)| x + r).collect();
        // What follows sees the sum as it was rounded.
        let sum = wide(client, &normed.sum)?;
        let y = rms_norm::reference::forward(&sum, &w, f64::from(EPS));
        let (mut dx, dw) = rms_norm::reference::backward(&sum, &w, f64::from(EPS), &dy);
        dx.iter_mut().zip(&d_sum).for_each(|(dx, d)| *dx += d);
        let forward = [error(client, &normed.sum, &exact), error(client, &normed.y, &y)];
        worst([worst(forward), error(client, &dx_gpu, &dx), error(client, &dw_gpu, &dw)])
    });
}

fn swiglus(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let len = if tiny { 1003 } else { 4096 * 14336 };
    check(checks, "swiglu", elem, len.to_string(), move |client, seed| {
        let mut draw = Draw::new(client, seed);
        let ((gate, gate_gpu), (up, up_gpu)) = (draw.floats(len, elem)?, draw.floats(len, elem)?);
        let (dy, dy_gpu) = draw.floats(len, elem)?;
        let y_gpu = swiglu::cube::forward(client, &gate_gpu, &up_gpu);
        let (d_gate_gpu, d_up_gpu) = swiglu::cube::backward(client, &gate_gpu, &up_gpu, dy_gpu);
        let (d_gate, d_up) = swiglu::reference::backward(&gate, &up, &dy);
        let y = swiglu::reference::forward(&gate, &up);
        worst([error(client, &y_gpu, &y), error(client, &d_gate_gpu, &d_gate), error(client, &d_up_gpu, &d_up)])
    });
}

fn rotaries(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    const BASE: f64 = 10_000.0;
    let (tokens, kv_heads, q_per_kv, head_dim) = if tiny { (37, 2, 2, 16) } else { (8192, 8, 4, 128) };
    let layout = QkvLayout { kv_heads, q_per_kv, head_dim };
    let shape = format!("{tokens}×{kv_heads}×({q_per_kv}+2)×{head_dim}");
    check(checks, "rotary", elem, shape, move |client, seed| {
        let (x, x_gpu) = Draw::new(client, seed).floats(tokens * layout.qkv_width(), elem)?;
        let positions: Vec<u32> = (0..tokens as u32).rev().collect();
        let table = DeviceTable::new(client, &RotaryTable::new(head_dim, BASE, tokens));
        rotate(client, &x_gpu, layout, &Buffer::from_u32(client, &positions), &table, Direction::Forward);
        let frequencies = rotary::reference::frequencies(head_dim, BASE);
        let forward = error(client, &x_gpu, &rotary::reference::rotate(&x, layout, &positions, &frequencies, 1.0));
        rotate(client, &x_gpu, layout, &Buffer::from_u32(client, &positions), &table, Direction::Backward);
        worst([forward, error(client, &x_gpu, &x)])
    });
}

fn casts(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let len = if tiny { 1001 } else { 1 << 26 };
    check(checks, "cast", elem, format!("{len} from f32"), move |client, seed| {
        let (x, x_gpu) = Draw::new(client, seed).floats(len, F32)?;
        error(client, &cast(client, &x_gpu, elem), &x)
    });
}
