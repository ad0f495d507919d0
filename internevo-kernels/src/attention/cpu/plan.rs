//! Which block of queries attends to which stretches of keys. Arithmetic on positions only; the kernels follow the plan.

use super::{KEY_TILE, QkvLayout, tile::Mask};
use crate::attention::{AttentionMask, Runs, Segments};
use std::ops::Range;

/// Stacked query rows that a tile aims at, over all heads of a group.
const TILE_ROWS: usize = 128;

/// Query positions per tile. More would waste work at the edges of the mask, fewer would starve the matrix products.
fn query_block(q_per_kv: usize) -> usize {
    (TILE_ROWS / q_per_kv).clamp(16, 64)
}

/// Queries of adjacent positions in one segment, to be handled by one task.
#[derive(Clone, Debug)]
pub(super) struct QueryBlock {
    /// First row in the buffer of queries.
    pub start: usize,
    /// How many positions.
    pub len: usize,
    /// What they attend to, as a range of [`Plan::spans`]; never empty.
    pub spans: Range<usize>,
}

/// Keys of adjacent positions, each seen by at least one query of a block.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// First row in the buffer of keys.
    row: usize,
    /// How many keys.
    keys: usize,
    /// The first key that the first query sees, and one past its last, counted from the span's first and not cut to the
    /// span. Those of each next query are one further.
    visible: (isize, isize),
}

/// A part of a span that is handled at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// First row in the buffer of keys.
    pub row: usize,
    /// What each query of the block sees of it.
    pub mask: Mask,
}

/// The work in one segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its blocks, as a range of [`Plan::blocks`]; never empty.
    pub blocks: Range<usize>,
    /// Rows of the buffer of keys that belong to it.
    pub keys: Range<usize>,
}

/// Adjacent rows that hold adjacent positions.
#[derive(Clone, Debug)]
struct Part {
    row: usize,
    positions: Range<isize>,
}

/// All work of attention inside segments: pairs of blocks and keys that see nothing of each other are not in it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub blocks: Vec<QueryBlock>,
    spans: Vec<Span>,
    pub segments: Vec<Segment>,
}

impl Plan {
    /// The work for the tokens `queries` and `keys` of a packed micro-batch with these segments; tokens are positions.
    pub fn packed(layout: QkvLayout, queries: &Runs, keys: &Runs, cu_seqlens: &[u32], mask: AttentionMask) -> Self {
        let mut plan = Self::default();
        for pair in cu_seqlens.windows(2) {
            let parts = |runs: &Runs| -> Vec<Part> {
                let inside = runs.inside(pair[0] as usize..pair[1] as usize);
                inside.map(|(row, t)| Part { row, positions: t.start as isize..t.end as isize }).collect()
            };
            plan.add_segment(layout, mask, &parts(queries), &parts(keys));
        }
        plan
    }

    /// The work for segments that may have other numbers of queries than of keys: the last query stands at the last key.
    pub fn aligned(layout: QkvLayout, segments: &Segments, mask: AttentionMask) -> Self {
        let mut plan = Self::default();
        for (queries, keys) in segments.iter() {
            let end = keys.len() as isize;
            let queries = Part { row: queries.start, positions: end - queries.len() as isize..end };
            let keys = Part { row: keys.start, positions: 0..end };
            plan.add_segment(layout, mask, &[queries], &[keys]);
        }
        plan
    }

    /// `keys` are the parts of one segment, their rows adjacent.
    fn add_segment(&mut self, layout: QkvLayout, mask: AttentionMask, queries: &[Part], keys: &[Part]) {
        let first_block = self.blocks.len();
        for part in queries {
            self.add_blocks(layout, mask, part, keys);
        }
        if self.blocks.len() > first_block {
            let (first, last) = (&keys[0], &keys[keys.len() - 1]);
            let keys = first.row..last.row + last.positions.len();
            self.segments.push(Segment { blocks: first_block..self.blocks.len(), keys });
        }
    }

    /// Cuts adjacent queries into blocks and lists what each sees of `keys`.
    fn add_blocks(&mut self, layout: QkvLayout, mask: AttentionMask, queries: &Part, keys: &[Part]) {
        let size = query_block(layout.q_per_kv);
        for done in (0..queries.positions.len()).step_by(size) {
            let first = queries.positions.start + done as isize;
            let len = size.min(queries.positions.len() - done);
            let (visible, last) = (mask.visible(first), mask.visible(first + len as isize - 1));
            let first_span = self.spans.len();
            self.spans.extend(keys.iter().filter_map(|part| {
                let start = visible.start.max(part.positions.start);
                let end = last.end.min(part.positions.end);
                (start < end).then(|| Span {
                    row: part.row + (start - part.positions.start) as usize,
                    keys: (end - start) as usize,
                    visible: (visible.start - start, visible.end - start),
                })
            }));
            let spans = first_span..self.spans.len();
            if !spans.is_empty() {
                self.blocks.push(QueryBlock { start: queries.row + done, len, spans });
            }
        }
    }

    /// What `block` attends to, in tiles of at most [`KEY_TILE`] keys.
    pub fn tiles(&self, block: &QueryBlock) -> impl Iterator<Item = Tile> {
        let positions = block.len;
        self.spans[block.spans.clone()].iter().flat_map(move |span| {
            (0..span.keys).step_by(KEY_TILE).map(move |start| {
                let visible = (span.visible.0 - start as isize, span.visible.1 - start as isize);
                let mask = Mask { positions, visible, keys: KEY_TILE.min(span.keys - start) };
                Tile { row: span.row + start, mask }
            })
        })
    }
}
