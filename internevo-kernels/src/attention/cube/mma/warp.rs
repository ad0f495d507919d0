//! What a warp of 32 lanes does in the tensor-core kernels: the PTX instructions, and the same done by plain loops through shared
//! memory on devices without them, so that everything around the instructions can be tested anywhere.
//!
//! Fragments are PTX's of `mma.m16n8k16` (PTX ISA, "Matrix fragments for mma.m16n8k16"). With `g = lane / 4`, `t = lane % 4`, two
//! adjacent 16-bit values per register, the first in the low half:
//! - A, 16×16, 4 registers: rows `g, g + 8`, then the same rows 8 columns on; columns `2t, 2t + 1`.
//! - B, 16×8, 2 registers: rows `2t, 2t + 1`, then 8 rows on; column `g`.
//! - C, 16×8, 4 f32: row `g`, columns `2t, 2t + 1`, then row `g + 8`.

use super::CHUNK;
use cubecl::prelude::*;

/// Lanes of a warp.
pub(super) const LANES: u32 = 32;

/// Words of shared memory per warp that emulation exchanges values through: A and B of one product.
const WORDS: usize = 6 * LANES as usize;

/// Where those of B begin.
const B_WORDS: usize = 4 * LANES as usize;

/// How instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::attention::cube) enum Instructions {
    /// PTX for compute capability 8.0 and later, for values of this type.
    Ptx(Half),
    /// Loops and barriers over the whole cube, for finite f16: for tests.
    Emulated,
}

/// A 16-bit type as PTX spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::attention::cube) enum Half {
    F16,
    Bf16,
}

impl Half {
    fn ptx(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl Instructions {
    fn emulated(self) -> bool {
        self == Self::Emulated
    }

    /// Values per vector of the buffers: one copy of 16 bytes, or what every device can index.
    pub(super) fn vector(self) -> usize {
        if self.emulated() { 4 } else { CHUNK }
    }

    fn ptx(self) -> &'static str {
        match self {
            Self::Ptx(half) => half.ptx(),
            Self::Emulated => unreachable!("emulation has no instructions"),
        }
    }
}

/// Four registers of two 16-bit values each.
pub(super) type Quad = Vector<u32, Const<4>>;

/// One lane's part of a 16×8 tile of sums.
pub(super) type Sums = Vector<f32, Const<4>>;

/// A warp at work: who it is, and the shared memory of its cube.
#[derive(CubeType)]
pub(super) struct Warp<F: Float, N: Size> {
    /// Of the cube's warps, this one; of its lanes, this one.
    pub index: u32,
    pub lane: u32,
    /// All tiles, as 16-bit values.
    pub arena: Shared<[Vector<F, N>]>,
    /// Where the arena begins in the shared window; 0 when emulated.
    pub address: u32,
    /// Emulation's exchange.
    pub exchange: Shared<[u32]>,
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
        let words = comptime!(if instructions.emulated() { warps as usize * WORDS } else { 1 });
        let exchange = Shared::<[u32]>::new_slice(words);
        let mut address = 0u32.runtime();
        if comptime!(!instructions.emulated()) {
            address = shared_address::<F, N>(&arena[0]);
        }
        Warp::<F, N> { index: UNIT_POS / LANES, lane: UNIT_POS % LANES, arena, address, exchange, instructions }
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
        let exchange = self.index as usize * WORDS;
        sync_cube();
        self.exchange[exchange + self.lane as usize] = at;
        sync_cube();
        let (g, t) = (self.lane / 4, self.lane % 4);
        let lanes = N::value();
        let mut out = Quad::empty();
        #[unroll]
        for i in 0..4usize {
            let mut pair = 0u32.runtime();
            #[unroll]
            for e in 0..2usize {
                let row = if comptime!(transposed) { t * 2 + comptime!(e as u32) } else { g };
                let column = if comptime!(transposed) { g } else { t * 2 + comptime!(e as u32) };
                let start = self.exchange[exchange + comptime!(8 * i) + row as usize];
                let index = (start + column) as usize;
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
        let exchange = self.index as usize * WORDS;
        let lane = self.lane as usize;
        sync_cube();
        #[unroll]
        for i in 0..4usize {
            self.exchange[exchange + comptime!(32 * i) + lane] = a.extract(i);
        }
        self.exchange[exchange + B_WORDS + lane] = b_0;
        self.exchange[exchange + B_WORDS + 32usize + lane] = b_1;
        sync_cube();
        let (g, t) = (lane / 4, lane % 4);
        let mut out = sums;
        #[unroll]
        for c in 0..4usize {
            let column = t * 2 + comptime!(c % 2);
            let mut sum = sums.extract(c);
            // Pairs of rows of B; the row of A is g, or g + 8 in the odd registers.
            for pair in 0..8usize {
                let (far, t) = (pair / 4, pair % 4);
                let left = self.exchange[exchange + (far * 2 + comptime!(c / 2)) * 32 + g * 4 + t];
                let right = self.exchange[exchange + B_WORDS + far * 32 + column * 4 + t];
                sum += half_value(left) * half_value(right);
                sum += half_value(left >> 16) * half_value(right >> 16);
            }
            out.insert(c, sum);
        }
        out
    }

    /// Two values as one register.
    pub fn pack(&self, low: f32, high: f32) -> u32 {
        if comptime!(self.instructions.emulated()) {
            half_bits(f32::cast_from(F::cast_from(low))) | half_bits(f32::cast_from(F::cast_from(high))) << 16
        } else {
            pack_halves(low, high, comptime!(self.instructions.ptx()))
        }
    }

    /// `2^x`.
    pub fn exp2(&self, x: f32) -> f32 {
        if comptime!(self.instructions.emulated()) { (x * comptime!(std::f32::consts::LN_2)).exp() } else { ex2(x) }
    }

    /// The largest value of the four lanes that share a row of C.
    pub fn quad_max(&mut self, value: f32) -> f32 {
        let near = max(value, self.exchange_xor(value, 1u32));
        max(near, self.exchange_xor(near, 2u32))
    }

    /// The sum over the four lanes that share a row of C.
    pub fn quad_sum(&mut self, value: f32) -> f32 {
        let near = value + self.exchange_xor(value, 1u32);
        near + self.exchange_xor(near, 2u32)
    }

    fn exchange_xor(&mut self, value: f32, mask: u32) -> f32 {
        if comptime!(self.instructions.emulated()) {
            let exchange = self.index as usize * WORDS;
            sync_cube();
            self.exchange[exchange + self.lane as usize] = u32::reinterpret(value);
            sync_cube();
            f32::reinterpret(self.exchange[exchange + (self.lane ^ mask) as usize])
        } else {
            plane_shuffle_xor(value, mask)
        }
    }
}

/// The f16 of the same value, in the low half. Emulation packs by arithmetic because WGSL's translator has no cast from two halves
/// to a word: 2^-112 takes exponents of f16 to where their f32 has the same bits, 13 places up.
#[cube]
fn half_bits(value: f32) -> u32 {
    let magnitude = u32::reinterpret(value.abs() * comptime!(f32::from_bits(15 << 23))) >> 13;
    magnitude | u32::reinterpret(value) >> 16 & 0x8000
}

/// The value of the f16 in the low half.
#[cube]
fn half_value(bits: u32) -> f32 {
    let magnitude = f32::reinterpret((bits & 0x7FFF) << 13) * comptime!(f32::from_bits(239 << 23));
    select(bits & 0x8000 == 0, magnitude, -magnitude)
}

/// Address of a value in the shared window.
#[cube]
fn shared_address<F: Float, N: Size>(value: &Vector<F, N>) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 wide; cvta.to.shared.u64 wide, {value}; cvt.u32.u64 {address}, wide; }}",
        address = out(_) address, value = in(_) value, options(nomem),
    );
    address
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

#[cube]
fn pack_halves(low: f32, high: f32, #[comptime] half: &'static str) -> u32 {
    let out: u32;
    gpu_asm!(
        "cvt.rn.{half}x2.f32 {out}, {high}, {low};",
        out = out(_) out, high = in(_) high, low = in(_) low, options(pure, nomem),
    );
    out
}

#[cube]
fn ex2(x: f32) -> f32 {
    let out: f32;
    gpu_asm!("ex2.approx.ftz.f32 {out}, {x};", out = out(_) out, x = in(_) x, options(pure, nomem));
    out
}
