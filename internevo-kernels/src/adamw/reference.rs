//! AdamW in plain f64: the oracle of tests and benches.

use super::{Segment, Update};

/// One update of `(master, exp_avg, exp_avg_sq)`.
pub fn step(state: [&mut [f64]; 3], grad: &[f64], segments: &[Segment], update: Update) {
    let Update { lr, beta1, beta2, eps, number, grad_scale } = update;
    let [master, exp_avg, exp_avg_sq] = state;
    for Segment { range, weight_decay } in segments {
        for i in range.clone() {
            let g = grad[i] * f64::from(grad_scale);
            exp_avg[i] = beta1 * exp_avg[i] + (1.0 - beta1) * g;
            exp_avg_sq[i] = beta2 * exp_avg_sq[i] + (1.0 - beta2) * g * g;
            let m = exp_avg[i] / (1.0 - beta1.powf(number as f64));
            let v = exp_avg_sq[i] / (1.0 - beta2.powf(number as f64));
            master[i] -= lr * weight_decay * master[i] + lr * m / (v.sqrt() + eps);
        }
    }
}
