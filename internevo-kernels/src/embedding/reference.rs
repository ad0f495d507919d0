//! Embedding in plain f64: the oracle of tests and benches.

/// Gathers rows of `table` (`width` columns).
pub fn forward(table: &[f64], width: usize, tokens: &[u32]) -> Vec<f64> {
    tokens.iter().flat_map(|token| table[*token as usize * width..][..width].iter().copied()).collect()
}

/// Gradient of the table.
pub fn backward(vocab: usize, width: usize, tokens: &[u32], dy: &[f64]) -> Vec<f64> {
    let mut table = vec![0.0; vocab * width];
    for (t, token) in tokens.iter().enumerate() {
        for i in 0..width {
            table[*token as usize * width + i] += dy[t * width + i];
        }
    }
    table
}
