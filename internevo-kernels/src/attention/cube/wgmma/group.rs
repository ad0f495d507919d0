//! What a warpgroup of 128 units does in these kernels: asynchronous products of tiles in shared memory, by PTX instructions or,
//! as [`crate::attention::cube::lanes`] has it, by plain loops. The loops find their operands through the same descriptors and
//! give the same registers as the hardware, so a wrong field or layout shows in the result.
//!
//! Accumulators are PTX registers with names of their own, because they change under the hand of instructions that finish later:
//! no value of the kernel's language can stand for them. They are declared once, before any branch.

#![allow(clippy::manual_is_multiple_of, reason = "not a function of cubecl")]

use super::descriptor::{Descriptor, Major};
use crate::attention::cube::lanes::{COLUMNS, Instructions, LANES, Lanes, Quad, Sums, half_value, shared_address};
use cubecl::prelude::*;

/// Units of a warpgroup, and rows of its products.
pub(super) const GROUP: u32 = 4 * LANES;
pub(super) const GROUP_ROWS: usize = 64;

/// Hardware barriers of the turns of two warpgroups; barrier 0 is that of the whole cube, 1 of all warpgroups that multiply.
const FIRST_TURN: u32 = 2;

/// Sums of a product of 64 rows, in the registers of a warpgroup: each warp has C fragments of 16 rows, tile after tile.
#[derive(CubeType)]
pub(super) struct Accumulator {
    /// The registers, emulated.
    values: Array<f32>,
    #[cube(comptime)]
    name: &'static str,
    /// Columns of the product.
    #[cube(comptime)]
    columns: usize,
    #[cube(comptime)]
    instructions: Instructions,
}

#[cube]
impl Accumulator {
    /// Declares the registers `{name}0`, `{name}1`, … with nothing in them.
    pub fn new(
        #[comptime] name: &'static str,
        #[comptime] columns: usize,
        #[comptime] instructions: Instructions,
    ) -> Accumulator {
        let emulated = comptime!(instructions.emulated());
        let values = Array::<f32>::new(comptime!(if emulated { columns / 2 } else { 1 }));
        if comptime!(!emulated) {
            let count = comptime!(columns / 2);
            gpu_asm!(".reg .f32 {name}<{count}>;", options(nomem));
        }
        Accumulator { values, name, columns, instructions }
    }

    /// This warp's sums, 16×8 tile by tile.
    pub fn read(&self, out: &mut Array<Sums>) {
        if comptime!(self.instructions.emulated()) {
            for n in 0..comptime!(self.columns / COLUMNS) {
                let mut tile = Sums::empty();
                #[unroll]
                for c in 0..4usize {
                    tile.insert(c, self.values[4 * n + c]);
                }
                out[n] = tile;
            }
        } else {
            #[unroll]
            for n in 0..comptime!(self.columns / COLUMNS) {
                let mut tile = Sums::empty();
                #[unroll]
                for c in 0..4usize {
                    tile.insert(c, register(comptime!(self.name), comptime!(4 * n + c)));
                }
                out[n] = tile;
            }
        }
    }

    /// Multiplies the two rows of each lane, the nearer and the one 8 further.
    pub fn scale(&mut self, near: f32, far: f32) {
        if comptime!(self.instructions.emulated()) {
            for i in 0..comptime!(self.columns / 2) {
                self.values[i] *= select(i / 2 % 2 == 0, near, far);
            }
        } else {
            #[unroll]
            for i in 0..comptime!(self.columns / 4) {
                scale_register(comptime!(self.name), comptime!(i / 2 * 4 + i % 2), near);
                scale_register(comptime!(self.name), comptime!(i / 2 * 4 + i % 2 + 2), far);
            }
        }
    }

    /// Zeros.
    pub fn clear(&mut self) {
        if comptime!(self.instructions.emulated()) {
            for i in 0..comptime!(self.columns / 2) {
                self.values[i] = 0.0f32;
            }
        } else {
            #[unroll]
            for i in 0..comptime!(self.columns / 2) {
                clear_register(comptime!(self.name), comptime!(i));
            }
        }
    }
}

/// A warpgroup at work, and the shared memory of its cube.
#[derive(CubeType)]
pub(super) struct Group<F: Float, N: Size> {
    pub lanes: Lanes,
    /// All tiles, as 16-bit values.
    pub arena: Shared<[Vector<F, N>]>,
    /// Where the arena begins in the shared window; 0 when emulated.
    pub address: u32,
    #[cube(comptime)]
    pub instructions: Instructions,
}

#[cube]
impl<F: Float, N: Size> Group<F, N> {
    /// The calling unit's warpgroup, in a cube of `units`.
    pub fn new(
        arena: Shared<[Vector<F, N>]>,
        #[comptime] units: u32,
        #[comptime] instructions: Instructions,
    ) -> Group<F, N> {
        let mut lanes = Lanes::new(comptime!(units / LANES), instructions);
        let mut address = 0u32.runtime();
        if comptime!(!instructions.emulated()) {
            // The compiler keeps descriptors in a warp's own registers if it sees that all lanes agree.
            lanes.warp = plane_shuffle(lanes.warp, 0u32);
            address = shared_address::<Vector<F, N>>(&arena[0]);
        }
        Group::<F, N> { lanes, arena, address, instructions }
    }

    /// Which of the cube's warpgroups this is.
    pub fn index(&self) -> u32 {
        self.lanes.warp / comptime!(GROUP / LANES)
    }

    /// Before the first product that reads or adds to registers which were changed since the last.
    pub fn begin(&self) {
        gpu_asm!("wgmma.fence.sync.aligned;");
    }

    /// Ends a batch of products.
    pub fn commit(&self) {
        gpu_asm!("wgmma.commit_group.sync.aligned;");
    }

    /// Waits until no more than `pending` batches are under way.
    pub fn wait(&self, #[comptime] pending: u32) {
        gpu_asm!("wgmma.wait_group.sync.aligned {pending};");
    }

    /// Lets the first of two warpgroups begin.
    pub fn open_turns(&self, #[comptime] groups: u32) {
        if comptime!(groups == 2) {
            let second = self.index() == 1;
            if second {
                self.pass_turn(groups);
            }
        }
    }

    /// Waits until the other of two warpgroups has begun its products: while they run, this one begins its own, which wait for
    /// the tensor cores, and the other softens.
    pub fn take_turn(&self, #[comptime] groups: u32) {
        if comptime!(groups == 2) {
            let (barrier, units) = (self.index() + FIRST_TURN, comptime!(2 * GROUP));
            gpu_asm!("bar.sync {barrier}, {units};", barrier = in(_) barrier);
        }
    }

    /// Lets the other of two warpgroups begin its products.
    pub fn pass_turn(&self, #[comptime] groups: u32) {
        if comptime!(groups == 2) {
            let (barrier, units) = (1 - self.index() + FIRST_TURN, comptime!(2 * GROUP));
            gpu_asm!("bar.arrive {barrier}, {units};", barrier = in(_) barrier);
        }
    }

    /// Begins `sums = a · b`, or `sums += a · b` to `keep` them: 16 values of K of the 64 rows of A and the columns of B.
    pub fn multiply(&mut self, sums: &mut Accumulator, a: Descriptor, b: Descriptor, keep: bool) {
        if comptime!(self.instructions.emulated()) {
            for i in 0..comptime!(sums.columns / 2) {
                let (row, column) = self.place(i as u32);
                let row = self.lanes.warp % 4 * 16 + row;
                let mut sum = select(keep, sums.values[i], 0.0f32);
                for k in 0..16u32 {
                    sum += self.value(a.byte(row, k, Major::K)) * self.value(b.byte(column, k, Major::K));
                }
                sums.values[i] = sum;
            }
        } else {
            multiply_shared(
                comptime!(sums.name),
                comptime!(sums.columns),
                a,
                b,
                u32::cast_from(keep),
                comptime!(self.instructions.ptx()),
            );
        }
    }

    /// Begins `sums += a · b`, where A is in registers, each warp's 16 rows an A fragment, and K runs across the rows of B's tile.
    pub fn add_weighted(&mut self, sums: &mut Accumulator, a: Quad, b: Descriptor) {
        if comptime!(self.instructions.emulated()) {
            self.lanes.show_operands(a, 0u32, 0u32);
            for i in 0..comptime!(sums.columns / 2) {
                let (row, column) = self.place(i as u32);
                let mut sum = sums.values[i];
                for pair in 0..8u32 {
                    let left = self.lanes.shown_a(pair, row / 8);
                    sum += half_value(left) * self.value(b.byte(column, 2 * pair, Major::Across));
                    sum += half_value(left >> 16) * self.value(b.byte(column, 2 * pair + 1, Major::Across));
                }
                sums.values[i] = sum;
            }
        } else {
            multiply_registers(comptime!(sums.name), comptime!(sums.columns), a, b, comptime!(self.instructions.ptx()));
        }
    }

    /// Emulated: row among the warp's 16 and column of the product whose sum is in register `i` (PTX ISA, "Register Fragments",
    /// matrix D of `wgmma.mma_async.m64nNk16`).
    fn place(&self, i: u32) -> (u32, u32) {
        let lane = self.lanes.lane;
        (lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2)
    }

    /// Emulated: the value at a byte of the arena.
    fn value(&self, byte: u32) -> f32 {
        let (lanes, at) = (N::value(), (byte / 2) as usize);
        f32::cast_from(self.arena[at / lanes].extract_dynamic(at % lanes))
    }
}

#[cube]
fn register(#[comptime] name: &'static str, #[comptime] i: usize) -> f32 {
    let out: f32;
    gpu_asm!("mov.f32 {out}, {name}{i};", out = out(_) out, options(nomem));
    out
}

#[cube]
fn scale_register(#[comptime] name: &'static str, #[comptime] i: usize, factor: f32) {
    gpu_asm!("mul.f32 {name}{i}, {name}{i}, {factor};", factor = in(_) factor, options(nomem));
}

#[cube]
fn clear_register(#[comptime] name: &'static str, #[comptime] i: usize) {
    gpu_asm!("mov.f32 {name}{i}, 0f00000000;", options(nomem));
}

/// `{s0, s1, …}`.
fn registers(name: &str, columns: usize) -> String {
    let names: Vec<_> = (0..columns / 2).map(|i| format!("{name}{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

#[cube]
fn multiply_shared(
    #[comptime] name: &'static str,
    #[comptime] columns: usize,
    a: Descriptor,
    b: Descriptor,
    keep: u32,
    #[comptime] half: &'static str,
) {
    let sums = comptime!(registers(name, columns));
    gpu_asm!(
        "{{ .reg .b64 a, b; .reg .pred p;",
        "mov.b64 a, {{{a_low}, {a_high}}}; mov.b64 b, {{{b_low}, {b_high}}}; setp.ne.b32 p, {keep}, 0;",
        "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{half}.{half} {sums}, a, b, p, 1, 1, 0, 0; }}",
        a_low = in(_) a.low, a_high = in(_) a.high, b_low = in(_) b.low, b_high = in(_) b.high, keep = in(_) keep,
    );
}

#[cube]
fn multiply_registers(
    #[comptime] name: &'static str,
    #[comptime] columns: usize,
    a: Quad,
    b: Descriptor,
    #[comptime] half: &'static str,
) {
    let sums = comptime!(registers(name, columns));
    gpu_asm!(
        "{{ .reg .b64 b; .reg .pred p; mov.b64 b, {{{b_low}, {b_high}}}; setp.eq.b32 p, 0, 0;",
        "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{half}.{half} {sums}, {a}, b, p, 1, 1, 1; }}",
        a = in(_) a, b_low = in(_) b.low, b_high = in(_) b.high,
    );
}
