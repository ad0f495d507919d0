//! Scores and sums as the lanes of a warp hold them in the tensor-core routes: the mask and the online softmax on scores, and how
//! sums get to memory. No products.

#![allow(clippy::manual_is_multiple_of, reason = "not a function of cubecl")]

use super::lanes::{COLUMNS, Lanes, ROWS, Sums};
use super::places::{Place, Rows};
use super::tiles::Tile;
use cubecl::prelude::*;

/// A warp's fragments of 16 rows each, and 16×8 tiles in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fragments {
    pub(super) down: usize,
    /// Tiles of scores, and of sums.
    pub(super) scores: usize,
    pub(super) sums: usize,
    pub(super) unroll: bool,
}

/// Sets what the mask hides, among scores from row `first` and column `start` on, to `value`.
#[cube]
pub(super) fn hide(
    tile: &Tile,
    scores: &mut Array<Sums>,
    first: u32,
    start: u32,
    lane: u32,
    value: f32,
    #[comptime] fragments: Fragments,
) {
    let (tiles, unroll) = comptime!((fragments.scores, fragments.unroll));
    #[unroll(unroll)]
    for i in 0..comptime!(fragments.down) {
        #[unroll(unroll)]
        for n in 0..tiles {
            let mut score = scores[i * tiles + n];
            #[unroll]
            for c in 0..4usize {
                let row = first + i as u32 * comptime!(ROWS as u32) + comptime!(c as u32 / 2 * 8) + lane / 4;
                let column = start + n as u32 * comptime!(COLUMNS as u32) + lane % 4 * 2 + comptime!(c as u32 % 2);
                score.insert(c, select(tile.sees(row, column), score.extract(c), value));
            }
            scores[i * tiles + n] = score;
        }
    }
}

/// One step of the online softmax in the two rows that a lane has of fragment `i`, scores becoming weights; `shrink` becomes the
/// factors of what was summed before. `scale` includes the change from e to 2. The maximum is that of the unscaled scores; a
/// lane's total is over its own columns.
#[cube]
pub(super) fn soften(
    lanes: &mut Lanes,
    scores: &mut Array<Sums>,
    maximum: &mut Array<f32>,
    total: &mut Array<f32>,
    shrink: &mut Array<f32>,
    i: usize,
    scale: f32,
    #[comptime] fragments: Fragments,
) {
    let (tiles, unroll) = comptime!((fragments.scores, fragments.unroll));
    let mut near = maximum[2 * i];
    let mut far = maximum[2 * i + 1];
    #[unroll(unroll)]
    for n in 0..tiles {
        let score = scores[i * tiles + n];
        near = max(near, max(score.extract(0usize), score.extract(1usize)));
        far = max(far, max(score.extract(2usize), score.extract(3usize)));
    }
    let (near, far) = lanes.quad_max(near, far);
    #[unroll]
    for half in 0..2usize {
        let (low, high) = comptime!((2 * half, 2 * half + 1));
        let slot = 2 * i + half;
        let largest = if comptime!(half == 0) { near } else { far };
        let shrunk = lanes.exp2((maximum[slot] - largest) * scale);
        let bias = largest * scale;
        maximum[slot] = largest;
        let mut sum = total[slot] * shrunk;
        #[unroll(unroll)]
        for n in 0..tiles {
            let mut score = scores[i * tiles + n];
            let left = lanes.exp2(score.extract(low) * scale - bias);
            let right = lanes.exp2(score.extract(high) * scale - bias);
            score.insert(low, left);
            score.insert(high, right);
            scores[i * tiles + n] = score;
            sum += left + right;
        }
        total[slot] = sum;
        shrink[half] = shrunk;
    }
}

/// Ends the softmax of the warp's rows: the factors that make sums averages, and the log-sum-exp of each, `[row, group, member]`.
#[cube]
pub(super) fn finish(
    lanes: &mut Lanes,
    maximum: &Array<f32>,
    total: &Array<f32>,
    factors: &mut Array<f32>,
    lse: &mut [f32],
    rows: &Rows,
    scale: f32,
    #[comptime] heads: [u32; 2],
    #[comptime] fragments: Fragments,
) {
    #[unroll(fragments.unroll)]
    for i in 0..comptime!(fragments.down) {
        let (near, far) = lanes.quad_sum(total[2 * i], total[2 * i + 1]);
        #[unroll]
        for half in 0..2usize {
            let sum = if comptime!(half == 0) { near } else { far };
            factors[2 * i + half] = select(sum == 0.0f32, 0.0f32, 1.0f32 / sum);
            let row = rows.first + i as u32 * comptime!(ROWS as u32) + comptime!(8 * half as u32) + lanes.lane / 4;
            if row < rows.stop && lanes.lane % 4 == 0 {
                let head = rows.head.group * comptime!(heads[1]) + rows.head.member;
                // The logarithm of nothing is -∞.
                lse[row as usize * comptime!((heads[0] * heads[1]) as usize) + head as usize] =
                    maximum[2 * i + half] * scale + sum.ln();
            }
        }
    }
}

/// Writes the warp's rows, each times its factor (two per fragment: of row `lane / 4`, and of the one 8 further), to columns
/// from `column` on; `target` and `place` are in pairs of values.
#[cube]
pub(super) fn store<F: Float>(
    sums: &Array<Sums>,
    factors: &Array<f32>,
    target: &mut [Vector<F, Const<2>>],
    rows: &Rows,
    lane: u32,
    column: u32,
    #[comptime] place: Place,
    #[comptime] fragments: Fragments,
) {
    let (columns, unroll) = comptime!((fragments.sums, fragments.unroll));
    #[unroll(unroll)]
    for i in 0..comptime!(fragments.down) {
        #[unroll]
        for half in 0..2usize {
            let row = rows.first + i as u32 * comptime!(ROWS as u32) + comptime!(8 * half as u32) + lane / 4;
            if row < rows.stop {
                let start = rows.at(row, place) + (column / 2 + lane % 4) as usize;
                let factor = factors[i * 2 + half];
                #[unroll(unroll)]
                for tile in 0..columns {
                    let sum = sums[i * columns + tile];
                    let mut pair = Vector::<F, Const<2>>::empty();
                    pair.insert(0usize, F::cast_from(sum.extract(comptime!(2 * half)) * factor));
                    pair.insert(1usize, F::cast_from(sum.extract(comptime!(2 * half + 1)) * factor));
                    target[start + tile * comptime!(COLUMNS / 2)] = pair;
                }
            }
        }
    }
}
