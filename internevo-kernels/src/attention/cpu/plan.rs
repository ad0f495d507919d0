//! Which block of queries attends to which stretches of keys. Arithmetic on positions only; the kernels follow the plan.

use super::{KEY_TILE, QkvLayout};
use crate::attention::Runs;
use std::ops::Range;

/// Stacked query rows that a tile aims at, over all heads of a group.
const TILE_ROWS: usize = 128;

/// Query positions per tile. More would waste work above the diagonal, fewer would starve the matrix products.
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

/// Keys of adjacent positions of which at least the last query of a block sees all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// First row in the buffer of keys.
    pub row: usize,
    /// How many keys.
    pub keys: usize,
    /// How many of them the first query sees, if they went on in both directions; each next query sees one more.
    pub visible: isize,
}

/// The work in one segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its blocks, as a range of [`Plan::blocks`]; never empty.
    pub blocks: Range<usize>,
    /// Rows of the buffer of keys that belong to it.
    pub keys: Range<usize>,
}

/// All work of causal attention inside segments: pairs of queries and keys that see nothing of each other are not in it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub blocks: Vec<QueryBlock>,
    pub spans: Vec<Span>,
    pub segments: Vec<Segment>,
}

impl Plan {
    /// The work for the tokens `queries` and `keys` of a micro-batch with these segments.
    pub fn new(layout: QkvLayout, queries: &Runs, keys: &Runs, cu_seqlens: &[u32]) -> Self {
        let mut plan = Self::default();
        for pair in cu_seqlens.windows(2) {
            let segment = pair[0] as usize..pair[1] as usize;
            let first_block = plan.blocks.len();
            for (row, tokens) in queries.inside(segment.clone()) {
                plan.add_blocks(layout, row, tokens, keys.inside(segment.clone()).collect());
            }
            if plan.blocks.len() > first_block {
                let rows = keys.inside(segment).map(|(row, tokens)| row..row + tokens.len());
                let rows = rows.reduce(|all, rows| all.start..rows.end).expect("a block attends to some keys");
                plan.segments.push(Segment { blocks: first_block..plan.blocks.len(), keys: rows });
            }
        }
        plan
    }

    /// Cuts the queries of `tokens`, the first at `row`, into blocks and lists what each sees of `keys`.
    fn add_blocks(&mut self, layout: QkvLayout, row: usize, tokens: Range<usize>, keys: Vec<(usize, Range<usize>)>) {
        let size = query_block(layout.q_per_kv);
        for first in tokens.clone().step_by(size) {
            let (end, first_span) = (tokens.end.min(first + size), self.spans.len());
            self.spans.extend(keys.iter().filter(|(_, keys)| keys.start < end).map(|(row, keys)| Span {
                row: *row,
                keys: keys.end.min(end) - keys.start,
                visible: first as isize + 1 - keys.start as isize,
            }));
            let spans = first_span..self.spans.len();
            if !spans.is_empty() {
                self.blocks.push(QueryBlock { start: row + first - tokens.start, len: end - first, spans });
            }
        }
    }

    /// What `block` attends to, in tiles: the span, and the first key and the number of keys of the tile in it.
    pub fn tiles(&self, block: &QueryBlock) -> impl Iterator<Item = (Span, usize, usize)> {
        self.spans[block.spans.clone()].iter().flat_map(|span| {
            (0..span.keys).step_by(KEY_TILE).map(|start| (*span, start, KEY_TILE.min(span.keys - start)))
        })
    }
}
