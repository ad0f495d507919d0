//! RMSNorm on a cubecl device: a cube per row forward, a cube per block of rows backward.

use crate::cube::reduce::{column_sums, cube_sum, scratch_len, vector_sum};
use crate::cube::{Buffer, Client, F32, Machine, address_type};
use cubecl::prelude::*;

/// `y` (of `x`'s type) and the reciprocal root mean squares (f32, one per row) for rows of `weight.len` elements.
///
/// # Panics
/// If `x` is no whole number of rows or the types differ.
pub fn forward(client: &Client, x: &Buffer, weight: &Buffer, eps: f32) -> (Buffer, Buffer) {
    let (rows, width) = shape(x, weight);
    let y = Buffer::empty(client, x.len, x.elem);
    let rstd = Buffer::empty(client, rows, F32);
    let machine = Machine::of(client);
    let vector = machine.vector(x.elem, width);
    let units = machine.units(width, vector);
    // SAFETY: a cube without a row stops; inside its row every index is below `width`.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            machine.count(rows),
            CubeDim::new_1d(units),
            address_type(&[x]),
            vector,
            x.arg(),
            weight.arg(),
            y.arg(),
            rstd.arg(),
            eps,
            rows as u32,
            width / vector,
            units,
            machine.plane,
            x.elem,
        );
    }
    (y, rstd)
}

/// Gradients `(dx, dw)`, `dx` of `x`'s type and `dw` f32, from the `rstd` of [`forward`]. The sums of `dw` over rows are taken
/// in a fixed order.
///
/// # Panics
/// If sizes or types differ from the forward's.
pub fn backward(client: &Client, x: &Buffer, weight: &Buffer, rstd: &Buffer, dy: &Buffer) -> (Buffer, Buffer) {
    let (rows, width) = shape(x, weight);
    assert_eq!((dy.len, dy.elem, rstd.len), (x.len, x.elem, rows), "RMSNorm: gradient");
    let machine = Machine::of(client);
    let vector = machine.vector(x.elem, width);
    let units = machine.units(width, vector);
    let rows_per_cube = rows.div_ceil(machine.blocks()).max(1);
    let cubes = rows.div_ceil(rows_per_cube);
    let dx = Buffer::empty(client, x.len, x.elem);
    let partial = Buffer::empty(client, cubes * width, F32);
    // SAFETY: rows at and beyond `rows` are skipped; inside a row every index is below `width`; each cube owns one row of
    // `partial`.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            machine.count(cubes),
            CubeDim::new_1d(units),
            address_type(&[x, &partial]),
            vector,
            x.arg(),
            weight.arg(),
            rstd.arg(),
            dy.arg(),
            dx.arg(),
            partial.arg(),
            rows as u32,
            rows_per_cube as u32,
            width / vector,
            units,
            machine.plane,
            machine.unroll,
            x.elem,
        );
    }
    (dx, column_sums(client, &partial, width))
}

/// Rows and their width.
fn shape(x: &Buffer, weight: &Buffer) -> (usize, usize) {
    let width = weight.len;
    assert!(width > 0 && x.len.is_multiple_of(width), "RMSNorm: {} elements are no rows of {width}", x.len);
    assert_eq!(x.elem, weight.elem, "RMSNorm: types of input and weight");
    (x.len / width, width)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    rstd_out: &mut [f32],
    eps: f32,
    rows: u32,
    #[comptime] loads: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[define(F)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let unit = UNIT_POS_X as usize;
    let start = row * loads;
    let mut square = Vector::<f32, N>::new(0.0f32);
    let mut i = unit;
    while i < loads {
        let value = Vector::<f32, N>::cast_from(x[start + i]);
        square += value * value;
        i += units as usize;
    }
    let sum = cube_sum(vector_sum::<N>(square), &mut scratch, units, plane);
    let lanes = N::value();
    let rstd = 1.0f32 / (sum / comptime!((loads * lanes) as f32) + eps).sqrt();
    if UNIT_POS_X == 0 {
        rstd_out[row] = rstd;
    }
    let mut i = unit;
    while i < loads {
        let value = Vector::<f32, N>::cast_from(x[start + i]) * Vector::new(rstd);
        y[start + i] = Vector::cast_from(value * Vector::<f32, N>::cast_from(weight[i]));
        i += units as usize;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    rstd_in: &[f32],
    dy: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    partial: &mut [Vector<f32, N>],
    rows: u32,
    rows_per_cube: u32,
    #[comptime] loads: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[comptime] unroll: bool,
    #[define(F)] _elem: ElemType,
) {
    let block = CUBE_POS;
    let first = block * rows_per_cube as usize;
    if first >= rows as usize {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let unit = UNIT_POS_X as usize;
    let lanes = N::value();
    let own = comptime!(loads.div_ceil(units as usize));
    // What this unit holds of the row: normalised input, gradient times weight; and its part of dw over the rows.
    let mut normal = Array::<Vector<f32, N>>::new(own);
    let mut scaled = Array::<Vector<f32, N>>::new(own);
    let mut dw = Array::<Vector<f32, N>>::new(own);
    #[unroll(unroll)]
    for k in 0..own {
        dw[k] = Vector::new(0.0f32);
    }
    for step in 0..rows_per_cube {
        let row = first + step as usize;
        if row < rows as usize {
            let rstd = Vector::<f32, N>::new(rstd_in[row]);
            let start = row * loads;
            let mut dot = Vector::<f32, N>::new(0.0f32);
            #[unroll(unroll)]
            for k in 0..own {
                let i = unit + k * units as usize;
                if i < loads {
                    let gradient = Vector::<f32, N>::cast_from(dy[start + i]);
                    normal[k] = Vector::<f32, N>::cast_from(x[start + i]) * rstd;
                    scaled[k] = gradient * Vector::<f32, N>::cast_from(weight[i]);
                    dw[k] += gradient * normal[k];
                    dot += scaled[k] * normal[k];
                }
            }
            let sum = cube_sum(vector_sum::<N>(dot), &mut scratch, units, plane);
            let mean = Vector::<f32, N>::new(sum / comptime!((loads * lanes) as f32));
            #[unroll(unroll)]
            for k in 0..own {
                let i = unit + k * units as usize;
                if i < loads {
                    dx[start + i] = Vector::cast_from((scaled[k] - normal[k] * mean) * rstd);
                }
            }
        }
    }
    #[unroll(unroll)]
    for k in 0..own {
        let i = unit + k * units as usize;
        if i < loads {
            partial[block * loads + i] = dw[k];
        }
    }
}
