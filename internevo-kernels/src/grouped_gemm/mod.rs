//! The linear layers of experts in one product: rows of `x` are sorted by expert, and rows `offsets[e]..offsets[e + 1]` go
//! through `weight[e]`: `y = x · weight[e]ᵀ`. Groups may be empty or hold everything. Not here: routing and sorting.

pub mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod op;
pub mod reference;

pub use op::grouped_linear;

/// Sizes of a layer: `weight` is `[experts, d_out, d_in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Experts.
    pub experts: usize,
    /// Width of an input row.
    pub d_in: usize,
    /// Width of an output row.
    pub d_out: usize,
}

impl Shape {
    /// Elements of the weight.
    pub fn weight_len(self) -> usize {
        self.experts * self.d_out * self.d_in
    }

    /// Checks that `offsets` cut `rows` rows into a group for each expert.
    fn check(self, offsets: &[u32], rows: usize) {
        let sorted = offsets.is_sorted() && offsets.first() == Some(&0);
        let fits = offsets.len() == self.experts + 1 && offsets.last().is_some_and(|last| *last as usize == rows);
        assert!(sorted && fits, "grouped_gemm: offsets {offsets:?} for {rows} rows of {} experts", self.experts);
    }
}

#[cfg(test)]
mod tests;
