//! The forward: a cube owns queries of one head and walks over the keys they see; the online softmax stays in registers.

use super::tile::{add_weighted, begin_load, products, zero};
use super::warp::Warp;
use super::{Instructions, Place, Shape, Tiling};
use crate::attention::cube::fragment::{finish, hide, soften, store};
use crate::attention::cube::lanes::Sums;
use crate::attention::cube::places::{DeviceHeads, Head, Rows};
use crate::attention::cube::tiles::{Side, Span, Tile, Work};
use crate::attention::cube::{Attention, HIDDEN, LOWEST_MAXIMUM};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;

/// Output and log-sum-exp; `tiling` overrides the choice made from the width of a head.
pub(in crate::attention::cube) fn forward(
    client: &Client,
    operands: &DeviceHeads<'_>,
    attention: &Attention<'_>,
    instructions: Instructions,
    tiling: Option<Tiling>,
) -> (Buffer, Buffer) {
    let machine = Machine::of(client);
    let (layout, elem) = (attention.layout, operands[0].data.elem);
    let output_place = layout.separate()[0];
    let [q, k, v] = operands;
    let vector = instructions.vector();
    let tiling = tiling.unwrap_or_else(|| tiling_for(layout.head_dim));
    let shape = Shape::new(attention, tiling, vector, instructions);
    let work = Work::new(client, attention.segments, attention.mask, Side::Queries, shape.owned());
    let span = Span::of(attention.mask, Side::Queries);
    let queries = attention.segments.queries();
    let output = Buffer::empty(client, queries * layout.output_width(), elem);
    let lse = Buffer::empty(client, queries * layout.heads(), F32);
    // SAFETY: the caller checked that the rows of all segments lie inside the views; rows of a tile and of its other side are
    // rows of one segment, and a cube without a tile stops.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            machine.count(work.count * layout.heads()),
            CubeDim::new_1d(shape.units()),
            address_type(&[q.data, k.data, v.data, &output]),
            vector,
            q.data.arg(),
            k.data.arg(),
            v.data.arg(),
            output.arg(),
            lse.arg(),
            work.tiles.arg(),
            work.count as u32,
            attention.scale,
            span.back,
            span.ahead,
            [q, k, v].map(|heads| Place::of(heads, vector)),
            Place::of(&output_place, 2),
            shape,
            elem,
        );
    }
    (output, lse)
}

/// Two fragments per warp halve the reads of keys and values from shared memory; heads beyond 128 leave registers for one. The
/// widest step without spills on sm_90a: 212, 255, 241 and 244 registers for heads of 64, 96, 128 and 256.
fn tiling_for(head_dim: usize) -> Tiling {
    match head_dim {
        0..=96 => Tiling { warps: 4, fragments: 2, others: 64, parts: 1 },
        97..=128 => Tiling { warps: 4, fragments: 2, others: 32, parts: 1 },
        _ => Tiling { warps: 8, fragments: 1, others: 32, parts: 1 },
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    q: &[Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    output: &mut [Vector<F, Const<2>>],
    lse: &mut [f32],
    tiles: &[u32],
    count: u32,
    scale: f32,
    back: i32,
    ahead: i32,
    #[comptime] places: [Place; 3],
    #[comptime] output_place: Place,
    #[comptime] shape: Shape,
    #[define(F)] _elem: ElemType,
) {
    let heads = comptime!(shape.members * shape.groups);
    let (tile, index) = Tile::open(tiles, count, back, ahead, heads);
    let head = Head::of(index, comptime!(shape.members));
    let keys_head = Head { group: head.group, member: 0u32.runtime() };
    let (fragments, others, unroll) = comptime!((shape.tiling.fragments, shape.tiling.others, shape.unroll()));
    let (owned, stride) = comptime!((shape.owned(), shape.stride() as u32));
    let mut warp =
        Warp::<F, N>::new(comptime!(shape.values(1)), comptime!(shape.tiling.warps), comptime!(shape.instructions));
    let mut scores = Array::<Sums>::new(comptime!(fragments * shape.score_tiles()));
    let mut sums = Array::<Sums>::new(comptime!(fragments * shape.sum_tiles()));
    let mut maximum = Array::<f32>::new(comptime!(2 * fragments));
    let mut total = Array::<f32>::new(comptime!(2 * fragments));
    zero(&mut sums, comptime!(fragments * shape.sum_tiles()), unroll);
    #[unroll(unroll)]
    for i in 0..comptime!(2 * fragments) {
        maximum[i] = LOWEST_MAXIMUM;
        total[i] = 0.0f32;
    }
    let first_row = tile.first + warp.lanes.warp * comptime!(shape.warp_rows() as u32);
    let own = warp.lanes.warp * comptime!(shape.warp_rows() as u32 * stride);
    let (stop, values) = (tile.other_stop, comptime!((others as u32) * stride));
    let mut step_at = comptime!(owned as u32 * stride).runtime();
    let both_at = comptime!(2 * owned as u32 * stride + shape.step_values() as u32);
    let mut start = tile.other_first;
    let rows = Rows { first: tile.first, stop: tile.stop, head };
    begin_load(&mut warp, q, 0u32, &rows, owned, comptime!(places[0]), shape);
    if start < stop {
        let rows = Rows { first: start, stop, head: keys_head };
        begin_load(&mut warp, k, step_at, &rows, others, comptime!(places[1]), shape);
        begin_load(&mut warp, v, step_at + values, &rows, others, comptime!(places[2]), shape);
    }
    let log2_scale = scale * comptime!(std::f32::consts::LOG2_E);
    while start < stop {
        // What was copied during the last step has arrived, and nobody reads that step's tiles any more.
        warp.wait();
        sync_cube();
        let next = start + comptime!(others as u32);
        let next_at = both_at - step_at;
        if next < stop {
            let rows = Rows { first: next, stop, head: keys_head };
            begin_load(&mut warp, k, next_at, &rows, others, comptime!(places[1]), shape);
            begin_load(&mut warp, v, next_at + values, &rows, others, comptime!(places[2]), shape);
        }
        products(&mut warp, own, step_at, &mut scores, shape);
        if !tile.sees_all(first_row, start, comptime!(shape.warp_rows() as u32), comptime!(others as u32)) {
            hide(&tile, &mut scores, first_row, start, warp.lanes.lane, HIDDEN, comptime!(shape.fragments()));
        }
        soften_rows(&mut warp, &mut scores, &mut maximum, &mut total, &mut sums, log2_scale, shape);
        add_weighted(&mut warp, &scores, step_at + values, &mut sums, shape);
        step_at = next_at;
        start = next;
    }
    let mut factors = Array::<f32>::new(comptime!(2 * fragments));
    let rows = Rows { first: first_row, stop: tile.stop, head };
    let heads = comptime!([shape.groups, shape.members]);
    let fragments = comptime!(shape.fragments());
    finish(&mut warp.lanes, &maximum, &total, &mut factors, lse, &rows, scale, heads, fragments);
    store(&sums, &factors, output, &rows, warp.lanes.lane, 0u32, output_place, comptime!(shape.fragments()));
}

/// One step of the online softmax: scores become weights, and what was summed before shrinks.
#[cube]
fn soften_rows<F: Float, N: Size>(
    warp: &mut Warp<F, N>,
    scores: &mut Array<Sums>,
    maximum: &mut Array<f32>,
    total: &mut Array<f32>,
    sums: &mut Array<Sums>,
    scale: f32,
    #[comptime] shape: Shape,
) {
    let (columns, unroll) = comptime!((shape.sum_tiles(), shape.unroll()));
    let mut shrink = Array::<f32>::new(2usize);
    #[unroll(unroll)]
    for i in 0..comptime!(shape.tiling.fragments) {
        soften(&mut warp.lanes, scores, maximum, total, &mut shrink, i, scale, comptime!(shape.fragments()));
        #[unroll(unroll)]
        for n in 0..columns {
            let mut part = sums[i * columns + n];
            #[unroll]
            for c in 0..4usize {
                part.insert(c, part.extract(c) * shrink[comptime!(c / 2)]);
            }
            sums[i * columns + n] = part;
        }
    }
}
