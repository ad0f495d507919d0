//! Flash attention for any device: tiles in shared memory, several rows and columns of a tile per unit, sums in f32. No tensor
//! cores, no plane operations; correct for any number of units.

mod backward;
mod forward;
mod tile;

pub(super) use backward::backward;
pub(super) use forward::forward;

use super::places::Place;
use crate::cube::Machine;

/// How the units of a cube share a tile of scores: `down × across` units with `rows × columns` scores each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::attention::cube) struct Blocking {
    pub(super) down: usize,
    pub(super) across: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// From the one that wants the most of a cube to the one that fits everywhere.
pub(super) const BLOCKINGS: [Blocking; 8] = [
    Blocking { down: 16, across: 8, rows: 4, columns: 4 },
    Blocking { down: 8, across: 8, rows: 4, columns: 4 },
    Blocking { down: 8, across: 8, rows: 4, columns: 2 },
    Blocking { down: 8, across: 8, rows: 2, columns: 2 },
    Blocking { down: 8, across: 8, rows: 1, columns: 1 },
    Blocking { down: 4, across: 4, rows: 1, columns: 1 },
    Blocking { down: 1, across: 1, rows: 4, columns: 4 },
    Blocking { down: 1, across: 1, rows: 1, columns: 1 },
];

impl Blocking {
    /// The first that the machine has the units for and whose shared memory, in bytes by `shared`, leaves room for four cubes
    /// on a multiprocessor, or for one where shared memory is small.
    ///
    /// # Panics
    /// If a head is too wide for this machine.
    fn fitting(machine: &Machine, shared: impl Fn(Self) -> usize) -> Self {
        let budget = machine.shared_bytes.min(SMALL_SHARED).max(machine.shared_bytes / 4);
        let fits = |blocking: &Self| blocking.units() <= machine.max_units && shared(*blocking) <= budget;
        BLOCKINGS.into_iter().find(fits).unwrap_or_else(|| panic!("attention: heads too wide for {machine:?}"))
    }

    pub(in crate::attention::cube) fn units(self) -> u32 {
        (self.down * self.across) as u32
    }

    /// Rows of the tile that a cube owns.
    pub(super) fn owned(self) -> usize {
        self.down * self.rows
    }

    /// Rows of the other side per step.
    pub(super) fn others(self) -> usize {
        self.across * self.columns
    }

    /// Scores per unit.
    fn scores(self) -> usize {
        self.rows * self.columns
    }
}

/// What every WebGPU device gives a cube.
const SMALL_SHARED: usize = 32 << 10;

/// What a portable kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    blocking: Blocking,
    /// Query heads per key/value head, key/value heads.
    members: u32,
    groups: u32,
    /// Vectors in a head.
    loads: usize,
    unroll: bool,
}

impl Shape {
    /// Vectors from one row of a tile in shared memory to the next: one is left free, so that rows begin in different banks.
    fn stride(self) -> usize {
        self.loads + 1
    }

    /// Vectors of a head that one unit sums.
    fn span(self) -> usize {
        self.loads.div_ceil(self.blocking.across)
    }
}
