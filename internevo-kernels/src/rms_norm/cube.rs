//! RMSNorm on a cubecl device, alone or with the addition of a residual before it: a cube per row forward, a cube per block of
//! rows backward.
//!
//! Each unit keeps its part of a row in registers, as the 16-byte loads that it came in, so memory is read once. A row too wide
//! for the registers of a cube is read a second time.

#![allow(clippy::collapsible_if, reason = "one is decided when the kernel is compiled, the other when it runs")]

use crate::cube::reduce::{column_sums, cube_sum, end_group, scratch_len, vector_sum};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;

/// Bytes of a row that a unit of the forward keeps in registers at most.
const KEPT_FORWARD: usize = 128;

/// Bytes of input, gradient and weight gradient together that a unit of the backward keeps in registers at most. With more, the
/// cubes of a multiprocessor are too few to hide the wait of one another; the second read of a row hits the cache.
const KEPT_BACKWARD: usize = 96;

/// Columns of the weight gradient, and loads of them, that a unit adds up in registers at most.
const SUMMED: [usize; 2] = [32, 8];

/// Units of a cube of the backward at most: with more, each gets too few registers. Below that a unit takes one load of a row,
/// since with two it needs so many registers that half as many units are at work.
const BACKWARD_UNITS: u32 = 512;

/// What the forward with a residual gives.
#[derive(Clone, Debug)]
pub struct Normed {
    /// The normalised sum times the weight.
    pub y: Buffer,
    /// `x + residual`, rounded to its type: what was normalised.
    pub sum: Buffer,
    /// Reciprocal root mean squares (f32, one per row).
    pub rstd: Buffer,
}

/// `y` (of `x`'s type) and the reciprocal root mean squares (f32, one per row) for rows of `weight.len` elements.
///
/// # Panics
/// If `x` is no whole number of rows or the types differ.
pub fn forward(client: &Client, x: &Buffer, weight: &Buffer, eps: f32) -> (Buffer, Buffer) {
    let normed = launch_forward(client, x, None, weight, eps);
    (normed.y, normed.rstd)
}

/// [`forward`] of `x + residual`, in one pass.
///
/// # Panics
/// If `x` is no whole number of rows or sizes or types differ.
pub fn forward_residual(client: &Client, x: &Buffer, residual: &Buffer, weight: &Buffer, eps: f32) -> Normed {
    assert_eq!((residual.len, residual.elem), (x.len, x.elem), "RMSNorm: input and residual");
    launch_forward(client, x, Some(residual), weight, eps)
}

/// Gradients `(dx, dw)`, `dx` of `x`'s type and `dw` f32, from the `rstd` of [`forward`]. The sums of `dw` over rows are taken
/// in a fixed order.
///
/// # Panics
/// If sizes or types differ from the forward's.
pub fn backward(client: &Client, x: &Buffer, weight: &Buffer, rstd: &Buffer, dy: &Buffer) -> (Buffer, Buffer) {
    backward_residual(client, x, weight, rstd, dy.clone(), None)
}

/// [`backward`] after [`forward_residual`], in one pass: `d_sum`, the gradient that the sum has from elsewhere, is added to `dx`,
/// which is the gradient of both addends. It is written over `dy` if nobody else holds that.
///
/// # Panics
/// If sizes or types differ from the forward's.
pub fn backward_residual(
    client: &Client,
    sum: &Buffer,
    weight: &Buffer,
    rstd: &Buffer,
    dy: Buffer,
    d_sum: Option<&Buffer>,
) -> (Buffer, Buffer) {
    let (x, (rows, width)) = (sum, shape(sum, weight));
    assert_eq!((dy.len, dy.elem, rstd.len), (x.len, x.elem, rows), "RMSNorm: gradient");
    assert!(d_sum.is_none_or(|d| (d.len, d.elem) == (x.len, x.elem)), "RMSNorm: gradient of the sum");
    let overwrite = dy.is_exclusive();
    let machine = Machine::of(client);
    let plan = Plan::backward(&machine, x.elem, width);
    let cubes = rows.min(machine.resident(plan.units));
    let rows_per_cube = rows.div_ceil(cubes.max(1)).max(1);
    let cubes = rows.div_ceil(rows_per_cube);
    let dx = if overwrite { dy.clone() } else { Buffer::empty(client, x.len, x.elem) };
    let partial = Buffer::empty(client, cubes * width, F32);
    // SAFETY: rows at and beyond `rows` are skipped; inside a row every index is below `width`; each cube owns one row of
    // `partial`. `dx` may be `dy` itself: a unit writes an element after its last read of it, and no other unit reads it.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            machine.count(cubes),
            CubeDim::new_1d(plan.units),
            address_type(&[x, &partial]),
            plan.vector,
            x.arg(),
            weight.arg(),
            rstd.arg(),
            dy.arg(),
            d_sum.unwrap_or(x).arg(),
            if overwrite { BufferArg::alias(BACKWARD_DY, dy.len) } else { dx.arg() },
            partial.arg(),
            rows,
            rows_per_cube as u32,
            plan.loads,
            plan.units,
            machine.plane,
            plan.own * (2 * plan.load_bytes + plan.vector * F32.size()) <= KEPT_BACKWARD,
            plan.own * plan.vector <= SUMMED[0] && plan.own <= SUMMED[1],
            d_sum.is_some(),
            machine.unroll,
            x.elem,
        );
    }
    (dx, column_sums(client, &partial, width))
}

/// Places of `y` and `dy` among the buffers of their kernels, for the arguments that may be the same memory.
const FORWARD_Y: usize = 3;
const BACKWARD_DY: usize = 3;

fn launch_forward(client: &Client, x: &Buffer, residual: Option<&Buffer>, weight: &Buffer, eps: f32) -> Normed {
    let (rows, width) = shape(x, weight);
    let y = Buffer::empty(client, x.len, x.elem);
    let sum = residual.map(|_| Buffer::empty(client, x.len, x.elem));
    let rstd = Buffer::empty(client, rows, F32);
    let machine = Machine::of(client);
    let plan = Plan::forward(&machine, x.elem, width);
    // SAFETY: a cube without a row stops; inside its row every index is below `width`. Without a residual the kernel touches
    // neither of the two arguments that stand in for it.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            machine.count(rows),
            CubeDim::new_1d(plan.units),
            address_type(&[x]),
            plan.vector,
            x.arg(),
            residual.unwrap_or(x).arg(),
            weight.arg(),
            y.arg(),
            sum.as_ref().map_or_else(|| BufferArg::alias(FORWARD_Y, y.len), Buffer::arg),
            rstd.arg(),
            eps,
            rows,
            plan.loads,
            plan.units,
            machine.plane,
            plan.own * plan.load_bytes <= KEPT_FORWARD,
            residual.is_some(),
            machine.unroll,
            x.elem,
        );
    }
    Normed { y, sum: sum.unwrap_or_else(|| x.clone()), rstd }
}

/// How a row is divided among the units of a cube.
struct Plan {
    /// Elements per load.
    vector: usize,
    /// Loads of a row.
    loads: usize,
    units: u32,
    /// Loads of the row that a unit takes.
    own: usize,
    /// Bytes of registers that a load fills.
    load_bytes: usize,
}

impl Plan {
    fn forward(machine: &Machine, elem: ElemType, width: usize) -> Self {
        let vector = machine.vector(elem, width);
        Self::with(machine.units(width, vector), vector, elem, width)
    }

    fn backward(machine: &Machine, elem: ElemType, width: usize) -> Self {
        let vector = machine.vector(elem, width);
        // As many units as a row of twice the width has: one load for each.
        let units = machine.units(2 * width, vector).min(BACKWARD_UNITS);
        Self::with(units, vector, elem, width)
    }

    fn with(units: u32, vector: usize, elem: ElemType, width: usize) -> Self {
        let loads = width / vector;
        Self { vector, loads, units, own: loads.div_ceil(units as usize), load_bytes: (vector * elem.size()).max(4) }
    }
}

/// Rows and their width.
fn shape(x: &Buffer, weight: &Buffer) -> (usize, usize) {
    let width = weight.len;
    assert!(width > 0 && x.len.is_multiple_of(width), "RMSNorm: {} elements are no rows of {width}", x.len);
    assert_eq!(x.elem, weight.elem, "RMSNorm: types of input and weight");
    (x.len / width, width)
}

/// One load of what is normalised: `x`, or its sum with the residual, which is written down on the way.
#[cube]
fn input<F: Float, N: Size>(
    x: &[Vector<F, N>],
    residual: &[Vector<F, N>],
    sum: &mut [Vector<F, N>],
    i: usize,
    #[comptime] fused: bool,
) -> Vector<F, N> {
    if comptime!(fused) {
        let value = Vector::<f32, N>::cast_from(x[i]) + Vector::<f32, N>::cast_from(residual[i]);
        let value = Vector::<F, N>::cast_from(value);
        sum[i] = value;
        value
    } else {
        x[i]
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    residual: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    sum: &mut [Vector<F, N>],
    rstd_out: &mut [f32],
    eps: f32,
    rows: usize,
    #[comptime] loads: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[comptime] kept: bool,
    #[comptime] fused: bool,
    #[comptime] unroll: bool,
    #[define(F)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let unit = UNIT_POS_X as usize;
    let start = row * loads;
    let own = comptime!(loads.div_ceil(units as usize));
    let lanes = N::value();
    let unroll = comptime!(unroll && kept);
    let mut values = Array::<Vector<F, N>>::new(comptime!(if kept { own } else { 1 }));
    let mut square = Vector::<f32, N>::new(0.0f32);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll(unroll)]
    for k in 0..own {
        let i = unit + k * units as usize;
        if i < loads {
            let value = input::<F, N>(x, residual, sum, start + i, fused);
            if comptime!(kept) {
                values[k] = value;
            }
            let value = Vector::<f32, N>::cast_from(value);
            square += value * value;
        }
        end_group::<N>(&mut square, &mut squares, k, own);
    }
    let total = cube_sum(vector_sum::<N>(squares + square), &mut scratch, units, plane);
    let rstd = 1.0f32 / (total / comptime!((loads * lanes) as f32) + eps).sqrt();
    if UNIT_POS_X == 0 {
        rstd_out[row] = rstd;
    }
    let rstd = Vector::<f32, N>::new(rstd);
    #[unroll(unroll)]
    for k in 0..own {
        let i = unit + k * units as usize;
        if i < loads {
            let value = if comptime!(kept) {
                values[k]
            } else if comptime!(fused) {
                sum[start + i]
            } else {
                x[start + i]
            };
            let normal = Vector::<f32, N>::cast_from(value) * rstd;
            y[start + i] = Vector::cast_from(normal * Vector::<f32, N>::cast_from(weight[i]));
        }
    }
}

/// With `kept`, a unit holds its loads of a row's input and gradient; with `summed`, its columns of the
/// weight gradient, which are otherwise added up in `partial`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    rstd_in: &[f32],
    dy: &[Vector<F, N>],
    d_sum: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    partial: &mut [Vector<f32, N>],
    rows: usize,
    rows_per_cube: u32,
    #[comptime] loads: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[comptime] kept: bool,
    #[comptime] summed: bool,
    #[comptime] fused: bool,
    #[comptime] unroll: bool,
    #[define(F)] _elem: ElemType,
) {
    let block = CUBE_POS;
    let first = block * rows_per_cube as usize;
    if first >= rows {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let unit = UNIT_POS_X as usize;
    let own = comptime!(loads.div_ceil(units as usize));
    let lanes = N::value();
    let unroll = comptime!(unroll && (kept || summed));
    let slots = comptime!(if kept { own } else { 1 });
    let mut inputs = Array::<Vector<F, N>>::new(slots);
    let mut gradients = Array::<Vector<F, N>>::new(slots);
    let mut dw = Array::<Vector<f32, N>>::new(comptime!(if summed { own } else { 1 }));
    #[unroll(unroll)]
    for k in 0..own {
        let i = unit + k * units as usize;
        if comptime!(summed) {
            dw[k] = Vector::new(0.0f32);
        }
        if comptime!(!summed) {
            if i < loads {
                partial[block * loads + i] = Vector::new(0.0f32);
            }
        }
    }
    for step in 0..rows_per_cube {
        let row = first + step as usize;
        if row < rows {
            let rstd = Vector::<f32, N>::new(rstd_in[row]);
            let start = row * loads;
            if comptime!(kept) {
                #[unroll(unroll)]
                for k in 0..own {
                    let i = unit + k * units as usize;
                    if i < loads {
                        inputs[k] = x[start + i];
                        gradients[k] = dy[start + i];
                    }
                }
            }
            let mut dot = Vector::<f32, N>::new(0.0f32);
            let mut dots = Vector::<f32, N>::new(0.0f32);
            #[unroll(unroll)]
            for k in 0..own {
                let i = unit + k * units as usize;
                if i < loads {
                    let value = if comptime!(kept) { inputs[k] } else { x[start + i] };
                    let gradient = if comptime!(kept) { gradients[k] } else { dy[start + i] };
                    let normal = Vector::<f32, N>::cast_from(value) * rstd;
                    let gradient = Vector::<f32, N>::cast_from(gradient);
                    dot += gradient * Vector::<f32, N>::cast_from(weight[i]) * normal;
                    if comptime!(summed) {
                        dw[k] += gradient * normal;
                    } else {
                        partial[block * loads + i] += gradient * normal;
                    }
                }
                end_group::<N>(&mut dot, &mut dots, k, own);
            }
            let total = cube_sum(vector_sum::<N>(dots + dot), &mut scratch, units, plane);
            let mean = Vector::<f32, N>::new(total / comptime!((loads * lanes) as f32));
            #[unroll(unroll)]
            for k in 0..own {
                let i = unit + k * units as usize;
                if i < loads {
                    let value = if comptime!(kept) { inputs[k] } else { x[start + i] };
                    let gradient = if comptime!(kept) { gradients[k] } else { dy[start + i] };
                    let normal = Vector::<f32, N>::cast_from(value) * rstd;
                    let scaled = Vector::<f32, N>::cast_from(gradient) * Vector::<f32, N>::cast_from(weight[i]);
                    let mut sum = (scaled - normal * mean) * rstd;
                    if comptime!(fused) {
                        sum += Vector::<f32, N>::cast_from(d_sum[start + i]);
                    }
                    dx[start + i] = Vector::cast_from(sum);
                }
            }
        }
    }
    if comptime!(summed) {
        #[unroll(unroll)]
        for k in 0..own {
            let i = unit + k * units as usize;
            if i < loads {
                partial[block * loads + i] = dw[k];
            }
        }
    }
}
