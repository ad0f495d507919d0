//! The training state as named shards: every parameter has a global name and shape, and a rank holds a slice of it that
//! follows from the layout alone. Optimizer, checkpoints and resuming on another layout are look-ups here.
//!
//! | from | to | file |
//! |---|---|---|
//! | the whole parameter | its slab: rows or columns of this rank of the tensor group | `slab.rs` |
//! | the slab | its share among the ranks that gather weights (`isp`, ZeRO-3); one after the other in the local vector | `table.rs` |
//! | the local vector | pieces of this rank of the ZeRO group, bucket by bucket | `sharding.rs` |
//! | pieces of all ranks | whole parameters on one rank, and back | `exchange.rs` |
//!
//! Not here: the values (`zero/`) and the files (`checkpoint/`).

mod exchange;
mod plan;
mod sharding;
mod slab;
mod table;
#[cfg(test)]
mod tests;

pub use exchange::{Assignment, Exchange};
pub use plan::StatePlan;
use serde::{Deserialize, Serialize};
pub use sharding::{Bucket, Sharding};
pub use slab::{Run, Slab, share_of};
pub use table::{LocalParam, LocalTable, Part, Piece};

/// A parameter as the model declares it, whole. The order of declaration is the order of the state.
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
