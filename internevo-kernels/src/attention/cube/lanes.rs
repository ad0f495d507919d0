//! What the lanes of a warp do together in the tensor-core routes: exchange values, round and pack them. By PTX instructions, or by
//! plain loops through shared memory on devices without them, so that everything around the instructions can be tested anywhere.
//! No products: those are each route's own.
//!
//! Fragments are PTX's of `mma.m16n8k16` (PTX ISA, "Matrix fragments for mma.m16n8k16"), which a warp's quarter of a `wgmma` has
//! too. With `g = lane / 4`, `t = lane % 4`, two adjacent 16-bit values per register, the first in the low half:
//! - A, 16×16, 4 registers: rows `g, g + 8`, then the same rows 8 columns on; columns `2t, 2t + 1`.
//! - B, 16×8, 2 registers: rows `2t, 2t + 1`, then 8 rows on; column `g`.
//! - C, 16×8, 4 f32: row `g`, columns `2t, 2t + 1`, then row `g + 8`.

use crate::cube::{BF16, ElemType, F16};
use cubecl::prelude::*;

/// Lanes of a warp.
pub(super) const LANES: u32 = 32;

/// Rows of a product's A operand, and columns of its B operand.
pub(super) const ROWS: usize = 16;
pub(super) const COLUMNS: usize = 8;

/// Values per copy to shared memory: 16 bytes.
pub(super) const CHUNK: usize = 8;

/// Words of shared memory per warp that emulation exchanges values through: A and B of one product.
const WORDS: usize = 6 * LANES as usize;

/// Where those of B begin.
const B_WORDS: usize = 4 * LANES as usize;

/// How instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Instructions {
    /// PTX, for values of this type.
    Ptx(Half),
    /// Loops and barriers over the whole cube, for f16: for tests.
    Emulated,
}

/// A 16-bit type as PTX spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Half {
    F16,
    Bf16,
}

impl Half {
    /// The type, if it is one of 16 bits.
    pub(super) fn of(elem: ElemType) -> Option<Self> {
        match elem {
            F16 => Some(Self::F16),
            BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn ptx(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl Instructions {
    pub(super) fn emulated(self) -> bool {
        self == Self::Emulated
    }

    /// Values per vector of the buffers: one copy of 16 bytes, or what every device can index.
    pub(super) fn vector(self) -> usize {
        if self.emulated() { 4 } else { CHUNK }
    }

    /// The type of values in an instruction's name.
    pub(super) fn ptx(self) -> &'static str {
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

/// A lane of a warp of the cube.
#[derive(CubeType)]
pub(super) struct Lanes {
    /// Of the cube's warps, this one; of its lanes, this one.
    pub warp: u32,
    pub lane: u32,
    /// Emulation's exchange.
    exchange: Shared<[u32]>,
    #[cube(comptime)]
    pub instructions: Instructions,
}

#[cube]
impl Lanes {
    /// The calling unit, in a cube of `warps` warps.
    pub fn new(#[comptime] warps: u32, #[comptime] instructions: Instructions) -> Lanes {
        let words = comptime!(if instructions.emulated() { warps as usize * WORDS } else { 1 });
        let exchange = Shared::<[u32]>::new_slice(words);
        Lanes { warp: UNIT_POS / LANES, lane: UNIT_POS % LANES, exchange, instructions }
    }

    /// Emulated: shows a word of each lane to the others. They see it until the next exchange.
    pub fn show(&mut self, word: u32) {
        let at = (self.warp * comptime!(WORDS as u32) + self.lane) as usize;
        sync_cube();
        self.exchange[at] = word;
        sync_cube();
    }

    /// Emulated: what `lane` showed.
    pub fn shown(&self, lane: u32) -> u32 {
        self.exchange[(self.warp * comptime!(WORDS as u32) + lane) as usize]
    }

    /// Emulated: shows fragments of A and B to the warp's other lanes.
    pub fn show_operands(&mut self, a: Quad, b_0: u32, b_1: u32) {
        let at = (self.warp * comptime!(WORDS as u32) + self.lane) as usize;
        sync_cube();
        #[unroll]
        for i in 0..4usize {
            self.exchange[at + comptime!(32 * i)] = a.extract(i);
        }
        self.exchange[at + B_WORDS] = b_0;
        self.exchange[at + comptime!(B_WORDS + 32)] = b_1;
        sync_cube();
    }

    /// Emulated: columns `2 pair, 2 pair + 1` of A in row `lane / 4`, or in the one 8 further.
    pub fn shown_a(&self, pair: u32, far_row: u32) -> u32 {
        let (far, t) = (pair / 4, pair % 4);
        let at = self.warp * comptime!(WORDS as u32);
        self.exchange[(at + (far * 2 + far_row) * 32 + self.lane / 4 * 4 + t) as usize]
    }

    /// Emulated: rows `2 pair, 2 pair + 1` of B in a column.
    pub fn shown_b(&self, pair: u32, column: u32) -> u32 {
        let (far, t) = (pair / 4, pair % 4);
        let at = self.warp * comptime!(WORDS as u32) + comptime!(B_WORDS as u32);
        self.exchange[(at + far * 32 + column * 4 + t) as usize]
    }

    /// Two values as one register.
    pub fn pack<F: Float>(&self, low: f32, high: f32) -> u32 {
        if comptime!(self.instructions.emulated()) {
            half_bits(f32::cast_from(F::cast_from(low))) | half_bits(f32::cast_from(F::cast_from(high))) << 16
        } else {
            pack_halves(low, high, comptime!(self.instructions.ptx()))
        }
    }

    /// Two neighbouring C fragments as one A fragment.
    pub fn pack_fragments<F: Float>(&self, near: Sums, far: Sums) -> Quad {
        let mut out = Quad::empty();
        out.insert(0usize, self.pack::<F>(near.extract(0usize), near.extract(1usize)));
        out.insert(1usize, self.pack::<F>(near.extract(2usize), near.extract(3usize)));
        out.insert(2usize, self.pack::<F>(far.extract(0usize), far.extract(1usize)));
        out.insert(3usize, self.pack::<F>(far.extract(2usize), far.extract(3usize)));
        out
    }

    /// `2^x`.
    pub fn exp2(&self, x: f32) -> f32 {
        if comptime!(self.instructions.emulated()) { (x * comptime!(std::f32::consts::LN_2)).exp() } else { ex2(x) }
    }

    /// Of two values of each lane, the largest among the four lanes that share rows of C.
    pub fn quad_max(&mut self, near: f32, far: f32) -> (f32, f32) {
        self.quad(near, far, false)
    }

    /// Of two values of each lane, the sum over the four lanes that share rows of C.
    pub fn quad_sum(&mut self, near: f32, far: f32) -> (f32, f32) {
        self.quad(near, far, true)
    }

    fn quad(&mut self, near: f32, far: f32, #[comptime] sum: bool) -> (f32, f32) {
        if comptime!(self.instructions.emulated()) {
            let at = (self.warp * comptime!(WORDS as u32) + self.lane) as usize;
            sync_cube();
            self.exchange[at] = u32::reinterpret(near);
            self.exchange[at + comptime!(LANES as usize)] = u32::reinterpret(far);
            sync_cube();
            let first = self.warp * comptime!(WORDS as u32) + self.lane / 4 * 4;
            let mut all_near = f32::reinterpret(self.exchange[first as usize]);
            let mut all_far = f32::reinterpret(self.exchange[(first + LANES) as usize]);
            for lane in 1..4u32 {
                let other_near = f32::reinterpret(self.exchange[(first + lane) as usize]);
                let other_far = f32::reinterpret(self.exchange[(first + LANES + lane) as usize]);
                all_near = combine(all_near, other_near, sum);
                all_far = combine(all_far, other_far, sum);
            }
            (all_near, all_far)
        } else {
            (butterfly(near, sum), butterfly(far, sum))
        }
    }
}

#[cube]
fn combine(a: f32, b: f32, #[comptime] sum: bool) -> f32 {
    if comptime!(sum) { a + b } else { max(a, b) }
}

#[cube]
fn butterfly(value: f32, #[comptime] sum: bool) -> f32 {
    let near = combine(value, plane_shuffle_xor(value, 1u32), sum);
    combine(near, plane_shuffle_xor(near, 2u32), sum)
}

/// The f16 of the same finite value, in the low half. Emulation packs by arithmetic because WGSL's translator has no cast from two
/// halves to a word: 2^-112 takes exponents of f16 to where their f32 has the same bits, 13 places up.
#[cube]
pub(super) fn half_bits(value: f32) -> u32 {
    let magnitude = u32::reinterpret(value.abs() * comptime!(f32::from_bits(15 << 23))) >> 13;
    magnitude | u32::reinterpret(value) >> 16 & 0x8000
}

/// The value of the finite f16 in the low half.
#[cube]
pub(super) fn half_value(bits: u32) -> f32 {
    let magnitude = f32::reinterpret((bits & 0x7FFF) << 13) * comptime!(f32::from_bits(239 << 23));
    select(bits & 0x8000 == 0, magnitude, -magnitude)
}

/// Address of a value in the shared window.
#[cube]
pub(super) fn shared_address<T: CubePrimitive>(value: &T) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 wide; cvta.to.shared.u64 wide, {value}; cvt.u32.u64 {address}, wide; }}",
        address = out(_) address, value = in(_) value, options(nomem),
    );
    address
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
