//! Where heads lie in a buffer, as kernels see it: strides in vectors, known when a kernel is compiled.

use crate::attention::{Heads, QkvLayout, Segments};
use crate::cube::{Buffer, ElemType, Machine};
use cubecl::prelude::*;

/// Queries, keys and values (or their gradients) in buffers on a device.
pub type DeviceHeads<'a> = [Heads<&'a Buffer>; 3];

/// [`Heads`] in vectors: the first of row `t`, group `k`, query head `g` of it is at `offset + t · row + k · group + g · head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) row: usize,
    pub(super) group: usize,
    pub(super) head: usize,
}

impl Place {
    pub(super) fn of<D>(heads: &Heads<D>, vector: usize) -> Self {
        let [offset, row, group, head] = strides(heads).map(|stride| stride / vector);
        Self { offset, row, group, head }
    }
}

fn strides<D>(heads: &Heads<D>) -> [usize; 4] {
    [heads.offset, heads.row_stride, heads.group_stride, heads.head_stride]
}

/// Elements per load with which all `views` can be read.
pub(super) fn vector<D>(machine: &Machine, elem: ElemType, head_dim: usize, views: &[Heads<D>]) -> usize {
    let step = views.iter().flat_map(strides).fold(head_dim, gcd);
    machine.vector(elem, step)
}

/// Whether all heads begin at multiples of `step` elements.
pub(super) fn aligned(views: &DeviceHeads<'_>, step: usize) -> bool {
    views.iter().flat_map(strides).all(|stride| stride.is_multiple_of(step))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// # Panics
/// If a view reaches beyond its buffer, or its buffer is of another type than `elem`.
pub(super) fn check(views: &DeviceHeads<'_>, layout: QkvLayout, segments: &Segments, elem: ElemType) {
    let members = [layout.q_per_kv, 1, 1];
    let rows = [segments.queries(), segments.keys(), segments.keys()];
    for (view, (members, rows)) in views.iter().zip(members.into_iter().zip(rows)) {
        assert_eq!(view.data.elem, elem, "attention: type of queries, keys or values");
        if rows > 0 {
            let end = view.at(rows - 1, layout.kv_heads - 1, members - 1) + layout.head_dim;
            assert!(end <= view.data.len, "attention: a view of {end} elements in a buffer of {}", view.data.len);
        }
    }
}

/// A head in a kernel: which of its group, and which group.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Head {
    pub group: u32,
    pub member: u32,
}

#[cube]
impl Head {
    /// The `index`th query head, where each group has `members`.
    pub fn of(index: u32, #[comptime] members: u32) -> Head {
        Head { group: index / members, member: index % members }
    }
}

/// Rows of one head: those before `stop`, from `first` on.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Rows {
    pub first: u32,
    pub stop: u32,
    pub head: Head,
}

#[cube]
impl Rows {
    /// Index of the first vector of a row in `place`.
    pub fn at(&self, row: u32, #[comptime] place: Place) -> usize {
        comptime!(place.offset)
            + row as usize * comptime!(place.row)
            + self.head.group as usize * comptime!(place.group)
            + self.head.member as usize * comptime!(place.head)
    }
}
