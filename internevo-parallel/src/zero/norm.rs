//! The global gradient norm, with the same bits for every sharding: squares are summed in f64 over blocks of [`BLOCK`]
//! elements, and the blocks' sums are added in global order.

use rayon::prelude::*;

use crate::{
    comm::{Buffer, CommError, Communicator},
    state::BLOCK,
};

/// Independent running sums inside a block, so that the loop is vectorised; part of the definition of the result.
const LANES: usize = 8;

/// Norm of the gradient whose `rank`-th shard of whole blocks this is. Collective over `zero1`.
pub(super) fn global_norm(shard: &[f32], zero1: &dyn Communicator) -> Result<f64, CommError> {
    let mut sums: Vec<f64> = shard.par_chunks(BLOCK).map(sum_of_squares).collect();
    if zero1.size() > 1 {
        sums = zero1.all_gather(Buffer::F64(sums))?.wait()?.into_f64();
    }
    // Padding only appends zeros, which change no bit.
    Ok(sums.iter().sum::<f64>().sqrt())
}

fn sum_of_squares(block: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (whole, rest) = block.as_chunks::<LANES>();
    for group in whole {
        for (sum, x) in lanes.iter_mut().zip(group) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in lanes.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
