//! The backward, once for dQ and once for dK and dV: a cube owns rows of one side, walks over the other side, computes the
//! scores again and sums. One kernel serves both (see [`Side`]); nothing is added from two cubes, so results repeat to the bit.

use super::tile::{add_weighted, load, own_column, own_row, products, store};
use super::{Blocking, Place, Shape};
use crate::attention::cube::Attention;
use crate::attention::cube::places::{Head, Rows, vector};
use crate::attention::cube::sides::Launch;
use crate::attention::cube::tiles::{Side, Span, Tile, Work};
use crate::cube::{Client, ElemType, Machine, address_type};
use cubecl::prelude::*;

/// Writes the gradients of one side; `blocking` overrides the choice made from the machine.
pub(in crate::attention::cube) fn backward(
    client: &Client,
    launch: &Launch<'_>,
    attention: &Attention<'_>,
    blocking: Option<Blocking>,
) {
    let Launch { side, own, other, out, statistics } = *launch;
    let machine = Machine::of(client);
    let (layout, mask) = (attention.layout, attention.mask);
    let elem = own[0].data.elem;
    let views = [own, other, out].as_flattened().iter().map(|heads| heads.on(())).collect::<Vec<_>>();
    let vector = vector(&machine, elem, layout.head_dim, &views);
    let loads = layout.head_dim / vector;
    let shared = |blocking: Blocking| {
        let row = (loads + 1) * vector * elem.size();
        let (owned, others) = (blocking.owned(), blocking.others());
        2 * (owned + others) * row + 8 * owned * others
    };
    let blocking = blocking.unwrap_or_else(|| Blocking::fitting(&machine, shared));
    let work = Work::new(client, attention.segments, mask, side, blocking.owned());
    let heads = if side == Side::Queries { layout.heads() } else { layout.kv_heads };
    let span = Span::of(mask, side);
    let (members, groups) = (layout.q_per_kv as u32, layout.kv_heads as u32);
    let shape = Shape { blocking, members, groups, loads, unroll: machine.unroll };
    let place = |heads| Place::of(&heads, vector);
    // SAFETY: the caller checked that the rows of all segments lie inside the views; rows of a tile and of its other side
    // are rows of one segment, and a cube without a tile stops.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            machine.count(work.count * heads),
            CubeDim::new_1d(blocking.units()),
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
            out.map(place),
            shape,
            side,
            elem,
        );
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    own_0: &[Vector<F, N>],
    own_1: &[Vector<F, N>],
    other_0: &[Vector<F, N>],
    other_1: &[Vector<F, N>],
    lse: &[f32],
    delta: &[f32],
    out_0: &mut [Vector<F, N>],
    out_1: &mut [Vector<F, N>],
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
    let (tile, index) = Tile::open(tiles, count, back, ahead, heads);
    let head = Head::of(index, comptime!(if by_keys { 1 } else { shape.members }));
    let own = Rows { first: tile.first, stop: tile.stop, head };
    let (rows, columns, unroll) = comptime!((shape.blocking.rows, shape.blocking.columns, shape.unroll));
    let (owned, others) = comptime!((shape.blocking.owned(), shape.blocking.others()));
    let (stride, slots) = comptime!((shape.stride(), if by_keys { columns } else { rows }));
    let mut mine_0 = Shared::<[Vector<F, N>]>::new_slice(comptime!(owned * stride));
    let mut mine_1 = Shared::<[Vector<F, N>]>::new_slice(comptime!(owned * stride));
    let mut theirs_0 = Shared::<[Vector<F, N>]>::new_slice(comptime!(others * stride));
    let mut theirs_1 = Shared::<[Vector<F, N>]>::new_slice(comptime!(others * stride));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(owned * others));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(if by_keys { owned * others } else { 1 }));
    let mut scores = Array::<f32>::new(comptime!(rows * columns));
    let mut d_weights = Array::<f32>::new(comptime!(rows * columns));
    let mut row_lse = Array::<f32>::new(slots);
    let mut row_delta = Array::<f32>::new(slots);
    let mut sums_0 = Array::<Vector<f32, N>>::new(comptime!(rows * shape.span()));
    let mut sums_1 = Array::<Vector<f32, N>>::new(comptime!(if by_keys { rows * shape.span() } else { 1 }));
    #[unroll(unroll)]
    for i in 0..comptime!(rows * shape.span()) {
        sums_0[i] = Vector::new(0.0f32);
        if comptime!(by_keys) {
            sums_1[i] = Vector::new(0.0f32);
        }
    }
    load::<F, N>(own_0, &mut mine_0, &own, owned, comptime!(own_places[0]), shape);
    load::<F, N>(own_1, &mut mine_1, &own, owned, comptime!(own_places[1]), shape);
    for pass in 0..passes {
        let query_head = if comptime!(by_keys) { index * comptime!(shape.members) + pass } else { index };
        let mut start = tile.other_first;
        while start < tile.other_stop {
            let step = Rows { first: start, stop: tile.other_stop, head: Head { group: head.group, member: pass } };
            sync_cube();
            load::<F, N>(other_0, &mut theirs_0, &step, others, comptime!(other_places[0]), shape);
            load::<F, N>(other_1, &mut theirs_1, &step, others, comptime!(other_places[1]), shape);
            sync_cube();
            products::<F, N>(&mine_0, &theirs_0, &mut scores, shape);
            products::<F, N>(&mine_1, &theirs_1, &mut d_weights, shape);
            #[unroll(unroll)]
            for i in 0..slots {
                let row = if comptime!(by_keys) {
                    start + own_column(i, shape) as u32
                } else {
                    tile.first + own_row(i, shape) as u32
                };
                let last = if comptime!(by_keys) { tile.other_stop } else { tile.stop };
                let at = min(row, last - 1) as usize * comptime!((shape.groups * shape.members) as usize)
                    + query_head as usize;
                row_lse[i] = lse[at];
                row_delta[i] = delta[at];
            }
            #[unroll(unroll)]
            for i in 0..rows {
                #[unroll(unroll)]
                for j in 0..columns {
                    let (row, column) = (own_row(i, shape), own_column(j, shape));
                    let slot = if comptime!(by_keys) { j } else { i };
                    let seen = tile.sees(tile.first + row as u32, start + column as u32);
                    let score = scores[i * columns + j] * scale;
                    let weight = select(seen, (score - row_lse[slot]).exp(), 0.0f32);
                    let slope = select(seen, weight * (d_weights[i * columns + j] - row_delta[slot]), 0.0f32);
                    slopes[row * others + column] = slope;
                    if comptime!(by_keys) {
                        weights[row * others + column] = weight;
                    }
                }
            }
            sync_cube();
            add_weighted::<F, N>(&slopes, &theirs_0, &mut sums_0, shape);
            if comptime!(by_keys) {
                add_weighted::<F, N>(&weights, &theirs_1, &mut sums_1, shape);
            }
            start += comptime!(others as u32);
        }
    }
    let mut factors = Array::<f32>::new(rows);
    fill(&mut factors, scale, shape);
    store::<F, N>(&sums_0, &factors, out_0, &own, comptime!(out_places[0]), shape);
    if comptime!(by_keys) {
        fill(&mut factors, 1.0f32, shape);
        store::<F, N>(&sums_1, &factors, out_1, &own, comptime!(out_places[1]), shape);
    }
}

#[cube]
fn fill(factors: &mut Array<f32>, value: f32, #[comptime] shape: Shape) {
    #[unroll(shape.unroll)]
    for i in 0..comptime!(shape.blocking.rows) {
        factors[i] = value;
    }
}
