//! A kernel as kernels must not be, for the test of the gate: each unit keeps more sums through a loop than it has registers.

use cubecl::prelude::*;
use gpu_benches::calls::{Calls, Rules};
use internevo_kernels::cube::{Buffer, Client, F32};

/// Units of the cube: of 65,536 registers, each gets 64.
const UNITS: usize = 1024;
/// Sums of a unit.
const SUMS: usize = 128;

/// Adds a call that spills.
pub fn add(calls: &mut Calls) {
    calls.add("planted spill", F32, UNITS.to_string(), Rules::compute(), |inputs| {
        let (x, y) = (inputs.floats(UNITS * SUMS, F32), inputs.floats(UNITS * SUMS, F32));
        move |client| launch(client, &x, &y)
    });
}

fn launch(client: &Client, x: &Buffer, y: &Buffer) {
    // SAFETY: both buffers hold `UNITS · SUMS` elements; `x` is read below that, each unit writes its own `SUMS` of `y`.
    unsafe {
        let [x, y] = [x, y].map(|buffer| BufferArg::from_raw_parts(buffer.handle.clone(), buffer.len));
        let (count, dim) = (CubeCount::Static(1, 1, 1), CubeDim::new_1d(UNITS as u32));
        spilling_kernel::launch_unchecked(client, count, dim, x, y, UNITS, SUMS);
    }
}

#[cube(launch_unchecked)]
fn spilling_kernel(x: &[f32], y: &mut [f32], steps: usize, #[comptime] held: usize) {
    let mut sums = Array::<f32>::new(held);
    #[unroll]
    for k in 0..held {
        sums[k] = 0.0f32;
    }
    let mut step = 0usize.runtime();
    while step < steps {
        let factor = x[step * held];
        #[unroll]
        for k in 0..held {
            sums[k] = sums[k] * factor + x[step * held + k];
        }
        step += 1;
    }
    #[unroll]
    for k in 0..held {
        y[UNIT_POS as usize * held + k] = sums[k];
    }
}
