//! Losses and the optimizer.

use anyhow::Context as _;
use internevo_kernels::adamw::cube::{Plan, State, step};
use internevo_kernels::adamw::{Segment, Update};
use internevo_kernels::cross_entropy::cpu::Options;
use internevo_kernels::cross_entropy::cube::{Labels, forward_with_gradient};
use internevo_kernels::cross_entropy::reference;
use internevo_kernels::cube::{Buffer, ElemType, F32};
use internevo_kernels::linear::{self, cpu::Shape};
use internevo_kernels::linear_cross_entropy::{cpu::Wanted, cube as head};

use super::{Check, Draw, add as check, error, worst};

/// Adds the checks.
pub fn add(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    cross_entropies(checks, elem, tiny);
    heads(checks, elem, tiny);
    adamw(checks, elem, tiny);
}

fn cross_entropies(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let (tokens, vocab) = if tiny { (9, 131) } else { (2048, 128_256) };
    check(checks, "cross_entropy", elem, format!("{tokens}×{vocab}"), move |client, seed| {
        let (logits, on_gpu) = Draw::new(client, seed).floats(tokens * vocab, elem)?;
        let labels: Vec<i32> = (0..tokens).map(|token| (token * 7919 % vocab) as i32).collect();
        let options = Options { label_smoothing: 0.1, z_loss: 1e-4, scale: 1.0 };
        let rows = forward_with_gradient(client, &on_gpu, vocab, &Labels::new(client, &labels, vocab), options);
        let expected = reference::forward(&logits, vocab, &labels, options).0;
        let found = rows.totals(client)?.loss;
        let gradient = reference::backward(&logits, vocab, &labels, options);
        worst([Ok((found - expected).abs() / expected.abs()), error(client, &on_gpu, &gradient)])
    });
}

/// The fused head in chunks. The f64 products take seconds.
fn heads(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let (tokens, width, vocab) = if tiny { (150, 24, 131) } else { (384, 512, 4096) };
    let shape = Shape { tokens, d_in: width, d_out: vocab };
    let options = Options { label_smoothing: 0.1, z_loss: 1e-4, scale: 1.0 };
    check(checks, "linear_cross_entropy", elem, format!("{tokens}×{width}×{vocab}"), move |client, seed| {
        let mut draw = Draw::new(client, seed);
        let (x, x_gpu) = draw.floats(tokens * width, elem)?;
        // Logits of a deviation of 1, as those of a model: rounding larger ones would be most of the error.
        let (w, w_gpu) = draw.scaled((width as f32).powf(-0.5), vocab * width, elem)?;
        let labels: Vec<i32> = (0..tokens).map(|token| (token * 7919 % vocab) as i32).collect();
        let wanted = Wanted { hidden: true, weight: true };
        let out = head::forward(client, &x_gpu, &w_gpu, width, &labels, options, wanted);
        let logits = linear::reference::forward(shape, &x, &w);
        let expected = reference::forward(&logits, vocab, &labels, options).0;
        let d_logits = reference::backward(&logits, vocab, &labels, options);
        let (dx, dw) = linear::reference::backward(shape, &x, &w, &d_logits);
        let loss = (out.totals(client)?.loss - expected).abs() / expected.abs();
        let (d_hidden, d_weight) = (out.d_hidden.context("wanted")?, out.d_weight.context("wanted")?);
        worst([Ok(loss), error(client, &d_hidden, &dx), error(client, &d_weight, &dw)])
    });
}

/// One update of f32 state from a gradient of type `elem`, against Loshchilov and Hutter's formula in f64.
fn adamw(checks: &mut Vec<Check>, elem: ElemType, tiny: bool) {
    let len = if tiny { 5003 } else { 1 << 24 };
    check(checks, "adamw", elem, len.to_string(), move |client, seed| {
        let mut draw = Draw::new(client, seed);
        let ((p, master), (m, exp_avg)) = (draw.floats(len, F32)?, draw.floats(len, F32)?);
        let (g, gradient) = draw.floats(len, elem)?;
        let v: Vec<f64> = m.iter().map(|m| f64::from((m * m) as f32)).collect();
        let exp_avg_sq = Buffer::from_f32(client, &v.iter().map(|v| *v as f32).collect::<Vec<_>>(), F32);
        let update = Update { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, number: 3, grad_scale: 0.5 };
        let plan = Plan::new(client, &[Segment { range: 0..len, weight_decay: 0.1 }], len);
        let state = State { master, exp_avg, exp_avg_sq, copy: None };
        step(client, &state, &gradient, &plan, update, None);
        let (c1, c2) = (1.0 - update.beta1.powi(3), 1.0 - update.beta2.powi(3));
        let updated = |i: usize| {
            let g = 0.5 * g[i];
            let m = update.beta1 * m[i] + (1.0 - update.beta1) * g;
            let v = update.beta2 * v[i] + (1.0 - update.beta2) * g * g;
            let p = p[i] * (1.0 - update.lr * 0.1);
            p - update.lr * (m / c1) / ((v / c2).sqrt() + update.eps)
        };
        error(client, &state.master, &(0..len).map(updated).collect::<Vec<_>>())
    });
}
