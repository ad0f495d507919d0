//! Flash attention in Hopper's tensor cores through `wgmma` (compute capability 9.0; FlashAttention-3's class, Shah et al., 2024):
//! one warpgroup of a cube brings tiles to shared memory by TMA, the others multiply and soften.
//!
//! Each of the latter owns 64 rows of queries. Scores are products of two tiles in shared memory; their weights go straight from
//! the registers of one product into those of the next. The scores of a step are under way while the sums of the step before are,
//! and warpgroups take turns: one's products run while the other softens.
//!
//! The forward only: the backward is that of the route `mma`.

mod descriptor;
mod feed;
mod forward;
mod group;

pub(super) use forward::forward;

use super::fragment::Fragments;
use super::lanes::{COLUMNS, Half, Instructions};
use super::places::{DeviceHeads, Place};
use super::{Attention, mma};
use crate::attention::Heads;
use crate::cube::{Client, ElemType};
use cubecl::features::Tma;
use descriptor::SPAN;
use group::{GROUP, GROUP_ROWS};

/// Widest head that fits the registers.
const WIDEST: usize = 256;

/// The instructions for values of `elem` on this device, if it is one for this route.
pub(super) fn instructions(client: &Client, elem: ElemType) -> Option<Instructions> {
    let properties = client.properties();
    let hopper = client.name().starts_with("cuda") && properties.identity.fingerprint == "ptx_sm90";
    let native = hopper && properties.features.tma.contains(Tma::Base);
    Half::of(elem).filter(|_| native).map(Instructions::Ptx)
}

/// Whether this can be computed here: whole blocks of columns, and all heads of a token in one row of its buffer, for these are
/// the two dimensions of a tensor map.
pub(super) fn serves(attention: &Attention<'_>, operands: &DeviceHeads<'_>) -> bool {
    let layout = attention.layout;
    let whole = layout.head_dim.is_multiple_of(SPAN) && layout.head_dim <= WIDEST;
    let some = attention.segments.queries() > 0 && attention.segments.keys() > 0;
    let in_row = |(view, members): (&Heads<_>, usize)| width(view, attention, members) <= view.row_stride;
    let members = [layout.q_per_kv, 1, 1];
    whole && some && mma::serves(layout, operands) && operands.iter().zip(members).all(in_row)
}

/// Columns of a buffer's rows as far as any head goes.
fn width<D>(view: &Heads<D>, attention: &Attention<'_>, members: usize) -> usize {
    view.at(0, attention.layout.kv_heads - 1, members - 1) + attention.layout.head_dim
}

/// The instructions, for a caller who insists on this route.
///
/// # Panics
/// If the device or the operands are not served.
pub(super) fn demand(client: &Client, attention: &Attention<'_>, operands: &DeviceHeads<'_>) -> Instructions {
    let elem = operands[0].data.elem;
    let instructions = instructions(client, elem).filter(|_| serves(attention, operands));
    let width = attention.layout.head_dim;
    instructions.unwrap_or_else(|| panic!("attention: no wgmma for heads of {width} {elem:?} here"))
}

/// How a cube works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::attention::cube) struct Tiling {
    /// Warpgroups that multiply, one or two: more would need another order of turns.
    pub(in crate::attention::cube) groups: u32,
    /// Keys of a step, a multiple of 16.
    pub(in crate::attention::cube) keys: usize,
    /// Steps whose keys and values there is room for.
    pub(in crate::attention::cube) stages: usize,
}

/// What a kernel of this route is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    tiling: Tiling,
    head_dim: usize,
    /// Query heads per key/value head, key/value heads.
    members: u32,
    groups: u32,
    /// Of queries, keys and values in vectors, of the output in pairs of values.
    places: [Place; 3],
    output_place: Place,
    instructions: Instructions,
}

impl Shape {
    fn new(attention: &Attention<'_>, operands: &DeviceHeads<'_>, tiling: Tiling, instructions: Instructions) -> Self {
        let layout = attention.layout;
        let places = operands.each_ref().map(|heads| Place::of(heads, instructions.vector()));
        Self {
            tiling,
            head_dim: layout.head_dim,
            members: layout.q_per_kv as u32,
            groups: layout.kv_heads as u32,
            places,
            output_place: Place::of(&layout.separate()[0], 2),
            instructions,
        }
    }

    fn emulated(self) -> bool {
        self.instructions.emulated()
    }

    /// Units that multiply, and all: a warpgroup more, as registers are handed from one to another by the group.
    fn consumers(self) -> u32 {
        self.tiling.groups * GROUP
    }

    fn units(self) -> u32 {
        self.consumers() + if self.emulated() { 0 } else { GROUP }
    }

    /// Queries that a cube owns.
    fn owned(self) -> usize {
        self.tiling.groups as usize * GROUP_ROWS
    }

    /// Bytes of the queries, of the keys or values of a step, and of all shared memory.
    fn queries_bytes(self) -> u32 {
        (2 * self.owned() * self.head_dim) as u32
    }

    fn tile_bytes(self) -> u32 {
        (2 * self.tiling.keys * self.head_dim) as u32
    }

    fn bytes(self) -> usize {
        self.queries_bytes() as usize + 2 * self.tiling.stages * self.tile_bytes() as usize
    }

    fn fragments(self) -> Fragments {
        let (scores, sums) = (self.tiling.keys / COLUMNS, self.head_dim / COLUMNS);
        Fragments { down: 1, scores, sums, unroll: !self.emulated() }
    }
}
