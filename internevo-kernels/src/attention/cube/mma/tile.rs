//! Products of tiles in shared memory, and how the tiles get there.

use super::warp::Warp;
use super::{Place, Shape};
use crate::attention::cube::lanes::{CHUNK, COLUMNS, Quad, ROWS, Sums};
use crate::attention::cube::places::Rows;
use cubecl::prelude::*;

/// Begins to fill `count` rows of the arena, from `at` on, with `rows`; those from the stop on become zero. All units take part.
#[cube]
pub(super) fn begin_load<F: Float, N: Size>(
    warp: &mut Warp<F, N>,
    source: &[Vector<F, N>],
    at: u32,
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] place: Place,
    #[comptime] shape: Shape,
) {
    let (chunks, units) = comptime!(((shape.head_dim / CHUNK) as u32, shape.units()));
    let (total, rounds) = comptime!((count as u32 * chunks, (count as u32 * chunks).div_ceil(units)));
    #[unroll(shape.unroll())]
    for round in 0..rounds {
        let i = round * units + UNIT_POS;
        if comptime!(total % units == 0) || i < total {
            let (row, chunk) = (i / chunks, i % chunks);
            // A row beyond the end reads the last one, and keeps nothing of it.
            let row_at = rows.first + row;
            let from = rows.at(min(row_at, rows.stop - 1), place) + chunk as usize * comptime!(CHUNK / shape.vector);
            let to = at + row * comptime!(shape.stride() as u32) + chunk * comptime!(CHUNK as u32);
            warp.copy(source, from, to, row_at < rows.stop);
        }
    }
}

/// Dot products of the warp's rows, at `own`, with the rows of a step, at `other`.
#[cube]
pub(super) fn products<F: Float, N: Size>(
    warp: &mut Warp<F, N>,
    own: u32,
    other: u32,
    sums: &mut Array<Sums>,
    #[comptime] shape: Shape,
) {
    let (fragments, tiles, stride) = comptime!((shape.tiling.fragments, shape.score_tiles(), shape.stride() as u32));
    let unroll = comptime!(shape.unroll());
    zero(sums, comptime!(fragments * tiles), unroll);
    let lane = warp.lanes.lane;
    let left = own + (lane % 16) * stride + (lane / 16) * comptime!(CHUNK as u32);
    let right = other + (lane / 16 * 8 + lane % 8) * stride + (lane / 8 % 2) * comptime!(CHUNK as u32);
    let mut a = Array::<Quad>::new(fragments);
    #[unroll(unroll)]
    for step in 0..comptime!(shape.head_dim / ROWS) {
        let column = step as u32 * comptime!(ROWS as u32);
        #[unroll(unroll)]
        for i in 0..fragments {
            a[i] = warp.load(left + i as u32 * comptime!(ROWS as u32 * stride) + column, false);
        }
        #[unroll(unroll)]
        for pair in 0..comptime!(tiles / 2) {
            let b = warp.load(right + pair as u32 * comptime!(ROWS as u32 * stride) + column, false);
            #[unroll(unroll)]
            for i in 0..fragments {
                let at = i * tiles + 2 * pair;
                sums[at] = warp.multiply(a[i], b.extract(0usize), b.extract(1usize), sums[at]);
                sums[at + 1] = warp.multiply(a[i], b.extract(2usize), b.extract(3usize), sums[at + 1]);
            }
        }
    }
}

/// Adds to the warp's rows the rows of a step, at `other`, weighted by `weights`, which are laid out as [`products`] gives them.
#[cube]
pub(super) fn add_weighted<F: Float, N: Size>(
    warp: &mut Warp<F, N>,
    weights: &Array<Sums>,
    other: u32,
    sums: &mut Array<Sums>,
    #[comptime] shape: Shape,
) {
    let (fragments, tiles, stride) = comptime!((shape.tiling.fragments, shape.score_tiles(), shape.stride() as u32));
    let (columns, unroll) = comptime!((shape.sum_tiles(), shape.unroll()));
    let lane = warp.lanes.lane;
    let right = other + (lane % 16) * stride + (lane / 16) * comptime!(CHUNK as u32);
    let mut a = Array::<Quad>::new(fragments);
    #[unroll(unroll)]
    for step in 0..comptime!(shape.tiling.others / ROWS) {
        #[unroll(unroll)]
        for i in 0..fragments {
            a[i] = warp.lanes.pack_fragments::<F>(weights[i * tiles + 2 * step], weights[i * tiles + 2 * step + 1]);
        }
        #[unroll(unroll)]
        for pair in 0..comptime!(columns / 2) {
            let at =
                right + step as u32 * comptime!(ROWS as u32 * stride) + pair as u32 * comptime!(2 * COLUMNS as u32);
            let b = warp.load(at, true);
            #[unroll(unroll)]
            for i in 0..fragments {
                let to = i * columns + 2 * pair;
                sums[to] = warp.multiply(a[i], b.extract(0usize), b.extract(1usize), sums[to]);
                sums[to + 1] = warp.multiply(a[i], b.extract(2usize), b.extract(3usize), sums[to + 1]);
            }
        }
    }
}

#[cube]
pub(super) fn zero(sums: &mut Array<Sums>, #[comptime] count: usize, #[comptime] unroll: bool) {
    #[unroll(unroll)]
    for i in 0..count {
        sums[i] = Sums::new(0.0f32);
    }
}
