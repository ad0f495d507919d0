//! What a warp of 32 lanes does in these kernels: copies, loads and products, by PTX instructions or by plain loops through shared
//! memory, as [`crate::attention::cube::lanes`] has it, where fragments are described too.

use crate::attention::cube::lanes::{Instructions, Lanes, Quad, Sums, half_bits, half_value, shared_address};
use cubecl::prelude::*;

/// A warp at work, and the shared memory of its cube.
#[derive(CubeType)]
pub(super) struct Warp<F: Float, N: Size> {
    pub lanes: Lanes,
    /// All tiles, as 16-bit values.
    pub arena: Shared<[Vector<F, N>]>,
    /// Where the arena begins in the shared window; 0 when emulated.
    pub address: u32,
    #[cube(comptime)]
    pub instructions: Instructions,
}

#[cube]
impl<F: Float, N: Size> Warp<F, N> {
    /// The calling unit's warp, with an arena of `values` values.
    pub fn new(
        #[comptime] values: usize,
        #[comptime] warps: u32,
        #[comptime] instructions: Instructions,
    ) -> Warp<F, N> {
        let per_vector = N::value();
        let arena = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(values / per_vector), 16usize);
        let lanes = Lanes::new(warps, instructions);
        let mut address = 0u32.runtime();
        if comptime!(!instructions.emulated()) {
            address = shared_address::<Vector<F, N>>(&arena[0]);
        }
        Warp::<F, N> { lanes, arena, address, instructions }
    }

    /// Begins to copy 8 values, 16 bytes, to `at` in the arena; zeros unless `inside`. Emulated: copies them now.
    pub fn copy(&mut self, source: &[Vector<F, N>], from: usize, at: u32, inside: bool) {
        if comptime!(self.instructions.emulated()) {
            let lanes = N::value();
            #[unroll]
            for i in 0..comptime!(8 / lanes) {
                let mut value = Vector::<F, N>::new(F::new(0.0));
                if inside {
                    value = source[from + i];
                }
                self.arena[at as usize / lanes + i] = value;
            }
        } else {
            copy_16::<F, N>(&source[from], self.address + at * 2, select(inside, 16u32, 0u32));
        }
    }

    /// Waits for all copies of this unit; a barrier makes those of the others visible.
    pub fn wait(&self) {
        if comptime!(!self.instructions.emulated()) {
            gpu_asm!("cp.async.wait_all;");
        }
    }

    /// Four 8×8 matrices of 16-bit values: lane `8i + r` gives the place of row `r` of matrix `i`, lane `l` gets of each the
    /// columns `2t, 2t + 1` of row `g`; if `transposed`, of the transposed matrix.
    pub fn load(&mut self, at: u32, #[comptime] transposed: bool) -> Quad {
        if comptime!(self.instructions.emulated()) {
            self.emulated_load(at, transposed)
        } else {
            ldmatrix(self.address + at * 2, transposed)
        }
    }

    fn emulated_load(&mut self, at: u32, #[comptime] transposed: bool) -> Quad {
        self.lanes.show(at);
        let (g, t) = (self.lanes.lane / 4, self.lanes.lane % 4);
        let lanes = N::value();
        let mut out = Quad::empty();
        #[unroll]
        for i in 0..4usize {
            let mut pair = 0u32.runtime();
            #[unroll]
            for e in 0..2usize {
                let row = if comptime!(transposed) { t * 2 + comptime!(e as u32) } else { g };
                let column = if comptime!(transposed) { g } else { t * 2 + comptime!(e as u32) };
                let index = (self.lanes.shown(comptime!(8 * i as u32) + row) + column) as usize;
                let value = f32::cast_from(self.arena[index / lanes].extract_dynamic(index % lanes));
                pair |= half_bits(value) << comptime!(16 * e as u32);
            }
            out.insert(i, pair);
        }
        out
    }

    /// `a · b + sums`.
    pub fn multiply(&mut self, a: Quad, b_0: u32, b_1: u32, sums: Sums) -> Sums {
        if comptime!(self.instructions.emulated()) {
            self.emulated_multiply(a, b_0, b_1, sums)
        } else {
            mma(a, b_0, b_1, sums, comptime!(self.instructions.ptx()))
        }
    }

    fn emulated_multiply(&mut self, a: Quad, b_0: u32, b_1: u32, sums: Sums) -> Sums {
        self.lanes.show_operands(a, b_0, b_1);
        let mut out = sums;
        #[unroll]
        for c in 0..4usize {
            let column = self.lanes.lane % 4 * 2 + comptime!(c as u32 % 2);
            let mut sum = sums.extract(c);
            for pair in 0..8u32 {
                let left = self.lanes.shown_a(pair, comptime!(c as u32 / 2));
                let right = self.lanes.shown_b(pair, column);
                sum += half_value(left) * half_value(right);
                sum += half_value(left >> 16) * half_value(right >> 16);
            }
            out.insert(c, sum);
        }
        out
    }
}

/// Begins to copy 16 bytes to shared memory past the first-level cache: `bytes` of them, zeros for the rest.
#[cube]
fn copy_16<F: Float, N: Size>(source: &Vector<F, N>, address: u32, bytes: u32) {
    gpu_asm!(
        "cp.async.cg.shared.global [{address}], [{source}], 16, {bytes};",
        address = in(_) address, source = in(_) source, bytes = in(_) bytes,
    );
}

#[cube]
fn ldmatrix(address: u32, #[comptime] transposed: bool) -> Quad {
    let trans = comptime!(if transposed { ".trans" } else { "" });
    let out: Quad;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {out}, [{address}];",
        out = out(_) out, address = in(_) address,
    );
    out
}

#[cube]
fn mma(a: Quad, b_0: u32, b_1: u32, sums: Sums, #[comptime] half: &'static str) -> Sums {
    let out: Sums;
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.{half}.{half}.f32 {out}, {a}, {{{b_0}, {b_1}}}, {sums};",
        out = out(_) out, a = in(_) a, b_0 = in(_) b_0, b_1 = in(_) b_1, sums = in(_) sums,
        options(pure, nomem),
    );
    out
}
