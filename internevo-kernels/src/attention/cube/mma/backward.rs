//! The backward, once for dQ and once for dK and dV, as in the portable route: a warp owns rows of one side and keeps their sums
//! in registers; scores are computed again, from tiles in shared memory.

use super::tile::{add_weighted, begin_load, products, zero};
use super::warp::Warp;
use super::{Instructions, Place, Shape, Tiling};
use crate::attention::cube::Attention;
use crate::attention::cube::fragment::{hide, store};
use crate::attention::cube::lanes::Sums;
use crate::attention::cube::places::{Head, Rows};
use crate::attention::cube::sides::Launch;
use crate::attention::cube::tiles::{Side, Span, Tile, Work};
use crate::cube::{Client, ElemType, Machine, address_type};
use cubecl::prelude::*;

/// Writes the gradients of one side; `tiling` overrides the choice made from the width of a head.
pub(in crate::attention::cube) fn backward(
    client: &Client,
    launch: &Launch<'_>,
    attention: &Attention<'_>,
    instructions: Instructions,
    tiling: Option<Tiling>,
) {
    let Launch { side, own, other, out, statistics } = *launch;
    let machine = Machine::of(client);
    let (layout, mask) = (attention.layout, attention.mask);
    let elem = own[0].data.elem;
    let vector = instructions.vector();
    let tiling = tiling.unwrap_or_else(|| tiling_for(layout.head_dim, side));
    let shape = Shape::new(attention, tiling, vector, instructions);
    let work = Work::new(client, attention.segments, mask, side, shape.owned());
    let heads = if side == Side::Queries { layout.heads() } else { layout.kv_heads };
    let span = Span::of(mask, side);
    let place = |heads| Place::of(&heads, vector);
    // SAFETY: the caller checked that the rows of all segments lie inside the views; rows of a tile and of its other side
    // are rows of one segment, and a cube without a tile stops.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            machine.count(work.count * heads * tiling.parts),
            CubeDim::new_1d(shape.units()),
            address_type(&[own[0].data, own[1].data, other[0].data, other[1].data, out[0].data, out[1].data]),
            vector,
            own[0].data.arg(),
            own[1].data.arg(),
            other[0].data.arg(),
            other[1].data.arg(),
            statistics.lse.arg(),
            statistics.delta.arg(),
            out[0].data.arg(),
            out[1].data.arg(),
            work.tiles.arg(),
            work.count as u32,
            attention.scale,
            span.back,
            span.ahead,
            own.map(place),
            other.map(place),
            out.map(|heads| Place::of(&heads, 2)),
            shape,
            side,
            elem,
        );
    }
}

/// Sums of dK and dV, or of dQ, are what fills the registers.
fn tiling_for(head_dim: usize, side: Side) -> Tiling {
    let (warps, parts) = if head_dim <= 128 { (8, 1) } else { (4, if side == Side::Keys { 2 } else { 1 }) };
    let others = match (side, head_dim) {
        (Side::Queries, ..=64) => 48,
        (Side::Queries, ..=128) => 64,
        _ => 32,
    };
    Tiling { warps, fragments: 1, others, parts }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    own_0: &[Vector<F, N>],
    own_1: &[Vector<F, N>],
    other_0: &[Vector<F, N>],
    other_1: &[Vector<F, N>],
    lse: &[f32],
    delta: &[f32],
    out_0: &mut [Vector<F, Const<2>>],
    out_1: &mut [Vector<F, Const<2>>],
    tiles: &[u32],
    count: u32,
    scale: f32,
    back: i32,
    ahead: i32,
    #[comptime] own_places: [Place; 2],
    #[comptime] other_places: [Place; 2],
    #[comptime] out_places: [Place; 2],
    #[comptime] shape: Shape,
    #[comptime] side: Side,
    #[define(F)] _elem: ElemType,
) {
    let by_keys = comptime!(side == Side::Keys);
    // Heads that a row of this side has, and passes over the other side for one of them.
    let (heads, passes) =
        comptime!(if by_keys { (shape.groups, shape.members) } else { (shape.groups * shape.members, 1) });
    let parts = comptime!(shape.tiling.parts as u32);
    let (tile, index) = Tile::open(tiles, count, back, ahead, comptime!(heads * parts));
    let (index, part) = (index / parts, index % parts);
    let head = Head::of(index, comptime!(if by_keys { 1 } else { shape.members }));
    let (fragments, others, unroll) = comptime!((shape.tiling.fragments, shape.tiling.others, shape.unroll()));
    let (owned, stride) = comptime!((shape.owned(), shape.stride() as u32));
    let score_count = comptime!(fragments * shape.score_tiles());
    let sum_count = comptime!(fragments * shape.sum_tiles());
    let mut warp =
        Warp::<F, N>::new(comptime!(shape.values(2)), comptime!(shape.tiling.warps), comptime!(shape.instructions));
    let mut weights = Array::<Sums>::new(score_count);
    let mut slopes = Array::<Sums>::new(score_count);
    let mut sums_0 = Array::<Sums>::new(sum_count);
    let mut sums_1 = Array::<Sums>::new(comptime!(if by_keys { sum_count } else { 1 }));
    zero(&mut sums_0, sum_count, unroll);
    zero(&mut sums_1, comptime!(if by_keys { sum_count } else { 1 }), unroll);
    let first_row = tile.first + warp.lanes.warp * comptime!(shape.warp_rows() as u32);
    let own = warp.lanes.warp * comptime!(shape.warp_rows() as u32 * stride);
    let (second, values) = comptime!((owned as u32 * stride, others as u32 * stride));
    let column = part * comptime!((shape.head_dim / shape.tiling.parts) as u32);
    let mut step_at = comptime!(2 * second).runtime();
    let both_at = comptime!(4 * second + 2 * values);
    let (start, stop) = (tile.other_first, tile.other_stop);
    let steps = (stop - start).div_ceil(comptime!(others as u32));
    let rows = Rows { first: tile.first, stop: tile.stop, head };
    begin_load(&mut warp, own_0, 0u32, &rows, owned, comptime!(own_places[0]), shape);
    begin_load(&mut warp, own_1, second, &rows, owned, comptime!(own_places[1]), shape);
    if steps > 0 {
        let rows = Rows { first: start, stop, head: Head { group: head.group, member: 0u32.runtime() } };
        begin_load(&mut warp, other_0, step_at, &rows, others, comptime!(other_places[0]), shape);
        begin_load(&mut warp, other_1, step_at + values, &rows, others, comptime!(other_places[1]), shape);
    }
    let mut lane_lse = Array::<f32>::new(comptime!(shape.slots(side)));
    let mut lane_delta = Array::<f32>::new(comptime!(shape.slots(side)));
    if comptime!(!by_keys) {
        read_statistics(
            lse,
            delta,
            &mut lane_lse,
            &mut lane_delta,
            first_row,
            tile.stop,
            warp.lanes.lane,
            index,
            shape,
            side,
        );
    }
    let log2_scale = scale * comptime!(std::f32::consts::LOG2_E);
    for step in 0..steps * passes {
        let at = start + step % steps * comptime!(others as u32);
        warp.wait();
        sync_cube();
        if comptime!(by_keys) {
            let query_head = index * comptime!(shape.members) + step / steps;
            read_statistics(
                lse,
                delta,
                &mut lane_lse,
                &mut lane_delta,
                at,
                stop,
                warp.lanes.lane,
                query_head,
                shape,
                side,
            );
        }
        let (next, next_at) = (step + 1, both_at - step_at);
        if next < steps * passes {
            let first = start + next % steps * comptime!(others as u32);
            let rows = Rows { first, stop, head: Head { group: head.group, member: next / steps } };
            begin_load(&mut warp, other_0, next_at, &rows, others, comptime!(other_places[0]), shape);
            begin_load(&mut warp, other_1, next_at + values, &rows, others, comptime!(other_places[1]), shape);
        }
        products(&mut warp, own, step_at, &mut weights, shape);
        products(&mut warp, own + second, step_at + values, &mut slopes, shape);
        differentiate(&mut warp, &mut weights, &mut slopes, &lane_lse, &lane_delta, log2_scale, shape, side);
        if !tile.sees_all(first_row, at, comptime!(shape.warp_rows() as u32), comptime!(others as u32)) {
            hide(&tile, &mut weights, first_row, at, warp.lanes.lane, 0.0f32, comptime!(shape.fragments()));
            hide(&tile, &mut slopes, first_row, at, warp.lanes.lane, 0.0f32, comptime!(shape.fragments()));
        }
        add_weighted(&mut warp, &slopes, step_at + column, &mut sums_0, shape);
        if comptime!(by_keys) {
            add_weighted(&mut warp, &weights, step_at + values + column, &mut sums_1, shape);
        }
        step_at = next_at;
    }
    let mut factors = Array::<f32>::new(comptime!(2 * fragments));
    fill(&mut factors, scale, shape);
    let rows = Rows { first: first_row, stop: tile.stop, head };
    store(
        &sums_0,
        &factors,
        out_0,
        &rows,
        warp.lanes.lane,
        column,
        comptime!(out_places[0]),
        comptime!(shape.fragments()),
    );
    if comptime!(by_keys) {
        fill(&mut factors, 1.0f32, shape);
        store(
            &sums_1,
            &factors,
            out_1,
            &rows,
            warp.lanes.lane,
            column,
            comptime!(out_places[1]),
            comptime!(shape.fragments()),
        );
    }
}

#[cube]
fn fill(factors: &mut Array<f32>, value: f32, #[comptime] shape: Shape) {
    #[unroll(shape.unroll())]
    for i in 0..comptime!(2 * shape.tiling.fragments) {
        factors[i] = value;
    }
}

/// Log-sum-exp (base 2) and `delta` of the queries that this lane has scores of: of its rows, or of its columns from `start` on.
#[cube]
fn read_statistics(
    lse: &[f32],
    delta: &[f32],
    lane_lse: &mut Array<f32>,
    lane_delta: &mut Array<f32>,
    start: u32,
    stop: u32,
    lane: u32,
    query_head: u32,
    #[comptime] shape: Shape,
    #[comptime] side: Side,
) {
    let heads = comptime!((shape.members * shape.groups) as usize);
    #[unroll(shape.unroll())]
    for slot in 0..comptime!(shape.slots(side)) {
        let slot_row = slot as u32;
        let ahead = if comptime!(side == Side::Keys) {
            slot_row / 2 * 8 + lane % 4 * 2 + slot_row % 2
        } else {
            slot_row * 8 + lane / 4
        };
        let at = min(start + ahead, stop - 1) as usize * heads + query_head as usize;
        lane_lse[slot] = lse[at] * comptime!(std::f32::consts::LOG2_E);
        lane_delta[slot] = delta[at];
    }
}

/// Scores to probabilities, and gradients of probabilities to gradients of (scaled) scores; `scale` includes the change from e
/// to 2.
#[cube]
fn differentiate<F: Float, N: Size>(
    warp: &mut Warp<F, N>,
    weights: &mut Array<Sums>,
    slopes: &mut Array<Sums>,
    lane_lse: &Array<f32>,
    lane_delta: &Array<f32>,
    scale: f32,
    #[comptime] shape: Shape,
    #[comptime] side: Side,
) {
    let (tiles, unroll) = comptime!((shape.score_tiles(), shape.unroll()));
    #[unroll(unroll)]
    for i in 0..comptime!(shape.tiling.fragments) {
        #[unroll(unroll)]
        for n in 0..tiles {
            let mut weight = weights[i * tiles + n];
            let mut slope = slopes[i * tiles + n];
            #[unroll]
            for c in 0..4usize {
                let slot =
                    if comptime!(side == Side::Keys) { 2 * n + comptime!(c % 2) } else { 2 * i + comptime!(c / 2) };
                let probability = warp.lanes.exp2(weight.extract(c) * scale - lane_lse[slot]);
                weight.insert(c, probability);
                slope.insert(c, probability * (slope.extract(c) - lane_delta[slot]));
            }
            weights[i * tiles + n] = weight;
            slopes[i * tiles + n] = slope;
        }
    }
}
