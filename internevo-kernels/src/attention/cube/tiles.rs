//! Which parts of the score matrix a launch visits: a list of tiles made on the host from segments and mask, longest first,
//! and the same rule for the elements of a tile on the device. No products.
//!
//! A cube *owns* some rows of one side and walks over the *other* side: queries over keys in the forward and for dQ, keys over
//! queries for dK and dV. The rule is the same both ways (see [`Side`]).

use crate::attention::{AttentionMask, Segments};
use crate::cube::{Buffer, Client};
use cubecl::prelude::*;
use std::cmp::Reverse;

/// Words of a tile in the list.
const WORDS: usize = 5;

/// Farther than any row, and far from the limits of `i32`.
const FAR: usize = 1 << 30;

/// Whose rows a cube owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Queries,
    Keys,
}

/// How far from the row that stands opposite to it an owned row sees. Seen from the keys, a causal mask has no bound ahead:
/// the queries that see a key are its own and later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) back: i32,
    pub(super) ahead: i32,
}

impl Span {
    pub(super) fn of(mask: AttentionMask, side: Side) -> Self {
        let window = mask.window.map_or(FAR, |window| (window - 1).min(FAR)) as i32;
        let ahead = if mask.causal { 0 } else { window };
        match side {
            Side::Queries => Self { back: window, ahead },
            Side::Keys => Self { back: ahead, ahead: window },
        }
    }
}

/// The list of tiles of `rows` owned rows, on the device.
pub(super) struct Work {
    pub(super) tiles: Buffer,
    /// Tiles in the list.
    pub(super) count: usize,
}

impl Work {
    /// Every row of `side` in exactly one tile; tiles with more of the other side to visit come first, so that no long one
    /// begins when the device is almost done.
    ///
    /// # Panics
    /// If there are 2^30 rows or more on either side: positions are `i32` in the kernels.
    pub(super) fn new(client: &Client, segments: &Segments, mask: AttentionMask, side: Side, rows: usize) -> Self {
        let largest = segments.queries().max(segments.keys());
        assert!(largest < FAR, "attention: {largest} tokens in one launch");
        let mut tiles = tiles(segments, mask, side, rows);
        tiles.sort_by_key(|tile| Reverse(tile[3] - tile[2]));
        Self { tiles: Buffer::from_u32(client, tiles.as_flattened()), count: tiles.len() }
    }
}

/// Per tile: owned rows `first..stop`, the other rows `first..stop` that any of them sees, and what added to an owned row gives
/// the other row that stands opposite to it.
fn tiles(segments: &Segments, mask: AttentionMask, side: Side, rows: usize) -> Vec<[u32; WORDS]> {
    let span = Span::of(mask, side);
    let mut list = Vec::new();
    for (queries, keys) in segments.iter() {
        let (own, other) = if side == Side::Queries { (queries, keys) } else { (keys, queries) };
        // Aligned at the end: the last query stands at the last key.
        let shift = other.end as i64 - own.end as i64;
        let bounds = (other.start as i64, other.end as i64);
        for first in own.clone().step_by(rows) {
            let stop = own.end.min(first + rows);
            let low = (first as i64 + shift - i64::from(span.back)).clamp(bounds.0, bounds.1);
            let high = (stop as i64 + shift + i64::from(span.ahead)).clamp(low, bounds.1);
            list.push([first as u32, stop as u32, low as u32, high as u32, shift as i32 as u32]);
        }
    }
    list
}

/// A tile of the list, in a kernel.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Tile {
    /// Owned rows.
    pub first: u32,
    pub stop: u32,
    /// The other rows that some owned row sees.
    pub other_first: u32,
    pub other_stop: u32,
    /// What added to an owned row gives the other row opposite to it.
    pub shift: i32,
    /// How far from there an owned row sees.
    pub back: i32,
    pub ahead: i32,
}

#[cube]
impl Tile {
    fn read(tiles: &[u32], index: usize, back: i32, ahead: i32) -> Tile {
        let at = index * WORDS;
        Tile {
            first: tiles[at],
            stop: tiles[at + 1],
            other_first: tiles[at + 2],
            other_stop: tiles[at + 3],
            shift: i32::cast_from(tiles[at + 4]),
            back,
            ahead,
        }
    }

    /// The tile of this cube, where each of `count` tiles has `cubes` of them, and which of those this one is. A cube too many
    /// ends here.
    pub fn open(tiles: &[u32], count: u32, back: i32, ahead: i32, #[comptime] cubes: u32) -> (Tile, u32) {
        let index = CUBE_POS / cubes as usize;
        if index >= count as usize {
            terminate!();
        }
        (Tile::read(tiles, index, back, ahead), (CUBE_POS % cubes as usize) as u32)
    }

    /// Whether the owned row `own` sees `other`. What a row beyond the tile sees does not matter: nobody stores it.
    pub fn sees(&self, own: u32, other: u32) -> bool {
        let distance = other as i32 - (own as i32 + self.shift);
        other < self.other_stop && distance <= self.ahead && distance >= -self.back
    }

    /// Whether all `owned` rows from `own` on see all `others` rows from `other` on.
    pub fn sees_all(&self, own: u32, other: u32, #[comptime] owned: u32, #[comptime] others: u32) -> bool {
        let (own_last, other_last) = (own + comptime!(owned - 1), other + comptime!(others - 1));
        self.sees(own, other_last) && self.sees(own_last, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn every_pair_that_the_mask_shows_lies_in_a_tile_of_either_side() {
        let mut random = Random::fresh();
        let segments = Segments::new(vec![0, 1, 1, 30, 77, 80], vec![0, 1, 4, 4, 60, 150]);
        for window in [None, Some(1), Some(random.between(2, 90))] {
            for causal in [true, false] {
                let mask = AttentionMask { causal, window };
                for side in [Side::Queries, Side::Keys] {
                    let tiles = tiles(&segments, mask, side, random.between(1, 40));
                    let mut pairs = 0;
                    for [first, stop, low, high, shift] in &tiles {
                        for (own, other) in (*first..*stop).flat_map(|own| (*low..*high).map(move |other| (own, other)))
                        {
                            let distance = other as i32 - (own as i32 + *shift as i32);
                            let span = Span::of(mask, side);
                            pairs += u64::from((-span.back..=span.ahead).contains(&distance));
                        }
                    }
                    assert_eq!(pairs, segments.pairs(mask), "{mask:?} {side:?}");
                    let rows: u32 = tiles.iter().map(|tile| tile[1] - tile[0]).sum();
                    let all = if side == Side::Queries { segments.queries() } else { segments.keys() };
                    assert_eq!(rows as usize, all);
                }
            }
        }
    }
}
