//! The prepass of the backward: `rowsum(dy · output)` per query and head, less the gradient of the log-sum-exp.

use super::Attention;
use crate::cube::reduce::vector_sum;
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;

/// `[T_q, H]`, f32. Both add to the gradient of a score: `p · (dp - delta)`.
pub(super) fn delta(
    client: &Client,
    output: &Buffer,
    dy: &Buffer,
    d_lse: Option<&Buffer>,
    attention: &Attention<'_>,
) -> Buffer {
    let machine = Machine::of(client);
    let width = attention.layout.head_dim;
    let rows = output.len / width;
    let delta = Buffer::empty(client, rows, F32);
    let vector = machine.vector(output.elem, width);
    let loads = width / vector;
    let lanes = (loads.next_power_of_two() as u32).min(32).min(machine.max_units);
    let down = (machine.max_units / lanes).min(256 / lanes).max(1);
    // SAFETY: rows at and beyond `rows` are not read; inside a row every index is below `loads`.
    unsafe {
        delta_kernel::launch_unchecked(
            client,
            machine.count(rows.div_ceil(down as usize)),
            CubeDim::new_2d(lanes, down),
            address_type(&[output, dy]),
            vector,
            output.arg(),
            dy.arg(),
            d_lse.unwrap_or(&delta).arg(),
            delta.arg(),
            rows,
            loads,
            lanes,
            down,
            d_lse.is_some(),
            output.elem,
        );
    }
    delta
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn delta_kernel<F: Float, N: Size>(
    output: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    d_lse: &[f32],
    delta: &mut [f32],
    rows: usize,
    #[comptime] loads: usize,
    #[comptime] lanes: u32,
    #[comptime] down: u32,
    #[comptime] with_lse: bool,
    #[define(F)] _elem: ElemType,
) {
    let row = CUBE_POS * down as usize + UNIT_POS_Y as usize;
    let mut parts = Shared::<[f32]>::new_slice(comptime!((lanes * down) as usize));
    let mut sum = Vector::<f32, N>::new(0.0f32);
    if row < rows {
        for step in 0..comptime!(loads.div_ceil(lanes as usize)) {
            let i = step * lanes as usize + UNIT_POS_X as usize;
            if i < loads {
                let at = row * loads + i;
                sum += Vector::<f32, N>::cast_from(output[at]) * Vector::<f32, N>::cast_from(dy[at]);
            }
        }
    }
    parts[UNIT_POS as usize] = vector_sum::<N>(sum);
    sync_cube();
    if UNIT_POS_X == 0 && row < rows {
        let mut total = 0.0f32;
        for lane in 0..lanes {
            total += parts[(UNIT_POS_Y * lanes + lane) as usize];
        }
        if with_lse {
            total -= d_lse[row];
        }
        delta[row] = total;
    }
}
