//! Products of windows and transposes, and their independence of threads.

use super::{Matrix, Output, Threads, multiply, product};
use crate::linear::{cpu::Shape, reference};
use crate::testing::{Random, assert_close, assert_deterministic, bits, wide};

#[test]
fn a_window_is_multiplied_and_its_surroundings_stay() {
    let mut random = Random::fresh();
    let (m, n, k) = (random.between(1, 70), random.between(1, 70), random.between(1, 600));
    let (a, b) = (random.values(m * (k + 3)), random.values(n * k));
    let mut out = vec![9.0; m * (n + 5)];
    let window = Matrix::strided(&a, m, k, k + 3);
    let b = Matrix::new(&b, n, k).transposed();
    multiply(Output::strided(&mut out, m, n, n + 5), false, window, b, Threads::One);
    multiply(Output::strided(&mut out, m, n, n + 5), true, window, b, Threads::Pool);
    let packed: Vec<f32> = a.chunks_exact(k + 3).flat_map(|row| &row[..k]).copied().collect();
    let exact = reference::forward(Shape { tokens: m, d_in: k, d_out: n }, &wide(&packed), &wide(b.data));
    let exact: Vec<f64> = exact.iter().map(|v| 2.0 * v).collect();
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

/// `data` as a matrix of `rows` x `columns`, kept as its transpose if `transposed`.
fn oriented(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
    match transposed {
        true => Matrix::new(data, columns, rows).transposed(),
        false => Matrix::new(data, rows, columns),
    }
}

const ORIENTATIONS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn products_of_any_shape_and_orientation_agree_with_f64() {
    let mut random = Random::fresh();
    for (a_transposed, b_transposed) in ORIENTATIONS.repeat(2) {
        let (m, n, k) = (random.between(1, 90), random.between(1, 1200), random.between(1, 1300));
        println!("{m}x{n}x{k}");
        let (a, b) = (random.values(m * k), random.values(k * n));
        let (a, b) = (oriented(&a, m, k, a_transposed), oriented(&b, k, n, b_transposed));
        let at = |m: &Matrix<'_>, i: usize, j: usize| f64::from(m.data[i * m.row_stride + j * m.column_stride]);
        let exact: Vec<f64> =
            (0..m * n).map(|place| (0..k).map(|i| at(&a, place / n, i) * at(&b, i, place % n)).sum()).collect();
        assert_close("product", &product(a, b), &exact);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_element_has_the_same_bits_in_a_part_of_the_product() {
    let mut random = Random::fresh();
    for (a_transposed, b_transposed) in ORIENTATIONS {
        let (m, n, k) = (random.between(30, 90), random.between(50, 700), random.between(8, 1300));
        let (a, b) = (random.values(m * k), random.values(k * n));
        let (a, b) = (oriented(&a, m, k, a_transposed), oriented(&b, k, n, b_transposed));
        let (row, column) = (random.between(0, m - 20), random.between(0, n - 40));
        let (rows, columns) = (random.between(8, 20), random.between(8, 40));
        let (a_part, b_part) = (a.window(row, 0, rows, k), b.window(0, column, k, columns));
        if super::tiles::suit(a_part, b_part) {
            let (whole, part) = (product(a, b), product(a_part, b_part));
            let same = |(i, part): (usize, &[f32])| bits(part) == bits(&whole[(row + i) * n + column..][..columns]);
            assert!(
                part.chunks_exact(columns).enumerate().all(same),
                "{rows}x{columns} at {row},{column} of {m}x{n}x{k}"
            );
        }
    }
}

#[test]
fn a_nan_reaches_its_row_and_no_other() {
    let mut a = vec![1.0; 40 * 17];
    a[5 * 17 + 3] = f32::NAN;
    let y = product(Matrix::new(&a, 40, 17), Matrix::new(&[1.0; 17 * 33], 17, 33));
    assert!(y.chunks_exact(33).enumerate().all(|(t, row)| row.iter().all(|v| v.is_nan() == (t == 5))));
}
