//! What one rank holds of every parameter, one after the other in its local vector.

use std::{collections::HashMap, ops::Range};

use super::{ParamSpec, Sharding, Slab};
use crate::ParallelError;

/// A place in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which of the parts.
    pub index: usize,
    /// How many.
    pub parts: usize,
}

impl Part {
    /// The only part.
    pub const WHOLE: Self = Self { index: 0, parts: 1 };
}

/// What a rank holds of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalParam {
    /// The parameter, whole.
    pub spec: ParamSpec,
    /// This rank's share under tensor parallelism.
    pub slab: Slab,
    /// Elements of the flattened slab that this rank holds: all, or its share among the ranks that gather the weight.
    pub flat: Range<usize>,
    /// Place in the local vector.
    pub offset: usize,
    /// Elements in the local vector: `flat` and the padding that makes shares equally long.
    pub len: usize,
    /// Whether the weight is gathered from several ranks before use.
    pub sharded: bool,
    /// Whether each rank of the model group sees a part of the gradient of this whole copy.
    pub partial: bool,
    /// Whether this rank's copy is the one that counts in norms and checkpoints; other ranks of the same copy of the state
    /// hold the same elements.
    pub primary: bool,
}

impl LocalParam {
    /// Its place in the local vector, padding included.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// All of a rank's parameters. Parameters whose gradient is complete where it is computed come first, those that are added
/// over the model group last, so that no bucket mixes the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTable {
    params: Vec<LocalParam>,
    by_name: HashMap<String, usize>,
    complete: usize,
    total: usize,
}

/// A part of one parameter inside a rank's shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the parameter, in the order of the model.
    pub param: usize,
    /// Elements of the parameter's flattened slab.
    pub flat: Range<usize>,
    /// Where they are in the shard.
    pub at: Range<usize>,
}

impl LocalTable {
    /// Lays out `params`; their `offset` is set here.
    ///
    /// # Errors
    /// [`ParallelError::DuplicateParameter`].
    pub(super) fn new(mut params: Vec<LocalParam>) -> Result<Self, ParallelError> {
        let mut by_name = HashMap::new();
        for (index, param) in params.iter().enumerate() {
            if by_name.insert(param.spec.name.clone(), index).is_some() {
                return Err(ParallelError::DuplicateParameter { name: param.spec.name.clone() });
            }
        }
        let (mut total, mut complete) = (0, 0);
        for partial in [false, true] {
            for param in params.iter_mut().filter(|p| p.partial == partial) {
                param.offset = total;
                total += param.len;
            }
            if !partial {
                complete = total;
            }
        }
        Ok(Self { params, by_name, complete, total })
    }

    /// The parameters, in the order of the model.
    pub fn params(&self) -> &[LocalParam] {
        &self.params
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&LocalParam> {
        self.by_name.get(name).map(|index| &self.params[*index])
    }

    /// Elements of the local vector.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Elements from here on are those of parameters whose gradient is added over the model group.
    pub fn complete(&self) -> usize {
        self.complete
    }

    /// The declarations, in the order of the model.
    pub fn specs(&self) -> Vec<ParamSpec> {
        self.params.iter().map(|p| p.spec.clone()).collect()
    }

    /// The parameters that overlap `range` of the local vector, in the order of the vector.
    pub fn within(&self, range: &Range<usize>) -> Vec<usize> {
        let overlap = |p: &LocalParam| p.offset < range.end && p.range().end > range.start && p.len > 0;
        let mut found: Vec<usize> = (0..self.params.len()).filter(|i| overlap(&self.params[*i])).collect();
        found.sort_by_key(|i| self.params[*i].offset);
        found
    }

    /// The parts of parameters in shard `part` of `sharding`, in order. Padding belongs to no piece.
    pub fn pieces(&self, sharding: &Sharding, part: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (bucket, at) in sharding.buckets().iter().zip(sharding.starts()) {
            let own = bucket.own(part);
            for index in self.within(&own) {
                let param = &self.params[index];
                let start = param.offset.max(own.start);
                let end = (param.offset + param.flat.len()).min(own.end);
                if start < end {
                    let flat = |place: usize| param.flat.start + place - param.offset;
                    let at = |place: usize| at + place - own.start;
                    pieces.push(Piece { param: index, flat: flat(start)..flat(end), at: at(start)..at(end) });
                }
            }
        }
        pieces
    }
}
