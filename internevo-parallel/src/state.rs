//! The state table: every parameter has a global name, a shape and a place in one flat vector; what a rank owns is a slice
//! of that vector. ZeRO, checkpoints and resuming on another layout are lookups in this table.
//!
//! Not here: the values (`zero/`) and the files (`checkpoint/`).

use std::{collections::HashMap, ops::Range};

use serde::{Deserialize, Serialize};

use crate::ParallelError;

/// Elements per block of the gradient norm. Shards begin at multiples of it, so that every sharding sums the same blocks.
pub const BLOCK: usize = 4096;

/// A parameter as the model declares it. The order of declaration is the order in the flat vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// Global name: `layers.0.attention.wqkv.weight`.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Whether weight decay applies.
    pub decay: bool,
}

impl ParamSpec {
    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A model as the optimizer sees it. The model implements it; `Gradients` is whatever its backward pass returns, so that this
/// crate needs no tensor engine.
pub trait ParameterSource {
    /// Result of one backward pass (burn's `Gradients`).
    type Gradients;

    /// The parameters in flat order; the same on every call.
    fn specs(&self) -> Vec<ParamSpec>;

    /// Copies all parameters to `flat`, which has exactly their total length.
    fn write_flat(&self, flat: &mut [f32]);

    /// Replaces all parameters by `flat`.
    fn read_flat(&mut self, flat: &[f32]);

    /// Moves the gradients to `flat` (zeroed before, same order and length) and frees them one by one.
    fn take_grads(&self, gradients: &mut Self::Gradients, flat: &mut [f32]);
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the model declared.
    pub spec: ParamSpec,
    /// First element in the flat vector.
    pub offset: usize,
}

impl Entry {
    /// Elements `offset..offset + len` of the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.spec.elements()
    }
}

/// A piece of one parameter inside a slice of the flat vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Row of the table.
    pub entry: usize,
    /// First element within the flattened parameter.
    pub start: usize,
    /// Where the piece is, counted from the beginning of the slice.
    pub range: Range<usize>,
}

/// All parameters in flat order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTable {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    total: usize,
}

impl StateTable {
    /// Lays out `specs` one after the other.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub fn new(specs: Vec<ParamSpec>) -> Result<Self, ParallelError> {
        let (mut entries, mut by_name, mut total) = (Vec::with_capacity(specs.len()), HashMap::new(), 0);
        for spec in specs {
            if by_name.insert(spec.name.clone(), entries.len()).is_some() {
                return Err(ParallelError::DuplicateParameter { name: spec.name });
            }
            let elements = spec.elements();
            entries.push(Entry { spec, offset: total });
            total += elements;
        }
        Ok(Self { entries, by_name, total })
    }

    /// Rows in flat order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The row called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|index| &self.entries[*index])
    }

    /// Elements of all parameters.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The declarations, in flat order.
    pub fn specs(&self) -> Vec<ParamSpec> {
        self.entries.iter().map(|e| e.spec.clone()).collect()
    }

    /// The parts of parameters inside `slice` of the flat vector, in order. What lies beyond the last parameter is padding
    /// and belongs to no piece.
    pub fn pieces(&self, slice: &Range<usize>) -> Vec<Piece> {
        let first = self.entries.partition_point(|e| e.range().end <= slice.start);
        let rows = self.entries.iter().enumerate().skip(first).take_while(|(_, e)| e.offset < slice.end);
        let piece = |(entry, row): (usize, &Entry)| {
            let (start, end) = (row.offset.max(slice.start), row.range().end.min(slice.end));
            Piece { entry, start: start - row.offset, range: start - slice.start..end - slice.start }
        };
        rows.map(piece).filter(|p| !p.range.is_empty()).collect()
    }
}

/// How the flat vector is divided among `parts` ranks: equal shards of whole blocks; the end of the last one is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// Shards.
    pub parts: usize,
    /// Elements per shard, a multiple of [`BLOCK`].
    pub shard_len: usize,
}

impl Sharding {
    /// Divides `total` elements into `parts` shards.
    pub fn new(total: usize, parts: usize) -> Self {
        Self { parts, shard_len: total.div_ceil(BLOCK).div_ceil(parts) * BLOCK }
    }

    /// Elements with padding.
    pub fn padded_len(&self) -> usize {
        self.parts * self.shard_len
    }

    /// What shard `part` covers.
    pub fn range(&self, part: usize) -> Range<usize> {
        part * self.shard_len..(part + 1) * self.shard_len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_pieces_of_all_shards_cover_every_parameter_once_and_in_order(
            sizes in prop::collection::vec(0usize..9000, 0..12),
            parts in 1usize..7,
        ) {
            let spec = |(i, n): (usize, &usize)| ParamSpec { name: format!("p{i}"), shape: vec![*n], decay: false };
            let table = StateTable::new(sizes.iter().enumerate().map(spec).collect()).expect("names differ");
            let sharding = Sharding::new(table.total(), parts);
            prop_assert!(sharding.padded_len() >= table.total());
            let mut covered = vec![0usize; sizes.len()];
            for part in 0..parts {
                let shard = sharding.range(part);
                for piece in table.pieces(&shard) {
                    prop_assert_eq!(piece.start, covered[piece.entry]);
                    prop_assert_eq!(table.entries()[piece.entry].offset + piece.start, shard.start + piece.range.start);
                    covered[piece.entry] += piece.range.len();
                }
            }
            prop_assert_eq!(covered, sizes);
        }
    }

    #[test]
    fn a_name_that_is_used_twice_is_an_error_that_names_it() {
        let spec = ParamSpec { name: "norm.weight".into(), shape: vec![4], decay: false };
        let message = StateTable::new(vec![spec.clone(), spec]).expect_err("twice").to_string();
        assert!(message.contains("norm.weight"), "{message}");
    }
}
