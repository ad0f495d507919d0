//! The portable kernel: a cube makes a 64×64 tile from slices of both operands in shared memory, in f32; each unit keeps a
//! square of it, of strided rows and columns so that neighbours write neighbours.

use super::task::{Problem, task_of_cube};
use crate::cube::{Buffer, Client, ElemType, Machine, address_type};
use cubecl::prelude::*;

/// Rows and columns of a tile.
const TILE: u32 = 64;

/// Elements of the inner dimension in shared memory at a time.
const DEPTH: u32 = 16;

/// Elements between columns of a slice: one more than a tile, so that units on one column meet different banks.
const STRIDE: u32 = TILE + 1;

pub(super) fn launch(
    client: &Client,
    machine: Machine,
    problem: Problem,
    [a, b, offsets, out]: [&Buffer; 4],
    rows: usize,
) {
    let widths = [problem.shape.d_in, problem.shape.d_out].map(|width| machine.vector(a.elem, width));
    let vector = widths[0].min(widths[1]).min(4);
    let side = [16, 8, 4, 2, 1].into_iter().find(|side| side * side <= machine.max_units).unwrap_or(1);
    // SAFETY: a load or store is made only where row, column and inner index are inside the group and the widths, all of which
    // `vector` divides; offsets are taken as at most `rows`.
    unsafe {
        tiled_kernel::launch_unchecked(
            client,
            machine.count(problem.cubes(rows, TILE as usize)),
            CubeDim::new_2d(side, side),
            address_type(&[a, b, out]),
            vector,
            a.arg(),
            b.arg(),
            offsets.arg(),
            out.arg(),
            rows as u32,
            problem,
            side,
            machine.unroll,
            a.elem,
            out.elem,
        );
    }
}

/// Copies the elements `(row, k)` of a tile to `slice[k][row]`, widened to f32, zero outside `row_end` and `k_end`. In `source`
/// neighbours are those along `k` or those along rows.
#[cube]
fn load_slice<F: Float, N: Size>(
    source: &[Vector<F, N>],
    slice: &mut [f32],
    base: usize,
    row: u32,
    row_end: u32,
    k: u32,
    k_end: u32,
    #[comptime] stride: usize,
    #[comptime] along_k: bool,
    #[comptime] units: u32,
) {
    let lanes = N::value();
    let width = comptime!(lanes as u32);
    let loads = comptime!(TILE * DEPTH / width);
    let mut i = UNIT_POS;
    while i < loads {
        let mut r = i / comptime!(DEPTH / width);
        let mut d = (i % comptime!(DEPTH / width)) * width;
        if comptime!(!along_k) {
            d = i / comptime!(TILE / width);
            r = (i % comptime!(TILE / width)) * width;
        }
        let mut value = Vector::<f32, N>::new(0.0f32);
        if row + r < row_end && k + d < k_end {
            let mut element = base + (row + r) as usize * stride + (k + d) as usize;
            if comptime!(!along_k) {
                element = base + (k + d) as usize * stride + (row + r) as usize;
            }
            value = Vector::cast_from(source[element / lanes]);
        }
        #[unroll]
        for lane in 0..lanes {
            if along_k {
                slice[((d + comptime!(lane as u32)) * STRIDE + r) as usize] = value.extract(lane);
            } else {
                slice[(d * STRIDE + r + comptime!(lane as u32)) as usize] = value.extract(lane);
            }
        }
        i += units;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn tiled_kernel<F: Float, O: Float, N: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    offsets: &[u32],
    out: &mut [O],
    rows: u32,
    #[comptime] problem: Problem,
    #[comptime] side: u32,
    #[comptime] unroll: bool,
    #[define(F)] _elem: ElemType,
    #[define(O)] _out_elem: ElemType,
) {
    let task = task_of_cube(offsets, rows, problem, TILE);
    let mut a_slice = Shared::<[f32]>::new_slice(comptime!((STRIDE * DEPTH) as usize));
    let mut b_slice = Shared::<[f32]>::new_slice(comptime!((STRIDE * DEPTH) as usize));
    let (units, own) = (comptime!(side * side), comptime!(TILE / side));
    let n_size = comptime!(problem.n() as u32);
    let b_base = task.expert as usize * comptime!(problem.b_of_expert());
    let mut sums = Array::<f32>::new(comptime!((own * own) as usize));
    #[unroll(unroll)]
    for i in 0..own * own {
        sums[i as usize] = 0.0f32;
    }
    let mut k = task.k;
    while k < task.k_end {
        sync_cube();
        load_slice::<F, N>(
            a,
            &mut a_slice,
            0usize,
            task.m,
            task.m_end,
            k,
            task.k_end,
            problem.a_stride(),
            problem.by_rows(),
            units,
        );
        load_slice::<F, N>(
            b,
            &mut b_slice,
            b_base,
            task.n,
            n_size,
            k,
            task.k_end,
            problem.shape.d_in,
            problem.b_along_k(),
            units,
        );
        sync_cube();
        for depth in 0..DEPTH {
            let at = depth * STRIDE;
            #[unroll(unroll)]
            for i in 0..own {
                let left = a_slice[(at + UNIT_POS_Y + i * side) as usize];
                #[unroll(unroll)]
                for j in 0..own {
                    sums[(i * own + j) as usize] += left * b_slice[(at + UNIT_POS_X + j * side) as usize];
                }
            }
        }
        k += DEPTH;
    }
    let out_base = task.expert as usize * comptime!(problem.out_of_expert());
    #[unroll(unroll)]
    for i in 0..own {
        let m = task.m + UNIT_POS_Y + i * side;
        #[unroll(unroll)]
        for j in 0..own {
            let n = task.n + UNIT_POS_X + j * side;
            if m < task.m_end && n < n_size {
                out[out_base + m as usize * comptime!(problem.n()) + n as usize] =
                    O::cast_from(sums[(i * own + j) as usize]);
            }
        }
    }
}
