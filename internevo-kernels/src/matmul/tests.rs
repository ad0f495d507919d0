//! Products of windows and transposes, and their independence of threads.

use super::{Matrix, Output, Threads, multiply, product};
use crate::linear::{cpu::Shape, reference};
use crate::testing::{Random, assert_close, assert_deterministic, wide};

#[test]
fn a_window_is_multiplied_and_its_surroundings_stay() {
    let mut random = Random::fresh();
    let (m, n, k) = (random.between(1, 70), random.between(1, 70), random.between(1, 600));
    let (a, b) = (random.values(m * (k + 3)), random.values(n * k));
    let mut out = vec![9.0; m * (n + 5)];
    let window = Matrix::strided(&a, m, k, k + 3);
    multiply(
        Output::strided(&mut out, m, n, n + 5),
        false,
        2.0,
        window,
        Matrix::new(&b, n, k).transposed(),
        Threads::One,
    );
    multiply(
        Output::strided(&mut out, m, n, n + 5),
        true,
        1.0,
        window,
        Matrix::new(&b, n, k).transposed(),
        Threads::Pool,
    );
    let packed: Vec<f32> = a.chunks_exact(k + 3).flat_map(|row| &row[..k]).copied().collect();
    let exact = reference::forward(Shape { tokens: m, d_in: k, d_out: n }, &wide(&packed), &wide(&b));
    let exact: Vec<f64> = exact.iter().map(|v| 3.0 * v).collect();
    let inside: Vec<f32> = out.chunks_exact(n + 5).flat_map(|row| &row[..n]).copied().collect();
    assert_close("product of a window", &inside, &exact);
    assert!(out.chunks_exact(n + 5).all(|row| row[n..].iter().all(|v| *v == 9.0)));
}

#[test]
fn a_product_has_the_same_bits_for_every_number_of_threads() {
    let mut random = Random::fresh();
    let (m, n, k) = (random.between(100, 700), random.between(100, 700), random.between(1, 900));
    let (a, b) = (random.values(m * k), random.values(n * k));
    assert_deterministic("a · bᵀ", || product(Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed()));
    assert_deterministic("aᵀ · b", || product(Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n)));
}
