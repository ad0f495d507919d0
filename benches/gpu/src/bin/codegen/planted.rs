//! A kernel as kernels must not be, for the test of the gate: more values alive than registers, and an array indexed by data.

use cubecl::prelude::*;
use gpu_benches::calls::{Calls, Rules};
use internevo_kernels::cube::{Buffer, Client, F32};

/// Values that each unit holds: four times the registers that 1024 units leave it.
const HELD: usize = 256;

/// Adds a call that spills.
pub fn add(calls: &mut Calls) {
    calls.add("planted spill", F32, "1024", Rules::compute(), |inputs| {
        let (x, y) = (inputs.floats(1024 * HELD, F32), inputs.floats(1024 * HELD, F32));
        move |client| launch(client, &x, &y)
    });
}

fn launch(client: &Client, x: &Buffer, y: &Buffer) {
    // SAFETY: 1024 units read and write `HELD` elements each, as many as both buffers have.
    unsafe {
        let [x, y] = [x, y].map(|buffer| BufferArg::from_raw_parts(buffer.handle.clone(), buffer.len));
        spilling_kernel::launch_unchecked(client, CubeCount::Static(1, 1, 1), CubeDim::new_1d(1024), x, y, HELD);
    }
}

#[cube(launch_unchecked)]
fn spilling_kernel(x: &[f32], y: &mut [f32], #[comptime] held: usize) {
    let mut values = Array::<f32>::new(held);
    #[unroll]
    for k in 0..held {
        values[k] = x[UNIT_POS as usize * held + k];
    }
    sync_cube();
    #[unroll]
    for k in 0..held {
        y[UNIT_POS as usize * held + k] = values[(held - 1) - k] * values[0];
    }
}
