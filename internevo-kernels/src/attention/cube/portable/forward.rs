//! The forward: a cube owns a tile of queries of one head and walks over the keys they see, with an online softmax.

#![allow(clippy::manual_is_multiple_of, reason = "not a function of cubecl")]

use super::tile::{add_weighted, load, own_column, own_row, products, store};
use super::{Blocking, Place, Shape};
use crate::attention::cube::places::{DeviceHeads, Head, Rows, vector};
use crate::attention::cube::tiles::{Side, Span, Tile, Work};
use crate::attention::cube::{Attention, HIDDEN, LOWEST_MAXIMUM};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::*;

/// Output and log-sum-exp; `blocking` overrides the choice made from the machine.
pub(in crate::attention::cube) fn forward(
    client: &Client,
    operands: &DeviceHeads<'_>,
    attention: &Attention<'_>,
    blocking: Option<Blocking>,
) -> (Buffer, Buffer) {
    let machine = Machine::of(client);
    let (layout, elem) = (attention.layout, operands[0].data.elem);
    let output_place = layout.separate()[0];
    let [q, k, v] = operands;
    let vector = vector(&machine, elem, layout.head_dim, &[q.on(()), k.on(()), v.on(()), output_place]);
    let loads = layout.head_dim / vector;
    let shared = |blocking: Blocking| {
        let row = (loads + 1) * vector * elem.size();
        let (owned, others) = (blocking.owned(), blocking.others());
        (owned + others) * row + 4 * owned * (others + blocking.across)
    };
    let blocking = blocking.unwrap_or_else(|| Blocking::fitting(&machine, shared));
    let work = Work::new(client, attention.segments, attention.mask, Side::Queries, blocking.owned());
    let span = Span::of(attention.mask, Side::Queries);
    let queries = attention.segments.queries();
    let output = Buffer::empty(client, queries * layout.output_width(), elem);
    let lse = Buffer::empty(client, queries * layout.heads(), F32);
    let shape = Shape {
        blocking,
        members: layout.q_per_kv as u32,
        groups: layout.kv_heads as u32,
        loads,
        unroll: machine.unroll,
    };
    // SAFETY: the caller checked that the rows of all segments lie inside the views; rows of a tile and of its other side are
    // rows of one segment, and a cube without a tile stops.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            machine.count(work.count * layout.heads()),
            CubeDim::new_1d(blocking.units()),
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
            Place::of(&output_place, vector),
            shape,
            elem,
        );
    }
    (output, lse)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    q: &[Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    output: &mut [Vector<F, N>],
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
    let own = Rows { first: tile.first, stop: tile.stop, head };
    let keys_head = Head { group: head.group, member: 0u32.runtime() };
    let (rows, unroll) = comptime!((shape.blocking.rows, shape.unroll));
    let (owned, others) = comptime!((shape.blocking.owned(), shape.blocking.others()));
    let stride = comptime!(shape.stride());
    let mut queries = Shared::<[Vector<F, N>]>::new_slice(comptime!(owned * stride));
    // Keys, then values.
    let mut other = Shared::<[Vector<F, N>]>::new_slice(comptime!(others * stride));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(owned * others));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(owned * shape.blocking.across));
    let mut scores = Array::<f32>::new(comptime!(shape.blocking.scores()));
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(rows * shape.span()));
    let mut maximum = Array::<f32>::new(rows);
    let mut total = Array::<f32>::new(rows);
    #[unroll(unroll)]
    for i in 0..rows {
        maximum[i] = LOWEST_MAXIMUM;
        total[i] = 0.0f32;
        #[unroll(unroll)]
        for j in 0..comptime!(shape.span()) {
            sums[i * comptime!(shape.span()) + j] = Vector::new(0.0f32);
        }
    }
    load::<F, N>(q, &mut queries, &own, owned, comptime!(places[0]), shape);
    let mut start = tile.other_first;
    while start < tile.other_stop {
        let rows = Rows { first: start, stop: tile.other_stop, head: keys_head };
        sync_cube();
        load::<F, N>(k, &mut other, &rows, others, comptime!(places[1]), shape);
        sync_cube();
        products::<F, N>(&queries, &other, &mut scores, shape);
        mask_scores(&tile, &mut scores, start, scale, shape);
        partial_maxima(&scores, &mut partial, shape);
        sync_cube();
        load::<F, N>(v, &mut other, &rows, others, comptime!(places[2]), shape);
        soften::<N>(&scores, &partial, &mut maximum, &mut total, &mut sums, &mut weights, shape);
        sync_cube();
        add_weighted::<F, N>(&weights, &other, &mut sums, shape);
        start += comptime!(others as u32);
    }
    finish_totals(&mut total, &mut partial, shape);
    let mut factors = Array::<f32>::new(rows);
    #[unroll(unroll)]
    for i in 0..rows {
        let row = own_row(i, shape) as u32 + tile.first;
        factors[i] = select(total[i] == 0.0f32, 0.0f32, 1.0f32 / total[i]);
        if row < tile.stop && UNIT_POS as usize % comptime!(shape.blocking.across) == 0 {
            // The logarithm of nothing is -∞.
            lse[row as usize * heads as usize + index as usize] = maximum[i] + total[i].ln();
        }
    }
    store::<F, N>(&sums, &factors, output, &own, output_place, shape);
}

/// Scales the scores, and hides those that the mask does.
#[cube]
fn mask_scores(tile: &Tile, scores: &mut Array<f32>, start: u32, scale: f32, #[comptime] shape: Shape) {
    let (rows, columns) = comptime!((shape.blocking.rows, shape.blocking.columns));
    let (owned, others) = comptime!((shape.blocking.owned() as u32, shape.blocking.others() as u32));
    let unroll = comptime!(shape.unroll);
    #[unroll(unroll)]
    for i in 0..comptime!(rows * columns) {
        scores[i] *= scale;
    }
    if !tile.sees_all(tile.first, start, owned, others) {
        #[unroll(unroll)]
        for i in 0..rows {
            #[unroll(unroll)]
            for j in 0..columns {
                let seen = tile.sees(tile.first + own_row(i, shape) as u32, start + own_column(j, shape) as u32);
                scores[i * columns + j] = select(seen, scores[i * columns + j], HIDDEN);
            }
        }
    }
}

/// The largest of this unit's scores in each of its rows, for its neighbours.
#[cube]
fn partial_maxima(scores: &Array<f32>, partial: &mut [f32], #[comptime] shape: Shape) {
    let (across, columns, unroll) = comptime!((shape.blocking.across, shape.blocking.columns, shape.unroll));
    #[unroll(unroll)]
    for i in 0..comptime!(shape.blocking.rows) {
        let mut largest = scores[i * columns];
        #[unroll(unroll)]
        for j in 1..columns {
            largest = max(largest, scores[i * columns + j]);
        }
        partial[own_row(i, shape) * across + UNIT_POS as usize % across] = largest;
    }
}

/// One step of the online softmax: moves the maximum, rescales what was summed under the old one, writes the new weights.
#[cube]
fn soften<N: Size>(
    scores: &Array<f32>,
    partial: &[f32],
    maximum: &mut Array<f32>,
    total: &mut Array<f32>,
    sums: &mut Array<Vector<f32, N>>,
    weights: &mut [f32],
    #[comptime] shape: Shape,
) {
    let (across, columns, unroll) = comptime!((shape.blocking.across, shape.blocking.columns, shape.unroll));
    let span = comptime!(shape.span());
    #[unroll(unroll)]
    for i in 0..comptime!(shape.blocking.rows) {
        let row = own_row(i, shape);
        let mut largest = maximum[i];
        for slot in 0..across {
            largest = max(largest, partial[row * across + slot]);
        }
        let shrink = (maximum[i] - largest).exp();
        maximum[i] = largest;
        let mut sum = total[i] * shrink;
        #[unroll(unroll)]
        for j in 0..columns {
            let weight = (scores[i * columns + j] - largest).exp();
            weights[row * comptime!(shape.blocking.others()) + own_column(j, shape)] = weight;
            sum += weight;
        }
        total[i] = sum;
        #[unroll(unroll)]
        for j in 0..span {
            sums[i * span + j] *= Vector::new(shrink);
        }
    }
}

/// Sums over the units that share a row, in order.
#[cube]
fn finish_totals(total: &mut Array<f32>, partial: &mut [f32], #[comptime] shape: Shape) {
    let (rows, across, unroll) = comptime!((shape.blocking.rows, shape.blocking.across, shape.unroll));
    sync_cube();
    #[unroll(unroll)]
    for i in 0..rows {
        partial[own_row(i, shape) * across + UNIT_POS as usize % across] = total[i];
    }
    sync_cube();
    #[unroll(unroll)]
    for i in 0..rows {
        let mut sum = 0.0f32;
        for slot in 0..across {
            sum += partial[own_row(i, shape) * across + slot];
        }
        total[i] = sum;
    }
}
