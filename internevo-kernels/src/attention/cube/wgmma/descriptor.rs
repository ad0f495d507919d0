//! Matrices in shared memory as `wgmma` is told of them (PTX ISA, "Asynchronous warpgroup level matrix shared memory layout"): the
//! 64-bit descriptor, made for the hardware and read back by the emulation.
//!
//! Tiles here lie in blocks of 64 values, 128 bytes, a row: block `b` holds columns `64 b` to `64 b + 63` of all rows of its tile,
//! one row after the other, with the 16-byte chunks of a row permuted by the row's number ("128-byte swizzle"). That is what a
//! tensor map of boxes 64 values wide makes of them, it puts eight rows of a chunk into different banks, and it serves both ways
//! of reading: along the rows as K (queries and keys) and across them (values).

use cubecl::prelude::*;

/// Values in a row of a block, and its bytes: the span of the swizzle.
pub(super) const SPAN: usize = 64;
const SPAN_BYTES: u32 = 2 * SPAN as u32;

/// Bytes of eight rows of a block, after which the swizzle repeats; blocks begin at multiples of it.
pub(super) const REPEAT: usize = 8 * 2 * SPAN;

/// Bytes of one row of A or B, 16 values of K.
const DEPTH_BYTES: u32 = 32;

/// Fields: addresses and offsets in units of 16 bytes, 14 bits each; the swizzle in the two highest bits.
const FIELD: u32 = 0x3FFF;
const LEADING_AT: u32 = 16;
const SWIZZLE_AT: u32 = 30;
const SWIZZLE_128: u32 = 1;

/// How a tile's rows lie in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Major {
    /// Rows of the tile are rows of A, or columns of B; K runs along them.
    K,
    /// K runs across the rows of the tile.
    Across,
}

/// The two words of a descriptor, the lower first.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Descriptor {
    pub low: u32,
    pub high: u32,
}

#[cube]
impl Descriptor {
    /// Of a tile whose blocks have `rows` rows, at a byte of the shared window.
    pub fn new(address: u32, #[comptime] rows: usize) -> Descriptor {
        // From one block to the next, where K runs across (along K the field is not read: a product stays in one block); from
        // eight rows to the next.
        let leading = comptime!((rows as u32 * SPAN_BYTES) >> 4 << LEADING_AT);
        let high = comptime!((REPEAT as u32) >> 4 | SWIZZLE_128 << SWIZZLE_AT);
        Descriptor { low: address >> 4 & FIELD | leading, high: high.runtime() }
    }

    /// The descriptor for 16 values of K from `16 step` on.
    pub fn at_depth(&self, step: u32, #[comptime] rows: usize, #[comptime] major: Major) -> Descriptor {
        let bytes = if comptime!(major == Major::K) {
            let per_block = comptime!(SPAN_BYTES / DEPTH_BYTES);
            step / per_block * comptime!(rows as u32 * SPAN_BYTES) + step % per_block * DEPTH_BYTES
        } else {
            step * comptime!(16 * SPAN_BYTES)
        };
        Descriptor { low: self.low + bytes / 16, high: self.high }
    }

    /// The byte where the hardware reads value `k` of row `row` of A, or of column `row` of B: the canonical layouts of the
    /// swizzled modes (128, 64 and 32 bytes are modes 1, 2 and 3; nobody here uses mode 0). For the emulation.
    pub fn byte(&self, row: u32, k: u32, #[comptime] major: Major) -> u32 {
        let start = (self.low & FIELD) << 4;
        let leading = (self.low >> LEADING_AT & FIELD) << 4;
        let stride = (self.high & FIELD) << 4;
        let mode = self.high >> SWIZZLE_AT;
        let span = 256 >> mode;
        let linear = if comptime!(major == Major::K) {
            start + row % 8 * span + row / 8 * stride + 2 * k
        } else {
            let block = span / 2;
            start + row % block * 2 + row / block * leading + k % 8 * span + k / 8 * stride
        };
        // Bits 4 and up of the address are changed by as many from bit 7 on.
        linear ^ (linear >> 3 & (span - 16))
    }
}

/// The byte of a tile, from its begin on, to which a tensor map with 128-byte swizzle brings the 16-byte chunk `chunk` of a row.
#[cube]
pub(super) fn chunk_byte(row: u32, chunk: u32, #[comptime] rows: usize) -> u32 {
    let per_span = comptime!(SPAN_BYTES / 16);
    chunk / per_span * comptime!(rows as u32 * SPAN_BYTES) + row * SPAN_BYTES + ((chunk % per_span) ^ (row % 8)) * 16
}
