//! What the device's memory gives: the rate of a plain copy, the roof of every kernel that is bound by memory.

use cubecl::prelude::*;
use internevo_kernels::cube::{Buffer, Client, F32, Flat, Machine};

use crate::timing::time;

/// Elements copied: a gibibyte, far more than any cache.
const LEN: usize = 1 << 28;

/// Bytes read and written per second by the copy of a gibibyte of random numbers.
///
/// # Errors
/// What the launch reports.
pub fn copy(client: &Client) -> anyhow::Result<f64> {
    let x = gpu_benches::calls::Inputs::filled(client).floats(LEN, F32);
    let y = Buffer::empty(client, LEN, F32);
    let seconds = time(client, &|client| launch(client, &x, &y))?.median;
    Ok(8.0 * LEN as f64 / seconds)
}

fn launch(client: &Client, x: &Buffer, y: &Buffer) {
    let machine = Machine::of(client);
    let Flat { vector, loads, count, dim } = machine.flat(x.len, machine.vector(F32, x.len));
    // SAFETY: both buffers hold `loads` vectors, and a unit beyond the last one stops.
    unsafe {
        let [x, y] = [x, y].map(|buffer| BufferArg::from_raw_parts(buffer.handle.clone(), buffer.len));
        copy_kernel::launch_unchecked(client, count, dim, vector, x, y, loads);
    }
}

#[cube(launch_unchecked)]
fn copy_kernel<N: Size>(x: &[Vector<f32, N>], y: &mut [Vector<f32, N>], loads: usize) {
    let i = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    if i < loads {
        y[i] = x[i];
    }
}
