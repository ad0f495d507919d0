//! Cross-entropy in plain f64: the oracle of tests and benches. The scale of [`Options`] takes no part.

use super::IGNORE_INDEX;
use super::cpu::Options;

/// `(loss, nll)` summed over labelled positions.
pub fn forward(logits: &[f64], vocab: usize, labels: &[i32], options: Options) -> (f64, f64) {
    let smoothing = options.label_smoothing;
    let mut sums = (0.0, 0.0);
    for (row, label) in logits.chunks_exact(vocab).zip(labels).filter(|(_, label)| **label != IGNORE_INDEX) {
        let log_sum_exp = log_sum_exp(row);
        let nll = log_sum_exp - row[*label as usize];
        let even = log_sum_exp - row.iter().sum::<f64>() / vocab as f64;
        let loss = (1.0 - smoothing) * nll + smoothing * even + options.z_loss * log_sum_exp.powi(2);
        sums = (sums.0 + loss, sums.1 + nll);
    }
    sums
}

/// Gradient of the summed loss.
pub fn backward(logits: &[f64], vocab: usize, labels: &[i32], options: Options) -> Vec<f64> {
    let smoothing = options.label_smoothing;
    let mut gradient = vec![0.0; logits.len()];
    for ((row, out), label) in logits.chunks_exact(vocab).zip(gradient.chunks_exact_mut(vocab)).zip(labels) {
        if *label == IGNORE_INDEX {
            continue;
        }
        let log_sum_exp = log_sum_exp(row);
        for (i, (x, g)) in row.iter().zip(out).enumerate() {
            let target = if i == *label as usize { 1.0 - smoothing } else { 0.0 };
            let probability = (x - log_sum_exp).exp();
            *g = probability * (1.0 + 2.0 * options.z_loss * log_sum_exp) - target - smoothing / vocab as f64;
        }
    }
    gradient
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    maximum + row.iter().map(|x| (x - maximum).exp()).sum::<f64>().ln()
}
