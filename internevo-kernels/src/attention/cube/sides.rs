//! The two launches of a backward: one owns queries and sums their gradients, one owns keys and sums those of keys and values.

use super::places::DeviceHeads;
use super::tiles::Side;
use super::{Outcome, Statistics};
use crate::attention::{Heads, QkvLayout};
use crate::cube::Buffer;

/// Two views that a launch treats alike.
pub(super) type Pair<'a> = [Heads<&'a Buffer>; 2];

/// What one launch reads and writes. Products of rows of `own[0]` with rows of `other[0]` are scores, those of `own[1]` with
/// `other[1]` gradients of probabilities.
#[derive(Clone, Copy)]
pub(super) struct Launch<'a> {
    pub(super) side: Side,
    pub(super) own: Pair<'a>,
    pub(super) other: Pair<'a>,
    /// Where the sums go: of keys and values two, of queries the one view twice.
    pub(super) out: Pair<'a>,
    pub(super) statistics: &'a Statistics,
}

/// Both launches.
pub(super) fn launches<'a>(
    layout: QkvLayout,
    operands: &DeviceHeads<'a>,
    outcome: &Outcome<'a>,
    statistics: &'a Statistics,
    gradients: &DeviceHeads<'a>,
) -> [Launch<'a>; 2] {
    let [q, k, v] = *operands;
    let [dq, dk, dv] = *gradients;
    let dy = layout.separate()[0].on(outcome.d_output);
    [
        Launch { side: Side::Queries, own: [q, dy], other: [k, v], out: [dq, dq], statistics },
        Launch { side: Side::Keys, own: [k, v], other: [q, dy], out: [dk, dv], statistics },
    ]
}
