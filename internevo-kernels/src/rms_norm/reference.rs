//! RMSNorm in plain f64: the oracle of tests and benches.

/// `y`, for rows of `weight.len()`.
pub fn forward(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let width = weight.len();
    x.chunks_exact(width)
        .flat_map(|row| {
            let rstd = rstd(row, eps);
            row.iter().zip(weight).map(move |(x, w)| x * rstd * w)
        })
        .collect()
}

/// Gradients `(dx, dw)`.
pub fn backward(x: &[f64], weight: &[f64], eps: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let width = weight.len();
    let (mut dx, mut dw) = (Vec::with_capacity(x.len()), vec![0.0; width]);
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
        let rstd = rstd(x, eps);
        let mean = (0..width).map(|i| dy[i] * weight[i] * x[i] * rstd).sum::<f64>() / width as f64;
        for i in 0..width {
            dw[i] += dy[i] * x[i] * rstd;
            dx.push(rstd * (dy[i] * weight[i] - x[i] * rstd * mean));
        }
    }
    (dx, dw)
}

/// `(y, sum)` with `sum = x + residual` and `y` its norm.
pub fn forward_residual(x: &[f64], residual: &[f64], weight: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let sum: Vec<f64> = x.iter().zip(residual).map(|(x, r)| x + r).collect();
    (forward(&sum, weight, eps), sum)
}

/// Gradients `(d_sum, dw)` for gradients of both outputs; `d_sum` is that of both addends.
pub fn backward_residual(sum: &[f64], weight: &[f64], eps: f64, dy: &[f64], d_sum: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (dx, dw) = backward(sum, weight, eps, dy);
    (dx.iter().zip(d_sum).map(|(a, b)| a + b).collect(), dw)
}

fn rstd(row: &[f64], eps: f64) -> f64 {
    1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt()
}
