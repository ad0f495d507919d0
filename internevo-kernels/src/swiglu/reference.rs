//! SwiGLU in plain f64: the oracle of tests and benches.

/// `silu(gate) · up`.
pub fn forward(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

/// Gradients `(d_gate, d_up)`.
pub fn backward(gate: &[f64], up: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let pair = |((g, u), dy): ((&f64, &f64), &f64)| {
        let sigmoid = 1.0 / (1.0 + (-g).exp());
        (dy * u * sigmoid * (1.0 + g * (1.0 - sigmoid)), dy * g * sigmoid)
    };
    gate.iter().zip(up).zip(dy).map(pair).unzip()
}
