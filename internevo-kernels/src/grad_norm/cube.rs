//! Norm and scaling on a cubecl device: a block of elements per cube, then one cube over the blocks. Everything stays on the
//! device: nobody waits for a norm before the next launch.

use super::{Limits, TINY};
use crate::cube::lanes::is_finite;
use crate::cube::reduce::{cube_sum, end_group, scratch_len, vector_sum};
use crate::cube::{Buffer, Client, ElemType, F32, Flat, Machine, address_type};
use cubecl::prelude::*;

/// Elements whose squares one cube adds up.
const BLOCK: usize = 64 * 1024;

/// What is known of a gradient, on the device.
#[derive(Clone, Debug)]
pub struct Norm {
    /// f32 `[1]`: the norm after unscaling; NaN if an element is not finite, infinite beyond 1.8e19.
    pub norm: Buffer,
    /// f32 `[1]`: what to multiply the gradient by; NaN if the norm is not finite.
    pub factor: Buffer,
    /// f32 `[1]`: elements that are NaN or infinite.
    pub not_finite: Buffer,
}

/// The norm of all tensors together, of any float types.
pub fn norm(client: &Client, tensors: &[&Buffer], limits: Limits) -> Norm {
    let machine = Machine::of(client);
    let blocks: usize = tensors.iter().map(|tensor| tensor.len.div_ceil(BLOCK)).sum();
    // Two for each block: sum of squares, elements that are not finite.
    let partial = Buffer::empty(client, 2 * blocks, F32);
    let mut first = 0;
    for tensor in tensors.iter().filter(|tensor| tensor.len > 0) {
        let cubes = tensor.len.div_ceil(BLOCK);
        let vector = machine.vector(tensor.elem, tensor.len);
        let units = machine.units(BLOCK.min(tensor.len), vector).min(256);
        // SAFETY: a cube beyond the last block stops and one reads no load beyond the last; tensors own successive blocks.
        unsafe {
            squares_kernel::launch_unchecked(
                client,
                machine.count(cubes),
                CubeDim::new_1d(units),
                address_type(&[tensor]),
                vector,
                tensor.arg(),
                partial.arg(),
                first as u32,
                cubes as u32,
                tensor.len / vector,
                units,
                machine.plane,
                tensor.elem,
            );
        }
        first += cubes;
    }
    finish(client, machine, &partial, blocks, limits)
}

/// Adds up the blocks.
fn finish(client: &Client, machine: Machine, partial: &Buffer, blocks: usize, limits: Limits) -> Norm {
    let scalar = || Buffer::empty(client, 1, F32);
    let out = Norm { norm: scalar(), factor: scalar(), not_finite: scalar() };
    let units = machine.units(blocks, 1);
    // SAFETY: one cube; its units read pairs below `blocks`, and one of them writes one element of each output.
    unsafe {
        finish_kernel::launch_unchecked(
            client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(units),
            address_type(&[partial]),
            partial.arg(),
            out.norm.arg(),
            out.factor.arg(),
            out.not_finite.arg(),
            blocks as u32,
            limits.unscale,
            limits.max_norm,
            units,
            machine.plane,
        );
    }
    out
}

/// Multiplies all tensors by `factor`, one f32 on the device.
///
/// # Panics
/// If `factor` is anything else.
pub fn scale_in_place(client: &Client, tensors: &[&Buffer], factor: &Buffer) {
    assert_eq!((factor.len, factor.elem), (1, F32), "grad_norm: factor");
    let machine = Machine::of(client);
    for tensor in tensors.iter().filter(|tensor| tensor.len > 0) {
        let Flat { vector, loads, count, dim } = machine.flat(tensor.len, machine.vector(tensor.elem, tensor.len));
        // SAFETY: a unit beyond the last load does nothing.
        unsafe {
            scale_kernel::launch_unchecked(
                client,
                count,
                dim,
                address_type(&[tensor]),
                vector,
                tensor.arg(),
                factor.arg(),
                loads,
                tensor.elem,
            );
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn squares_kernel<F: Float, N: Size>(
    values: &[Vector<F, N>],
    partial: &mut [f32],
    first: u32,
    cubes: u32,
    loads: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
    #[define(F)] _elem: ElemType,
) {
    let block = CUBE_POS;
    if block >= cubes as usize {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let width = N::value();
    let block_loads = comptime!(BLOCK / width);
    let mut i = block * block_loads + UNIT_POS_X as usize;
    let mut last = (block + 1) * block_loads;
    if last > loads {
        last = loads;
    }
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut sums = Vector::<f32, N>::new(0.0f32);
    let mut not_finite = 0.0f32;
    let mut term = 0usize;
    while i < last {
        let value = Vector::<f32, N>::cast_from(values[i]);
        sum += value * value;
        #[unroll]
        for lane in 0..width {
            if !is_finite(value.extract(lane)) {
                not_finite += 1.0f32;
            }
        }
        end_group::<N>(&mut sum, &mut sums, term, comptime!(block_loads.div_ceil(units as usize)));
        term += 1;
        i += units as usize;
    }
    let sum = cube_sum(vector_sum::<N>(sums + sum), &mut scratch, units, plane);
    let not_finite = cube_sum(not_finite, &mut scratch, units, plane);
    if UNIT_POS_X == 0 {
        let at = 2 * (first as usize + block);
        partial[at] = sum;
        partial[at + 1] = not_finite;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn finish_kernel(
    partial: &[f32],
    norm_out: &mut [f32],
    factor_out: &mut [f32],
    not_finite_out: &mut [f32],
    blocks: u32,
    unscale: f32,
    max_norm: f32,
    #[comptime] units: u32,
    #[comptime] plane: u32,
) {
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(scratch_len(units, plane)));
    let mut sum = 0.0f32;
    let mut not_finite = 0.0f32;
    let mut block = UNIT_POS_X;
    while block < blocks {
        sum += partial[2 * block as usize];
        not_finite += partial[2 * block as usize + 1];
        block += units;
    }
    let sum = cube_sum(sum, &mut scratch, units, plane);
    let not_finite = cube_sum(not_finite, &mut scratch, units, plane);
    if UNIT_POS_X == 0 {
        let mut norm = sum.sqrt() * unscale.abs();
        if not_finite > 0.0f32 {
            norm = f32::reinterpret(0x7fc0_0000u32);
        }
        let mut factor = unscale;
        if max_norm > 0.0f32 {
            let clip = max_norm / (norm + f32::new(TINY));
            if clip < 1.0f32 {
                factor = unscale * clip;
            }
        }
        if !is_finite(norm) {
            factor = f32::reinterpret(0x7fc0_0000u32);
        }
        norm_out[0] = norm;
        factor_out[0] = factor;
        not_finite_out[0] = not_finite;
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn scale_kernel<F: Float, N: Size>(
    values: &mut [Vector<F, N>],
    factor: &[f32],
    loads: usize,
    #[define(F)] _elem: ElemType,
) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        values[i] = Vector::cast_from(Vector::<f32, N>::cast_from(values[i]) * Vector::new(factor[0]));
    }
}
