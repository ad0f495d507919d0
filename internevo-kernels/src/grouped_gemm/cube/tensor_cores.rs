//! The kernel for tensor cores: a cube of eight planes makes a 128×128 tile from slices of both operands in shared memory, a
//! plane a 64×32 part of it in 16×16×16 products. The next slices are on their way to registers while these are multiplied.

use super::task::{Problem, task_of_cube};
use super::{Shape, is_half};
use crate::cube::{Buffer, Client, ElemType, Machine, address_type};
use cubecl::cmma::{self, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

/// Rows and columns of a tile.
const TILE: u32 = 128;

/// Elements of the inner dimension in shared memory at a time.
const DEPTH: u32 = 32;

/// Elements added to each line of a slice, so that the lines of a fragment meet different banks.
const PAD: u32 = 8;

/// Elements of a load: 16 bytes.
const WIDTH: u32 = 8;

/// Units of a cube, in eight planes: two down, four across.
const UNITS: u32 = 256;
const PLANE: u32 = 32;
const PLANES_ACROSS: u32 = 4;

/// Fragments of a plane, down and across, and their side.
const DOWN: usize = 4;
const ACROSS: usize = 2;
const SIDE: u32 = 16;

/// Loads of one unit for a slice.
const LOADS: u32 = TILE * DEPTH / WIDTH / UNITS;

/// Whether this kernel serves the machine and sizes.
pub(super) fn fit(machine: Machine, shape: Shape, elem: ElemType) -> bool {
    let wide = [shape.d_in, shape.d_out].into_iter().all(|width| machine.vector(elem, width) == WIDTH as usize);
    let cube = machine.plane == PLANE && machine.max_units >= UNITS && machine.shared_bytes >= 48 << 10;
    machine.tensor_cores && is_half(elem) && wide && cube
}

pub(super) fn launch(
    client: &Client,
    machine: Machine,
    problem: Problem,
    [a, b, offsets, out]: [&Buffer; 4],
    rows: usize,
) {
    // SAFETY: a load or store is made only where row, column and inner index are inside the group and the widths, which `WIDTH`
    // divides; offsets are taken as at most `rows`.
    unsafe {
        tensor_core_kernel::launch_unchecked(
            client,
            machine.count(problem.cubes(rows, TILE as usize)),
            CubeDim::new_1d(UNITS),
            address_type(&[a, b, out]),
            WIDTH as usize,
            a.arg(),
            b.arg(),
            offsets.arg(),
            out.arg(),
            rows as u32,
            problem,
            a.elem,
            out.elem,
        );
    }
}

/// Elements of a line of a slice: lines run along `k`, or along the tile.
fn line(along_k: bool) -> u32 {
    if along_k { DEPTH + PAD } else { TILE + PAD }
}

/// Loads that a slice has room for.
fn slice_loads(along_k: bool) -> usize {
    let lines = if along_k { TILE } else { DEPTH };
    (lines * line(along_k) / WIDTH) as usize
}

/// Where the load `i` of a slice is in its tile: row and inner index.
#[cube]
fn place(i: u32, #[comptime] along_k: bool) -> (u32, u32) {
    if comptime!(along_k) {
        (i / comptime!(DEPTH / WIDTH), (i % comptime!(DEPTH / WIDTH)) * WIDTH)
    } else {
        ((i % comptime!(TILE / WIDTH)) * WIDTH, i / comptime!(TILE / WIDTH))
    }
}

/// The load `i` of a slice, zero outside `row_end` and `k_end`.
#[cube]
fn fetch<F: Float, N: Size>(
    source: &[Vector<F, N>],
    base: usize,
    i: u32,
    row: u32,
    row_end: u32,
    k: u32,
    k_end: u32,
    #[comptime] stride: usize,
    #[comptime] along_k: bool,
) -> Vector<F, N> {
    let (r, d) = place(i, along_k);
    let mut value = Vector::<F, N>::new(F::from_int(0));
    if row + r < row_end && k + d < k_end {
        let mut element = base + (row + r) as usize * stride + (k + d) as usize;
        if comptime!(!along_k) {
            element = base + (k + d) as usize * stride + (row + r) as usize;
        }
        value = source[element / comptime!(WIDTH as usize)];
    }
    value
}

/// Where the load `i` of a slice goes in shared memory, in loads.
#[cube]
fn shared_place(i: u32, #[comptime] along_k: bool) -> usize {
    let (r, d) = place(i, along_k);
    if comptime!(along_k) {
        ((r * comptime!(line(along_k)) + d) / WIDTH) as usize
    } else {
        ((d * comptime!(line(along_k)) + r) / WIDTH) as usize
    }
}

/// The start of the fragment of `SIDE` rows from `row` on at inner index `d`, in loads.
#[cube]
fn fragment_place(row: u32, d: u32, #[comptime] along_k: bool) -> usize {
    if comptime!(along_k) {
        ((row * comptime!(line(along_k)) + d) / WIDTH) as usize
    } else {
        ((d * comptime!(line(along_k)) + row) / WIDTH) as usize
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn tensor_core_kernel<F: Float, O: Float, N: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    offsets: &[u32],
    out: &mut [Vector<O, N>],
    rows: u32,
    #[comptime] problem: Problem,
    #[define(F)] _elem: ElemType,
    #[define(O)] _out_elem: ElemType,
) {
    let task = task_of_cube(offsets, rows, problem, TILE);
    let (a_along_k, b_along_k) = (comptime!(problem.by_rows()), comptime!(problem.b_along_k()));
    let (a_stride, b_stride) = (comptime!(problem.a_stride()), comptime!(problem.shape.d_in));
    let n_size = comptime!(problem.n() as u32);
    let b_base = task.expert as usize * comptime!(problem.b_of_expert());
    let mut a_slice = Shared::<[Vector<F, N>]>::new_slice(comptime!(slice_loads(a_along_k)));
    let mut b_slice = Shared::<[Vector<F, N>]>::new_slice(comptime!(slice_loads(b_along_k)));
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(DOWN * ACROSS) {
        sums.push(cmma::Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            16usize,
            16usize,
            16usize,
            MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    let plane = UNIT_POS_X / PLANE;
    let plane_m = (plane / PLANES_ACROSS) * comptime!(DOWN as u32 * SIDE);
    let plane_n = (plane % PLANES_ACROSS) * comptime!(ACROSS as u32 * SIDE);
    let mut a_next = Array::<Vector<F, N>>::new(comptime!(LOADS as usize));
    let mut b_next = Array::<Vector<F, N>>::new(comptime!(LOADS as usize));
    let mut k = task.k;
    #[unroll]
    for load in 0..LOADS {
        let i = load * UNITS + UNIT_POS_X;
        a_next[load as usize] = fetch::<F, N>(a, 0usize, i, task.m, task.m_end, k, task.k_end, a_stride, a_along_k);
        b_next[load as usize] = fetch::<F, N>(b, b_base, i, task.n, n_size, k, task.k_end, b_stride, b_along_k);
    }
    while k < task.k_end {
        sync_cube();
        #[unroll]
        for load in 0..LOADS {
            let i = load * UNITS + UNIT_POS_X;
            a_slice[shared_place(i, a_along_k)] = a_next[load as usize];
            b_slice[shared_place(i, b_along_k)] = b_next[load as usize];
        }
        sync_cube();
        k += DEPTH;
        #[unroll]
        for load in 0..LOADS {
            let i = load * UNITS + UNIT_POS_X;
            a_next[load as usize] = fetch::<F, N>(a, 0usize, i, task.m, task.m_end, k, task.k_end, a_stride, a_along_k);
            b_next[load as usize] = fetch::<F, N>(b, b_base, i, task.n, n_size, k, task.k_end, b_stride, b_along_k);
        }
        #[unroll]
        for step in 0..comptime!(DEPTH / SIDE) {
            multiply_step::<F, N>(&a_slice, &b_slice, &mut sums, plane_m, plane_n, step * SIDE, a_along_k, b_along_k);
        }
    }
    // A fragment is one load of each unit of the plane.
    let mut scratch = Shared::<[Vector<f32, N>]>::new_slice(comptime!(UNITS as usize));
    let own = (plane * PLANE) as usize;
    let lane = UNIT_POS_X % PLANE;
    let out_base = task.expert as usize * comptime!(problem.out_of_expert());
    #[unroll]
    for down in 0..DOWN {
        #[unroll]
        for across in 0..ACROSS {
            let fragment = scratch.slice_mut(own, own + comptime!(PLANE as usize));
            cmma::store(fragment, sums.index(comptime!(down * ACROSS + across)), SIDE, MatrixLayout::RowMajor);
            sync_plane();
            let m = task.m + plane_m + comptime!(down as u32 * SIDE) + lane / comptime!(SIDE / WIDTH);
            let n = task.n + plane_n + comptime!(across as u32 * SIDE) + (lane % comptime!(SIDE / WIDTH)) * WIDTH;
            if m < task.m_end && n < n_size {
                let element = out_base + m as usize * comptime!(problem.n()) + n as usize;
                out[element / comptime!(WIDTH as usize)] = Vector::cast_from(scratch[own + lane as usize]);
            }
            sync_plane();
        }
    }
}

/// Adds the products at inner indices `d..d + SIDE` of the slices to the sums of a plane.
#[cube]
fn multiply_step<F: Float, N: Size>(
    a_slice: &[Vector<F, N>],
    b_slice: &[Vector<F, N>],
    sums: &mut Sequence<cmma::Matrix<f32>>,
    plane_m: u32,
    plane_n: u32,
    d: u32,
    #[comptime] a_along_k: bool,
    #[comptime] b_along_k: bool,
) {
    let a_layout = comptime!(if a_along_k { MatrixLayout::RowMajor } else { MatrixLayout::ColMajor });
    let b_layout = comptime!(if b_along_k { MatrixLayout::ColMajor } else { MatrixLayout::RowMajor });
    let mut b_parts = Sequence::<cmma::Matrix<F>>::new();
    #[unroll]
    for across in 0..ACROSS {
        let start = fragment_place(plane_n + comptime!(across as u32 * SIDE), d, b_along_k);
        let part = b_slice.slice(start, b_slice.len());
        // SAFETY: loaded right below.
        let mut b_part =
            unsafe { cmma::Matrix::<F>::uninitialized(MatrixIdent::B, 16usize, 16usize, 16usize, b_layout) };
        cmma::load(&mut b_part, part, comptime!(line(b_along_k)));
        b_parts.push(b_part);
    }
    #[unroll]
    for down in 0..DOWN {
        let start = fragment_place(plane_m + comptime!(down as u32 * SIDE), d, a_along_k);
        let part = a_slice.slice(start, a_slice.len());
        // SAFETY: loaded right below.
        let mut a_part =
            unsafe { cmma::Matrix::<F>::uninitialized(MatrixIdent::A, 16usize, 16usize, 16usize, a_layout) };
        cmma::load(&mut a_part, part, comptime!(line(a_along_k)));
        #[unroll]
        for across in 0..ACROSS {
            let sum = sums.index(comptime!(down * ACROSS + across));
            cmma::execute(&a_part, b_parts.index(across), sum, sum);
        }
    }
}
