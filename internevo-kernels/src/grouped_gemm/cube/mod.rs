//! The layers of experts on a cubecl device, one launch for all of them. Cubes find their group in the offsets on the device,
//! so the host need not know how tokens were routed. Tiles go through tensor cores where there are any and rows are loaded 16
//! bytes at a time, else through a portable kernel.

mod task;
mod tensor_cores;
mod tiled;

use super::Shape;
use crate::cube::{BF16, Buffer, Client, ElemType, F16, F32, Machine};
use task::{Kind, Problem};

/// `y`, `[T, d_out]` of `x`'s type, of `x`, `[T, d_in]`. `offsets` is u32 `[experts + 1]`, sorted from 0 to T.
///
/// # Panics
/// If lengths or types do not fit; so do the others here.
pub fn forward(client: &Client, shape: Shape, x: &Buffer, weight: &Buffer, offsets: &Buffer) -> Buffer {
    assert_eq!((weight.len, weight.elem), (shape.weight_len(), x.elem), "grouped_gemm: weight of {shape:?}");
    product(client, Kind::Forward, shape, [x, weight], offsets, rows(x, shape.d_in))
}

/// `dx`, `[T, d_in]` of `dy`'s type, from `dy`, `[T, d_out]`.
pub fn backward_input(client: &Client, shape: Shape, dy: &Buffer, weight: &Buffer, offsets: &Buffer) -> Buffer {
    assert_eq!((weight.len, weight.elem), (shape.weight_len(), dy.elem), "grouped_gemm: weight of {shape:?}");
    product(client, Kind::BackwardInput, shape, [dy, weight], offsets, rows(dy, shape.d_out))
}

/// `dw`, f32 `[experts, d_out, d_in]`, from `dy` and `x`; zero for an expert without rows.
pub fn backward_weight(client: &Client, shape: Shape, dy: &Buffer, x: &Buffer, offsets: &Buffer) -> Buffer {
    let rows = rows(dy, shape.d_out);
    assert_eq!((x.len, x.elem), (rows * shape.d_in, dy.elem), "grouped_gemm: input of {rows} rows");
    product(client, Kind::BackwardWeight, shape, [dy, x], offsets, rows)
}

fn rows(matrix: &Buffer, width: usize) -> usize {
    assert!(
        width > 0 && matrix.len.is_multiple_of(width),
        "grouped_gemm: {} elements are no rows of {width}",
        matrix.len
    );
    matrix.len / width
}

fn product(client: &Client, kind: Kind, shape: Shape, [a, b]: [&Buffer; 2], offsets: &Buffer, rows: usize) -> Buffer {
    assert_eq!(offsets.len, shape.experts + 1, "grouped_gemm: offsets of {} experts", shape.experts);
    let problem = Problem { kind, shape };
    let (len, elem) = match kind {
        Kind::BackwardWeight => (shape.weight_len(), F32),
        Kind::Forward | Kind::BackwardInput => (rows * problem.n(), a.elem),
    };
    let out = Buffer::empty(client, len, elem);
    let machine = Machine::of(client);
    if len > 0 {
        match tensor_cores::fit(machine, shape, a.elem) {
            true => tensor_cores::launch(client, machine, problem, [a, b, offsets, &out], rows),
            false => tiled::launch(client, machine, problem, [a, b, offsets, &out], rows),
        }
    }
    out
}

/// Whether tensor cores multiply this type into f32.
fn is_half(elem: ElemType) -> bool {
    elem == F16 || elem == BF16
}
