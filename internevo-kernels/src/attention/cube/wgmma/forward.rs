//! The forward: a cube owns queries of one head and walks over the keys they see; scores, their weights and the sums stay in
//! registers.

use super::descriptor::{Descriptor, Major, REPEAT, SPAN};
use super::feed::{Feed, Maps, MapsLaunch, barriers};
use super::group::{Accumulator, GROUP_ROWS, Group};
use super::{Instructions, Shape, Tiling, width};
use crate::attention::Heads;
use crate::attention::cube::fragment::{Fragments, finish, hide, soften, store};
use crate::attention::cube::lanes::{Lanes, Quad, ROWS, Sums, shared_address};
use crate::attention::cube::places::{DeviceHeads, Head, Rows};
use crate::attention::cube::tiles::{Side, Span, Tile, Work};
use crate::attention::cube::{Attention, HIDDEN, LOWEST_MAXIMUM};
use crate::cube::{Buffer, Client, ElemType, F32, Machine, address_type};
use cubecl::prelude::barrier::Barrier;
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
    let [q, k, v] = operands;
    let tiling = tiling.unwrap_or_else(|| tiling_for(layout.head_dim));
    let shape = Shape::new(attention, operands, tiling, instructions);
    let work = Work::new(client, attention.segments, attention.mask, Side::Queries, shape.owned());
    let span = Span::of(attention.mask, Side::Queries);
    let queries = attention.segments.queries();
    let output = Buffer::empty(client, queries * layout.output_width(), elem);
    let lse = Buffer::empty(client, queries * layout.heads(), F32);
    let maps = (!shape.emulated()).then(|| {
        let keys = attention.segments.keys();
        let map = |view, rows, members, tile| tensor_map(view, [rows, width(view, attention, members)], tile, elem);
        MapsLaunch::new(
            map(q, queries, layout.q_per_kv, shape.owned()),
            map(k, keys, 1, shape.tiling.keys),
            map(v, keys, 1, shape.tiling.keys),
        )
    });
    let plain = |view: &Heads<&Buffer>| shape.emulated().then(|| view.data.arg());
    // SAFETY: the caller checked that the rows of all segments lie inside the views; rows of a tile and of its other side are
    // rows of one segment, and a cube without a tile stops. Tensor maps keep reads inside the rows there are, emulation checks.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            machine.count(work.count * layout.heads()),
            CubeDim::new_1d(shape.units()),
            address_type(&[q.data, k.data, v.data, &output]),
            instructions.vector(),
            maps.into(),
            plain(q).into(),
            plain(k).into(),
            plain(v).into(),
            output.arg(),
            lse.arg(),
            work.tiles.arg(),
            work.count as u32,
            attention.scale,
            span.back,
            span.ahead,
            shape,
            elem,
        );
    }
    (output, lse)
}

/// The buffer's rows as a matrix, in boxes of `tile` rows and as many columns as the swizzle spans.
fn tensor_map(view: &Heads<&Buffer>, shape: [usize; 2], tile: usize, elem: ElemType) -> TensorMapArg<Tiled> {
    let strides = [view.row_stride, 1];
    // SAFETY: the caller checked that the last head of the last row lies in the buffer, and the matrix ends there.
    let tensor = unsafe { TensorArg::from_raw_parts(view.data.handle.clone(), strides.into(), shape.into()) };
    TensorMapArg::new(TiledArgs { tile_size: [tile, SPAN].into() }, tensor, elem)
        .with_swizzle(TensorMapSwizzle::B128)
        .with_prefetch(TensorMapPrefetch::B256)
}

/// Sums, scores and weights fill what registers there are: 32 + 64 + 32 of a unit, 64 + 64 + 32, 96 + 32 + 16 or 128 + 32 + 16.
fn tiling_for(head_dim: usize) -> Tiling {
    Tiling { groups: 2, keys: if head_dim <= 128 { 128 } else { 64 }, stages: 2 }
}

/// Registers that a unit gives away or gets, of the 168 that each of three warpgroups starts with.
const FEW_REGISTERS: u32 = 24;
const MANY_REGISTERS: u32 = 240;

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    maps: ComptimeOption<Maps<F>>,
    q: ComptimeOption<&[Vector<F, N>]>,
    k: ComptimeOption<&[Vector<F, N>]>,
    v: ComptimeOption<&[Vector<F, N>]>,
    output: &mut [Vector<F, Const<2>>],
    lse: &mut [f32],
    tiles: &[u32],
    count: u32,
    scale: f32,
    back: i32,
    ahead: i32,
    #[comptime] shape: Shape,
    #[define(F)] _elem: ElemType,
) {
    let (tile, index) = Tile::open(tiles, count, back, ahead, comptime!(shape.members * shape.groups));
    let head = Head::of(index, comptime!(shape.members));
    let values = comptime!(shape.bytes() / 2);
    let per_vector = N::value();
    let arena = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(values / per_vector), REPEAT);
    let mut group = Group::<F, N>::new(arena, comptime!(shape.units()), comptime!(shape.instructions));
    let mut products = Accumulator::new("score", comptime!(shape.tiling.keys), comptime!(shape.instructions));
    let mut sums = Accumulator::new("sum", comptime!(shape.head_dim), comptime!(shape.instructions));
    if comptime!(shape.emulated()) {
        let feed = Feed { barriers: 0u32.runtime(), tile, head, shape };
        attend(&mut group, &feed, q, k, v, &mut products, &mut sums, output, lse, scale);
    } else {
        let barriers = Shared::<[Barrier]>::new_slice(comptime!(barriers(shape.tiling.stages)));
        let feed = Feed { barriers: shared_address::<Barrier>(&barriers[0]), tile, head, shape };
        feed.open();
        if UNIT_POS >= comptime!(shape.consumers()) {
            gpu_asm!("setmaxnreg.dec.sync.aligned.u32 {FEW_REGISTERS};", options(nomem));
            if UNIT_POS == comptime!(shape.consumers()) {
                feed.produce(&mut group, &maps.unwrap(), &barriers);
            }
        } else {
            gpu_asm!("setmaxnreg.inc.sync.aligned.u32 {MANY_REGISTERS};", options(nomem));
            attend(&mut group, &feed, q, k, v, &mut products, &mut sums, output, lse, scale);
        }
    }
}

/// All a warpgroup does for its 64 rows of queries.
#[cube]
fn attend<F: Float, N: Size>(
    group: &mut Group<F, N>,
    feed: &Feed,
    q: ComptimeOption<&[Vector<F, N>]>,
    k: ComptimeOption<&[Vector<F, N>]>,
    v: ComptimeOption<&[Vector<F, N>]>,
    products: &mut Accumulator,
    sums: &mut Accumulator,
    output: &mut [Vector<F, Const<2>>],
    lse: &mut [f32],
    scale: f32,
) {
    let (shape, fragments) = comptime!((feed.shape, feed.shape.fragments()));
    let mut softmax = Softmax::new(scale * comptime!(std::f32::consts::LOG2_E), fragments);
    sums.clear();
    if feed.steps() > 0 {
        if comptime!(shape.emulated()) {
            walk_emulated(group, feed, q, k, v, products, sums, &mut softmax);
        } else {
            walk(group, feed, q, k, v, products, sums, &mut softmax);
        }
    }
    let first = feed.tile.first + group.lanes.warp * comptime!(ROWS as u32);
    let rows = Rows { first, stop: feed.tile.stop, head: feed.head };
    let mut factors = Array::<f32>::new(2usize);
    finish(
        &mut group.lanes,
        &softmax.maximum,
        &softmax.total,
        &mut factors,
        lse,
        &rows,
        scale,
        comptime!([shape.groups, shape.members]),
        fragments,
    );
    let mut result = Array::<Sums>::new(comptime!(fragments.sums));
    sums.read(&mut result);
    store(&result, &factors, output, &rows, group.lanes.lane, 0u32, comptime!(shape.output_place), fragments);
}

/// All steps: sums of values, weighted.
#[cube]
fn walk<F: Float, N: Size>(
    group: &mut Group<F, N>,
    feed: &Feed,
    q: ComptimeOption<&[Vector<F, N>]>,
    k: ComptimeOption<&[Vector<F, N>]>,
    v: ComptimeOption<&[Vector<F, N>]>,
    products: &mut Accumulator,
    sums: &mut Accumulator,
    softmax: &mut Softmax,
) {
    let groups = comptime!(feed.shape.tiling.groups);
    let (steps, lane) = (feed.steps(), group.lanes.lane);
    let mut weights = Array::<Quad>::new(comptime!(feed.shape.tiling.keys / 16));
    feed.take_queries(group, q);
    feed.take_keys(group, k, 0u32);
    group.begin();
    score(group, feed, 0u32, products);
    group.commit();
    group.wait(0u32);
    feed.free_keys(0u32, lane);
    softmax.soften(group, feed, 0u32, products);
    softmax.pack::<F>(&group.lanes, &mut weights);
    group.open_turns(groups);
    if steps > 1 {
        feed.take_keys(group, k, 1u32);
    }
    for step in 1..steps {
        let (before, after) = (step - 1, step + 1);
        group.take_turn(groups);
        group.begin();
        score(group, feed, step, products);
        group.commit();
        feed.take_values(group, v, before);
        add(group, feed, before, &weights, sums);
        group.commit();
        group.pass_turn(groups);
        group.wait(1u32);
        feed.free_keys(step, lane);
        softmax.soften(group, feed, step, products);
        // In this order: with no branch between, the compiler would wait for the sums before it softens the scores.
        if after < steps {
            feed.take_keys(group, k, after);
        }
        group.wait(0u32);
        feed.free_values(before, lane);
        sums.scale(softmax.shrink[0usize], softmax.shrink[1usize]);
        softmax.pack::<F>(&group.lanes, &mut weights);
    }
    let last = steps - 1;
    feed.take_values(group, v, last);
    feed.wipe(group, last);
    group.begin();
    add(group, feed, last, &weights, sums);
    group.commit();
    group.wait(0u32);
}

/// The same steps in the same order, neither the first nor the last of them apart: software Vulkan compiles copies for minutes.
#[cube]
fn walk_emulated<F: Float, N: Size>(
    group: &mut Group<F, N>,
    feed: &Feed,
    q: ComptimeOption<&[Vector<F, N>]>,
    k: ComptimeOption<&[Vector<F, N>]>,
    v: ComptimeOption<&[Vector<F, N>]>,
    products: &mut Accumulator,
    sums: &mut Accumulator,
    softmax: &mut Softmax,
) {
    let steps = feed.steps();
    let mut weights = Array::<Quad>::new(comptime!(feed.shape.tiling.keys / 16));
    feed.take_queries(group, q);
    for step in 0..steps + 1 {
        if step < steps {
            feed.take_keys(group, k, step);
            score(group, feed, step, products);
        }
        if step > 0 {
            feed.take_values(group, v, step - 1);
            feed.wipe(group, step - 1);
            add(group, feed, step - 1, &weights, sums);
        }
        if step < steps {
            softmax.soften(group, feed, step, products);
            sums.scale(softmax.shrink[0usize], softmax.shrink[1usize]);
            softmax.pack::<F>(&group.lanes, &mut weights);
        }
    }
}

/// Begins the products of the group's queries with the keys of a step.
#[cube]
fn score<F: Float, N: Size>(group: &mut Group<F, N>, feed: &Feed, step: u32, products: &mut Accumulator) {
    let shape = comptime!(feed.shape);
    let (owned, keys) = comptime!((shape.owned(), shape.tiling.keys));
    let own = group.index() * comptime!((GROUP_ROWS * 2 * SPAN) as u32);
    let a = Descriptor::new(group.address + own, owned);
    let b = Descriptor::new(group.address + feed.keys_byte(step), keys);
    #[unroll(!shape.emulated())]
    for depth in 0..comptime!((shape.head_dim / 16) as u32) {
        let (a, b) = (a.at_depth(depth, owned, Major::K), b.at_depth(depth, keys, Major::K));
        group.multiply(products, a, b, depth > 0);
    }
}

/// Begins to add the values of a step, weighted.
#[cube]
fn add<F: Float, N: Size>(
    group: &mut Group<F, N>,
    feed: &Feed,
    step: u32,
    weights: &Array<Quad>,
    sums: &mut Accumulator,
) {
    let keys = comptime!(feed.shape.tiling.keys);
    let b = Descriptor::new(group.address + feed.values_byte(step), keys);
    #[unroll(!feed.shape.emulated())]
    for depth in 0..comptime!(keys / 16) {
        group.add_weighted(sums, weights[depth], b.at_depth(depth as u32, keys, Major::Across));
    }
}

/// The online softmax of a warp's 16 rows, two of them in each lane.
#[derive(CubeType)]
struct Softmax {
    /// Scores of a step, then their weights.
    scores: Array<Sums>,
    maximum: Array<f32>,
    total: Array<f32>,
    /// What the last step multiplied earlier sums by.
    shrink: Array<f32>,
    scale: f32,
    #[cube(comptime)]
    fragments: Fragments,
}

#[cube]
impl Softmax {
    /// Before any step; `scale` includes the change from e to 2.
    fn new(scale: f32, #[comptime] fragments: Fragments) -> Softmax {
        let scores = Array::<Sums>::new(comptime!(fragments.scores));
        let mut maximum = Array::<f32>::new(2usize);
        let mut total = Array::<f32>::new(2usize);
        let shrink = Array::<f32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            maximum[half] = LOWEST_MAXIMUM;
            total[half] = 0.0f32;
        }
        Softmax { scores, maximum, total, shrink, scale, fragments }
    }

    /// Makes weights of the scores of a step.
    fn soften<F: Float, N: Size>(
        &mut self,
        group: &mut Group<F, N>,
        feed: &Feed,
        step: u32,
        products: &mut Accumulator,
    ) {
        let (tile, start, keys) = (feed.tile, feed.start(step), comptime!(feed.shape.tiling.keys as u32));
        products.read(&mut self.scores);
        if !tile.sees_all(tile.first + group.index() * comptime!(GROUP_ROWS as u32), start, GROUP_ROWS as u32, keys) {
            let first = tile.first + group.lanes.warp * comptime!(ROWS as u32);
            hide(&tile, &mut self.scores, first, start, group.lanes.lane, HIDDEN, comptime!(self.fragments));
        }
        soften(
            &mut group.lanes,
            &mut self.scores,
            &mut self.maximum,
            &mut self.total,
            &mut self.shrink,
            0usize,
            self.scale,
            comptime!(self.fragments),
        );
    }

    /// Weights as fragments of the next product's A.
    fn pack<F: Float>(&self, lanes: &Lanes, weights: &mut Array<Quad>) {
        #[unroll]
        for i in 0..comptime!(self.fragments.scores / 2) {
            let (near, far) = (self.scores[comptime!(2 * i)], self.scores[comptime!(2 * i + 1)]);
            weights[i] = lanes.pack_fragments::<F>(near, far);
        }
    }
}
