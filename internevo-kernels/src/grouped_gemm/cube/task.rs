//! Which part of which product a cube makes. All three products of a layer are `out(m, n) = Σ_k a(m, k) b(n, k)`.

use super::Shape;
use cubecl::prelude::*;

/// The products of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `y = x · wᵀ`: `m` runs over the rows of a group.
    Forward,
    /// `dx = dy · w`: `m` runs over the rows of a group.
    BackwardInput,
    /// `dw = dyᵀ · x`: `k` runs over the rows of a group.
    BackwardWeight,
}

/// A kind of product and its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
}

impl Problem {
    /// Whether `m` runs over rows, which `k` does otherwise.
    pub(super) fn by_rows(self) -> bool {
        self.kind != Kind::BackwardWeight
    }

    /// Columns of the output.
    pub(super) fn n(self) -> usize {
        match self.kind {
            Kind::Forward => self.shape.d_out,
            Kind::BackwardInput | Kind::BackwardWeight => self.shape.d_in,
        }
    }

    /// The inner dimension, where it is that of the weight.
    pub(super) fn k(self) -> usize {
        match self.kind {
            Kind::Forward => self.shape.d_in,
            Kind::BackwardInput | Kind::BackwardWeight => self.shape.d_out,
        }
    }

    /// Whether neighbours along `k` are neighbours in the memory of `b`.
    pub(super) fn b_along_k(self) -> bool {
        self.kind == Kind::Forward
    }

    /// Elements between rows of `a`, rows or columns of a group as they are in memory.
    pub(super) fn a_stride(self) -> usize {
        match self.kind {
            Kind::Forward => self.shape.d_in,
            Kind::BackwardInput | Kind::BackwardWeight => self.shape.d_out,
        }
    }

    /// Elements of `b` that an expert has.
    pub(super) fn b_of_expert(self) -> usize {
        if self.by_rows() { self.shape.d_out * self.shape.d_in } else { 0 }
    }

    /// Elements of the output that an expert has.
    pub(super) fn out_of_expert(self) -> usize {
        if self.by_rows() { 0 } else { self.shape.d_out * self.shape.d_in }
    }

    /// Cubes for `rows` rows at most, if each makes a square of `tile`: a group adds at most one tile that is not full.
    pub(super) fn cubes(self, rows: usize, tile: usize) -> usize {
        let down = match self.by_rows() {
            true => rows.div_ceil(tile) + self.shape.experts,
            false => self.shape.experts * self.shape.d_out.div_ceil(tile),
        };
        down * self.n().div_ceil(tile)
    }
}

/// What a cube makes: the part from `m` and `n` on, of rows below `m_end`, as a sum over `k..k_end`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Task {
    pub(super) expert: u32,
    pub(super) m: u32,
    pub(super) m_end: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) k_end: u32,
}

/// The task of this cube; an empty one where there is nothing left. Offsets are taken as at most `rows`.
#[cube]
pub(super) fn task_of_cube(offsets: &[u32], rows: u32, #[comptime] problem: Problem, #[comptime] tile: u32) -> Task {
    let tiles_n = comptime!(problem.n().div_ceil(tile as usize));
    let mut left = (CUBE_POS / tiles_n) as u32;
    let n = (CUBE_POS % tiles_n) as u32 * tile;
    let experts = comptime!(problem.shape.experts as u32);
    let mut expert = 0u32;
    let mut start = 0u32;
    let mut end = min(offsets[0usize], rows);
    let mut tiles = 0u32;
    if comptime!(problem.by_rows()) {
        while left >= tiles && expert < experts {
            left -= tiles;
            start = end;
            end = max(min(offsets[(expert + 1) as usize], rows), start);
            tiles = (end - start + comptime!(tile - 1)) / tile;
            expert += 1;
        }
        // One too far, or without a tile for this cube.
        let m = start + left * tile;
        let mut k_end = comptime!(problem.k() as u32).runtime();
        if m >= end {
            k_end = 0u32;
        }
        Task { expert: expert - 1, m, m_end: end, n, k: 0u32, k_end }
    } else {
        let tiles_m = comptime!(problem.shape.d_out.div_ceil(tile as usize) as u32);
        expert = left / tiles_m;
        let m = (left % tiles_m) * tile;
        let mut m_end = comptime!(problem.shape.d_out as u32).runtime();
        if expert >= experts {
            expert = 0u32;
            m_end = 0u32;
        } else {
            start = min(offsets[expert as usize], rows);
            end = max(min(offsets[(expert + 1) as usize], rows), start);
        }
        Task { expert, m, m_end, n, k: start, k_end: end }
    }
}
