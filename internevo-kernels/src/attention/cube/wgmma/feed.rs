//! How tiles get to shared memory: one unit of a warp that does nothing else asks the tensor memory accelerator (TMA) for them, as
//! far ahead as there are stages; barriers in shared memory say when a tile is there and when its place is free again. Emulated,
//! all units of the cube copy a tile when they would wait for it.
//!
//! The accelerator knows the rows of a buffer, not segments: rows of a tile beyond its segment are those of the next one, and
//! zeros beyond the buffer. Scores of such keys are hidden like any other; such values are wiped ([`Feed::wipe`]), for a NaN
//! among them would survive its weight of zero.

use super::descriptor::{SPAN, chunk_byte};
use super::group::Group;
use super::{Place, Shape};
use crate::attention::cube::lanes::{CHUNK, LANES};
use crate::attention::cube::places::{Head, Rows};
use crate::attention::cube::tiles::Tile;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;

/// What there is a barrier for: the queries, and in each stage that keys or values are there, and that they are done with.
const QUERIES: usize = 0;
const KEYS: usize = 1;
const VALUES: usize = 2;
const KEYS_FREE: usize = 3;
const VALUES_FREE: usize = 4;

/// Barriers of `stages` stages.
pub(super) const fn barriers(stages: usize) -> usize {
    1 + 4 * stages
}

const BARRIER_BYTES: usize = 8;

/// Queries, keys and values as the accelerator knows them.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Maps<F: Float> {
    pub q: TensorMap<F, Tiled>,
    pub k: TensorMap<F, Tiled>,
    pub v: TensorMap<F, Tiled>,
}

/// What a cube reads, and the barriers about it.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Feed {
    /// Where the barriers begin in the shared window; 0 when emulated.
    pub barriers: u32,
    /// Queries and the keys they see, and the query head.
    pub tile: Tile,
    pub head: Head,
    #[cube(comptime)]
    pub shape: Shape,
}

#[cube]
impl Feed {
    /// Steps over the keys.
    pub fn steps(&self) -> u32 {
        (self.tile.other_stop - self.tile.other_first).div_ceil(comptime!(self.shape.tiling.keys as u32))
    }

    /// First key of a step.
    pub fn start(&self, step: u32) -> u32 {
        self.tile.other_first + step * comptime!(self.shape.tiling.keys as u32)
    }

    fn stage(&self, step: u32) -> u32 {
        step % comptime!(self.shape.tiling.stages as u32)
    }

    /// Parity of the phase in which a step's stage is filled.
    fn parity(&self, step: u32) -> u32 {
        step / comptime!(self.shape.tiling.stages as u32) % 2
    }

    fn barrier(&self, #[comptime] of: usize, stage: u32) -> u32 {
        let first = comptime!(if of == QUERIES { 0 } else { 1 + (of - 1) * self.shape.tiling.stages });
        self.barriers + comptime!((first * BARRIER_BYTES) as u32) + stage * comptime!(BARRIER_BYTES as u32)
    }

    /// Byte of the arena where the keys of a step lie.
    pub fn keys_byte(&self, step: u32) -> u32 {
        comptime!(self.shape.queries_bytes()) + self.stage(step) * comptime!(self.shape.tile_bytes())
    }

    /// Byte of the arena where the values of a step lie.
    pub fn values_byte(&self, step: u32) -> u32 {
        self.keys_byte(step) + comptime!(self.shape.tiling.stages as u32 * self.shape.tile_bytes())
    }

    /// Makes the barriers ready; all units take part, before anything else.
    pub fn open(&self) {
        let (stages, warps) = comptime!((self.shape.tiling.stages, self.shape.consumers() / LANES));
        if UNIT_POS == 0 {
            #[unroll]
            for i in 0..comptime!(1 + 2 * stages) {
                initialise(self.barriers + comptime!((i * BARRIER_BYTES) as u32), 1u32);
            }
            #[unroll]
            for i in 0..comptime!(2 * stages) {
                initialise(self.barriers + comptime!(((1 + 2 * stages + i) * BARRIER_BYTES) as u32), warps);
            }
            gpu_asm!("fence.proxy.async;");
        }
        sync_cube();
    }

    /// The queries, as rows of their buffer.
    fn queries(&self) -> Rows {
        Rows { first: self.tile.first, stop: self.tile.stop, head: self.head }
    }

    /// The keys from a step on; the values are the same rows.
    fn keys(&self, step: u32) -> Rows {
        let head = Head { group: self.head.group, member: 0u32.runtime() };
        Rows { first: self.start(step), stop: self.tile.other_stop, head }
    }

    /// Asks for every tile, each as soon as its place is free. One unit does this. Nothing is asked for that nobody waits for: the
    /// cube might end before it comes.
    pub fn produce<F: Float, N: Size>(&self, group: &mut Group<F, N>, maps: &Maps<F>, barriers: &[Barrier]) {
        let (stages, shape) = comptime!((self.shape.tiling.stages as u32, self.shape));
        let (owned, keys) = comptime!((shape.owned(), shape.tiling.keys));
        let [q, k, v] = comptime!(shape.places);
        if self.steps() > 0 {
            expect(self.barrier(QUERIES, 0u32), comptime!(shape.queries_bytes()));
            bring(group, &maps.q, &barriers[0], 0u32, &self.queries(), owned, q, shape);
        }
        for step in 0..self.steps() {
            let (stage, rows) = (self.stage(step), self.keys(step));
            // Before the first use of a stage this is the parity of a phase that counts as complete.
            let used = self.parity(step) ^ 1;
            await_phase(self.barrier(KEYS_FREE, stage), used);
            expect(self.barrier(KEYS, stage), comptime!(shape.tile_bytes()));
            bring(group, &maps.k, &barriers[(1 + stage) as usize], self.keys_byte(step), &rows, keys, k, shape);
            await_phase(self.barrier(VALUES_FREE, stage), used);
            expect(self.barrier(VALUES, stage), comptime!(shape.tile_bytes()));
            let barrier = &barriers[(comptime!(1 + stages) + stage) as usize];
            bring(group, &maps.v, barrier, self.values_byte(step), &rows, keys, v, shape);
        }
    }

    /// Waits for the queries.
    pub fn take_queries<F: Float, N: Size>(&self, group: &mut Group<F, N>, plain: ComptimeOption<&[Vector<F, N>]>) {
        let shape = comptime!(self.shape);
        if comptime!(shape.emulated()) {
            let (owned, place) = comptime!((shape.owned(), shape.places[0]));
            fill(group, plain.unwrap(), 0u32, &self.queries(), owned, place, shape);
        } else {
            await_phase(self.barrier(QUERIES, 0u32), 0u32);
        }
    }

    /// Waits for the keys of a step.
    pub fn take_keys<F: Float, N: Size>(
        &self,
        group: &mut Group<F, N>,
        plain: ComptimeOption<&[Vector<F, N>]>,
        step: u32,
    ) {
        let shape = comptime!(self.shape);
        if comptime!(shape.emulated()) {
            let (keys, place) = comptime!((shape.tiling.keys, shape.places[1]));
            fill(group, plain.unwrap(), self.keys_byte(step), &self.keys(step), keys, place, shape);
        } else {
            await_phase(self.barrier(KEYS, self.stage(step)), self.parity(step));
        }
    }

    /// Waits for the values of a step.
    pub fn take_values<F: Float, N: Size>(
        &self,
        group: &mut Group<F, N>,
        plain: ComptimeOption<&[Vector<F, N>]>,
        step: u32,
    ) {
        let shape = comptime!(self.shape);
        if comptime!(shape.emulated()) {
            let (keys, place) = comptime!((shape.tiling.keys, shape.places[2]));
            fill(group, plain.unwrap(), self.values_byte(step), &self.keys(step), keys, place, shape);
        } else {
            await_phase(self.barrier(VALUES, self.stage(step)), self.parity(step));
        }
    }

    /// Gives the keys' place of a step back. One lane of each warp says so.
    pub fn free_keys(&self, step: u32, lane: u32) {
        arrive(self.barrier(KEYS_FREE, self.stage(step)), lane);
    }

    /// Gives the values' place of a step back.
    pub fn free_values(&self, step: u32, lane: u32) {
        arrive(self.barrier(VALUES_FREE, self.stage(step)), lane);
    }

    /// Sets the values of a step that lie beyond the last key to zero. All units that read them take part.
    pub fn wipe<F: Float, N: Size>(&self, group: &mut Group<F, N>, step: u32) {
        let (keys, units) = comptime!((self.shape.tiling.keys as u32, self.shape.consumers()));
        let chunks = comptime!((self.shape.head_dim / CHUNK) as u32);
        let left = self.tile.other_stop - self.start(step);
        if left < keys {
            let mut i = left * chunks + UNIT_POS;
            while i < keys * chunks {
                let byte = self.values_byte(step) + chunk_byte(i / chunks, i % chunks, comptime!(keys as usize));
                put(group, byte, Vector::<F, N>::new(F::new(0.0)));
                i += units;
            }
            meet(self.shape);
        }
    }
}

/// Writes a vector to all of a chunk.
#[cube]
fn put<F: Float, N: Size>(group: &mut Group<F, N>, byte: u32, value: Vector<F, N>) {
    let lanes = N::value();
    #[unroll]
    for i in 0..comptime!(CHUNK / lanes) {
        group.arena[(byte / 2) as usize / lanes + i] = value;
    }
}

/// Makes what the cube's warpgroups wrote visible to their products.
#[cube]
fn meet(#[comptime] shape: Shape) {
    if comptime!(shape.emulated()) {
        sync_cube();
    } else {
        let units = comptime!(shape.consumers());
        gpu_asm!("fence.proxy.async; bar.sync 1, {units};");
    }
}

/// Emulated: copies the first `count` of some rows to a tile at a byte of the arena, as a tensor map with 128-byte swizzle does. Who read
/// another tile there has met the rest of the cube since: no two uses of a stage are without a softmax between them.
#[cube]
fn fill<F: Float, N: Size>(
    group: &mut Group<F, N>,
    source: &[Vector<F, N>],
    at: u32,
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] place: Place,
    #[comptime] shape: Shape,
) {
    let (chunks, lanes) = (comptime!((shape.head_dim / CHUNK) as u32), N::value());
    let mut i = UNIT_POS;
    while i < comptime!(count as u32 * chunks) {
        let (row, chunk) = (i / chunks, i % chunks);
        let from = rows.at(rows.first + row, place) + chunk as usize * comptime!(CHUNK / lanes);
        let to = (at + chunk_byte(row, chunk, count)) as usize / comptime!(2 * lanes);
        #[unroll]
        for part in 0..comptime!(CHUNK / lanes) {
            let mut value = Vector::<F, N>::new(F::new(0.0));
            if from + part < source.len() {
                value = source[from + part];
            }
            group.arena[to + part] = value;
        }
        i += comptime!(shape.consumers());
    }
    sync_cube();
}

/// Asks for the first `count` of some rows, block by block.
#[cube]
fn bring<F: Float, N: Size>(
    group: &mut Group<F, N>,
    map: &TensorMap<F, Tiled>,
    barrier: &Barrier,
    at: u32,
    rows: &Rows,
    #[comptime] count: usize,
    #[comptime] place: Place,
    #[comptime] shape: Shape,
) {
    let lanes = N::value();
    // Columns of the buffer's rows, in values.
    let column = (rows.at(0u32, place) * lanes) as i32;
    #[unroll]
    for block in 0..comptime!(shape.head_dim / SPAN) {
        let to = at as usize / comptime!(2 * lanes) + comptime!(block * count * SPAN / lanes);
        let end = to + comptime!(count * SPAN / lanes);
        barrier.tma_load_2d(
            map,
            &mut group.arena[to..end],
            rows.first as i32,
            column + comptime!((block * SPAN) as i32),
        );
    }
}

#[cube]
fn initialise(barrier: u32, #[comptime] arrivals: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{barrier}], {arrivals};", barrier = in(_) barrier);
}

/// Announces bytes, and arrives.
#[cube]
fn expect(barrier: u32, #[comptime] bytes: u32) {
    gpu_asm!("mbarrier.arrive.expect_tx.shared::cta.b64 _, [{barrier}], {bytes};", barrier = in(_) barrier);
}

/// Lane 0 arrives.
#[cube]
fn arrive(barrier: u32, lane: u32) {
    if lane == 0 {
        gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{barrier}];", barrier = in(_) barrier);
    }
}

/// Waits until the phase of this parity is complete.
#[cube]
fn await_phase(barrier: u32, parity: u32) {
    gpu_asm!(
        "{{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [{barrier}], {parity};",
        "@!done bra again; }}",
        barrier = in(_) barrier, parity = in(_) parity,
    );
}
