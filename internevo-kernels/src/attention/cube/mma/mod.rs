//! Flash attention in tensor cores through `mma.sync` (compute capability 8.0 and later; FlashAttention-2's class): scores,
//! probabilities and sums live in registers, operands in shared memory, filled by `cp.async` one step ahead.
//!
//! Each warp owns rows of 16; a step covers some rows of the other side. Probabilities leave one product as the C fragment and
//! enter the next as the A fragment, because the two layouts agree. Rows in shared memory are 16 bytes longer than a head, so
//! the eight rows of an 8×8 matrix lie in different banks.
//!
//! The instructions have an emulation that runs on any device: the tests of this route run the kernels around it.

mod backward;
mod forward;
mod tile;
mod warp;

pub(super) use backward::backward;
pub(super) use forward::forward;

use super::Attention;
use super::fragment::Fragments;
use super::lanes::{CHUNK, COLUMNS, Half, Instructions, LANES, ROWS};
use super::places::{DeviceHeads, Place, aligned};
use super::tiles::Side;
use crate::attention::QkvLayout;
use crate::cube::{Client, ElemType};
use cubecl::ir::features::MmaConfig;

/// Widest head that fits the registers.
const WIDEST: usize = 256;

/// The instructions for values of `elem` on this device, if it is one for this route.
pub(super) fn instructions(client: &Client, elem: ElemType) -> Option<Instructions> {
    let half = Half::of(elem)?;
    let has =
        |config: &MmaConfig| (config.a_type, config.b_type, config.m, config.n, config.k) == (elem, elem, 16, 8, 16);
    let native = client.name().starts_with("cuda") && client.properties().features.matmul.mma.iter().any(has);
    native.then_some(Instructions::Ptx(half))
}

/// Whether heads of this kind can be computed here: whole fragments, and rows that begin at multiples of 16 bytes.
pub(super) fn serves(layout: QkvLayout, operands: &DeviceHeads<'_>) -> bool {
    let whole = layout.head_dim.is_multiple_of(ROWS) && layout.head_dim <= WIDEST;
    whole && aligned(operands, CHUNK)
}

/// The instructions, for a caller who insists on this route.
///
/// # Panics
/// If the device or the operands are not served.
pub(super) fn demand(client: &Client, layout: QkvLayout, operands: &DeviceHeads<'_>) -> Instructions {
    let elem = operands[0].data.elem;
    let instructions = instructions(client, elem).filter(|_| serves(layout, operands));
    instructions.unwrap_or_else(|| panic!("attention: no tensor cores for heads of {} {elem:?} here", layout.head_dim))
}

/// How a cube's warps share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::attention::cube) struct Tiling {
    /// Warps of a cube, and fragments of 16 rows that each owns.
    pub(in crate::attention::cube) warps: u32,
    pub(in crate::attention::cube) fragments: usize,
    /// Rows of the other side per step.
    pub(in crate::attention::cube) others: usize,
    /// Parts in which the columns of a result are computed, by cubes that each compute all scores.
    pub(in crate::attention::cube) parts: usize,
}

/// What a kernel of this route is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    tiling: Tiling,
    head_dim: usize,
    /// Values per vector of the buffers.
    vector: usize,
    /// Query heads per key/value head, key/value heads.
    members: u32,
    groups: u32,
    instructions: Instructions,
}

impl Shape {
    fn new(attention: &Attention<'_>, tiling: Tiling, vector: usize, instructions: Instructions) -> Self {
        let layout = attention.layout;
        Self {
            tiling,
            head_dim: layout.head_dim,
            vector,
            members: layout.q_per_kv as u32,
            groups: layout.kv_heads as u32,
            instructions,
        }
    }

    fn units(self) -> u32 {
        self.tiling.warps * LANES
    }

    /// Rows that a warp owns, and a cube.
    fn warp_rows(self) -> usize {
        self.tiling.fragments * ROWS
    }

    fn owned(self) -> usize {
        self.tiling.warps as usize * self.warp_rows()
    }

    /// Values from one row in shared memory to the next.
    fn stride(self) -> usize {
        self.head_dim + CHUNK
    }

    /// Tiles of 8 columns among the scores of a step, and in a unit's part of a result.
    fn score_tiles(self) -> usize {
        self.tiling.others / COLUMNS
    }

    fn sum_tiles(self) -> usize {
        self.head_dim / COLUMNS / self.tiling.parts
    }

    /// Queries that a lane has scores of.
    fn slots(self, side: Side) -> usize {
        if side == Side::Keys { 2 * self.score_tiles() } else { 2 * self.tiling.fragments }
    }

    /// Values of a step's two tiles, and of all shared memory with `own` owned tiles and two steps.
    fn step_values(self) -> usize {
        2 * self.tiling.others * self.stride()
    }

    fn values(self, own: usize) -> usize {
        own * self.owned() * self.stride() + 2 * self.step_values()
    }

    fn unroll(self) -> bool {
        !self.instructions.emulated()
    }

    fn fragments(self) -> Fragments {
        let (down, unroll) = (self.tiling.fragments, self.unroll());
        Fragments { down, scores: self.score_tiles(), sums: self.sum_tiles(), unroll }
    }
}
