//! Rotation on a cubecl device, in place. A unit takes one 16-byte load of the lower and one of the upper half of several heads
//! of a row, for which it holds the cosines and sines in registers.

use super::cpu::Direction;
use super::{RotaryHeads, RotaryTable};
use crate::cube::{Buffer, Client, ElemType, Flat, Machine, address_type};
use cubecl::prelude::*;

/// Heads of a row that a unit rotates: the cosines and sines are read once for them.
const HEADS_PER_UNIT: usize = 4;

/// A [`RotaryTable`] in the memory of a device (f32).
#[derive(Clone, Debug)]
pub struct DeviceTable {
    head_dim: usize,
    positions: usize,
    cos: Buffer,
    sin: Buffer,
}

impl DeviceTable {
    /// Copies `table` to the device.
    pub fn new(client: &Client, table: &RotaryTable) -> Self {
        let [cos, sin] = [&table.cos, &table.sin].map(|values| Buffer::from_f32(client, values, crate::cube::F32));
        Self { head_dim: table.head_dim, positions: table.positions(), cos, sin }
    }
}

/// Rotates the heads of every row of `x` (`[T, heads.width()]`) in place, by the angles of `positions` (u32, one per row), or
/// back. A row whose position is not in the table comes out as NaN.
///
/// # Panics
/// If lengths do not fit or the table has another head width.
pub fn rotate(
    client: &Client,
    x: &Buffer,
    heads: impl Into<RotaryHeads>,
    positions: &Buffer,
    table: &DeviceTable,
    direction: Direction,
) {
    let heads = heads.into();
    let (rows, width) = (positions.len, heads.width());
    assert_eq!(x.len, rows * width, "rotary: {rows} positions of width {width}");
    assert_eq!(heads.head_dim, table.head_dim, "rotary: width of a head in the table and in the input");
    let machine = Machine::of(client);
    let vector = machine.vector(x.elem, heads.head_dim / 2);
    let half = heads.head_dim / 2 / vector;
    let blocks = (heads.groups * heads.rotated).div_ceil(HEADS_PER_UNIT);
    let Flat { loads: items, count, dim, .. } = machine.flat(rows * blocks * half, 1);
    let sign = if direction == Direction::Forward { 1.0f32 } else { -1.0 };
    // SAFETY: a unit beyond the last item does nothing; heads beyond the last of a row are skipped; the table is read at
    // positions that it holds.
    unsafe {
        rotate_kernel::launch_unchecked(
            client,
            count,
            dim,
            address_type(&[x, &table.cos]),
            vector,
            x.arg(),
            positions.arg(),
            table.cos.arg(),
            table.sin.arg(),
            items,
            table.positions as u32,
            sign,
            f32::NAN,
            half,
            heads.groups,
            heads.rotated,
            heads.passed,
            machine.unroll,
            x.elem,
        );
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn rotate_kernel<F: Float, N: Size>(
    x: &mut [Vector<F, N>],
    positions: &[u32],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    items: usize,
    known: u32,
    sign: f32,
    missing: f32,
    #[comptime] half: usize,
    #[comptime] groups: usize,
    #[comptime] rotated: usize,
    #[comptime] passed: usize,
    #[comptime] unroll: bool,
    #[define(F)] _elem: ElemType,
) {
    let item = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if item >= items {
        terminate!();
    }
    let heads = comptime!(groups * rotated);
    let blocks = comptime!(heads.div_ceil(HEADS_PER_UNIT));
    let column = item % half;
    let block = item / half % blocks;
    let row = item / comptime!(half * blocks);
    let position = positions[row];
    let mut c = Vector::<f32, N>::new(missing);
    let mut s = Vector::<f32, N>::new(missing);
    if position < known {
        c = cos[position as usize * half + column];
        s = sin[position as usize * half + column] * Vector::new(sign);
    }
    let start = row * comptime!(groups * (rotated + passed) * 2 * half);
    #[unroll(unroll)]
    for k in 0..HEADS_PER_UNIT {
        let head = block * HEADS_PER_UNIT + k;
        if head < heads {
            let place = head / rotated * comptime!(rotated + passed) + head % rotated;
            let low = start + place * comptime!(2 * half) + column;
            let high = low + half;
            let a = Vector::<f32, N>::cast_from(x[low]);
            let b = Vector::<f32, N>::cast_from(x[high]);
            x[low] = Vector::cast_from(a * c - b * s);
            x[high] = Vector::cast_from(b * c + a * s);
        }
    }
}
