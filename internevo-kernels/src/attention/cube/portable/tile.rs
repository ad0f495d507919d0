//! What forward and backward do with tiles in shared memory: fill them, multiply them, sum weighted rows of them.

use super::{Place, Shape};
use crate::attention::cube::places::Rows;
use cubecl::prelude::*;

/// Fills `count` rows of a tile from the first of `rows` on; those from the stop on are zero. All units of the cube take part.
#[cube]
pub(super) fn load<F: Float, N: Size>(
    source: &[Vector<F, N>],
    tile: &mut [Vector<F, N>],
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] place: Place,
    #[comptime] shape: Shape,
) {
    let loads = comptime!(shape.loads);
    let mut i = UNIT_POS as usize;
    while i < comptime!(count * shape.loads) {
        let (row, column) = (i / loads, i % loads);
        let mut value = Vector::<F, N>::new(F::new(0.0));
        let at = rows.first + row as u32;
        if at < rows.stop {
            value = source[rows.at(at, place) + column];
        }
        tile[row * comptime!(shape.stride()) + column] = value;
        i += comptime!(shape.blocking.units() as usize);
    }
}

/// Row of a tile that a unit owns.
#[cube]
pub(super) fn own_row(i: usize, #[comptime] shape: Shape) -> usize {
    (UNIT_POS as usize / comptime!(shape.blocking.across)) * comptime!(shape.blocking.rows) + i
}

/// Column of a tile that a unit computes: neighbours have neighbouring ones.
#[cube]
pub(super) fn own_column(j: usize, #[comptime] shape: Shape) -> usize {
    UNIT_POS as usize % comptime!(shape.blocking.across) + j * comptime!(shape.blocking.across)
}

/// Dot products of this unit's rows of `own` with its columns, which are rows of `other`.
#[cube]
pub(super) fn products<F: Float, N: Size>(
    own: &[Vector<F, N>],
    other: &[Vector<F, N>],
    sums: &mut Array<f32>,
    #[comptime] shape: Shape,
) {
    let (rows, columns) = comptime!((shape.blocking.rows, shape.blocking.columns));
    let (stride, unroll) = comptime!((shape.stride(), shape.unroll));
    let mut row = Array::<Vector<f32, N>>::new(rows);
    #[unroll(unroll)]
    for i in 0..comptime!(shape.blocking.scores()) {
        sums[i] = 0.0f32;
    }
    for c in 0..comptime!(shape.loads) {
        #[unroll(unroll)]
        for i in 0..rows {
            row[i] = Vector::cast_from(own[own_row(i, shape) * stride + c]);
        }
        #[unroll(unroll)]
        for j in 0..columns {
            let column = Vector::<f32, N>::cast_from(other[own_column(j, shape) * stride + c]);
            #[unroll(unroll)]
            for i in 0..rows {
                let product = row[i] * column;
                #[unroll]
                for lane in 0..N::value() {
                    sums[i * columns + j] += product.extract(lane);
                }
            }
        }
    }
}

/// Adds to this unit's part of its rows the rows of `other`, weighted by `weights[own row][other row]`.
#[cube]
pub(super) fn add_weighted<F: Float, N: Size>(
    weights: &[f32],
    other: &[Vector<F, N>],
    sums: &mut Array<Vector<f32, N>>,
    #[comptime] shape: Shape,
) {
    let (rows, others) = comptime!((shape.blocking.rows, shape.blocking.others()));
    let (stride, span, unroll) = comptime!((shape.stride(), shape.span(), shape.unroll));
    let mut weight = Array::<f32>::new(rows);
    for n in 0..others {
        #[unroll(unroll)]
        for i in 0..rows {
            weight[i] = weights[own_row(i, shape) * others + n];
        }
        #[unroll(unroll)]
        for j in 0..span {
            let column = own_column(j, shape);
            if column < comptime!(shape.loads) {
                let value = Vector::<f32, N>::cast_from(other[n * stride + column]);
                #[unroll(unroll)]
                for i in 0..rows {
                    sums[i * span + j] += value * Vector::new(weight[i]);
                }
            }
        }
    }
}

/// Writes this unit's part of its rows, which are `rows`, each times its factor.
#[cube]
pub(super) fn store<F: Float, N: Size>(
    sums: &Array<Vector<f32, N>>,
    factors: &Array<f32>,
    target: &mut [Vector<F, N>],
    rows: &Rows,
    #[comptime] place: Place,
    #[comptime] shape: Shape,
) {
    let (span, unroll) = comptime!((shape.span(), shape.unroll));
    #[unroll(unroll)]
    for i in 0..comptime!(shape.blocking.rows) {
        let row = rows.first + own_row(i, shape) as u32;
        if row < rows.stop {
            let start = rows.at(row, place);
            let factor = Vector::<f32, N>::new(factors[i]);
            #[unroll(unroll)]
            for j in 0..span {
                let column = own_column(j, shape);
                if column < comptime!(shape.loads) {
                    target[start + column] = Vector::cast_from(sums[i * span + j] * factor);
                }
            }
        }
    }
}
