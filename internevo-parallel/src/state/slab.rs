//! Rows or columns of a parameter: what tensor parallelism leaves on a rank.

use std::ops::Range;

/// Share `index` of `parts` of `0..total`. Shares differ by at most one, the last is among the longest.
pub fn share_of(total: usize, index: usize, parts: usize) -> Range<usize> {
    total * index / parts..total * (index + 1) / parts
}

/// A contiguous range of one dimension of a parameter, all of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slab {
    /// Shape of the whole parameter, row-major.
    pub shape: Vec<usize>,
    /// The divided dimension: 0 or 1.
    pub dim: usize,
    /// Indices of that dimension.
    pub range: Range<usize>,
}

/// Consecutive elements, as they lie in the whole parameter and in the slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// First element in the flattened whole parameter.
    pub global: usize,
    /// First element in the flattened slab.
    pub local: usize,
    /// Elements.
    pub len: usize,
}

impl Slab {
    /// The whole parameter.
    pub fn whole(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), dim: 0, range: 0..shape.first().copied().unwrap_or(1) }
    }

    /// Share `index` of `parts` along `dim`. Shares differ by at most one index when the dimension is no multiple of `parts`:
    /// nothing is padded.
    ///
    /// # Panics
    /// If `dim` is not 0 or 1, or the shape has no such dimension.
    pub fn share(shape: &[usize], dim: usize, index: usize, parts: usize) -> Self {
        assert!(dim < 2 && dim < shape.len(), "dimension {dim} of shape {shape:?}");
        Self { shape: shape.to_vec(), dim, range: share_of(shape[dim], index, parts) }
    }

    /// Shape of the slab itself.
    pub fn local_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(divided) = shape.get_mut(self.dim) {
            *divided = self.range.len();
        }
        shape
    }

    /// Elements of the slab.
    pub fn elements(&self) -> usize {
        self.local_shape().iter().product()
    }

    /// Where elements `flat` of the flattened slab lie in the whole parameter: one run for rows, one per row for columns.
    pub fn runs(&self, flat: &Range<usize>) -> impl Iterator<Item = Run> + use<> {
        let row: usize = self.shape.iter().skip(1).product();
        // (elements between the beginnings of two lines, elements of a line held here, first of them)
        let (stride, line, first) = match self.dim {
            0 => (row * self.range.len().max(1), row * self.range.len(), row * self.range.start),
            _ => (row, row / self.shape[1].max(1) * self.range.len(), row / self.shape[1].max(1) * self.range.start),
        };
        let (mut at, end) = (flat.start, flat.end);
        std::iter::from_fn(move || {
            if at >= end || line == 0 {
                return None;
            }
            let (index, inside) = (at / line, at % line);
            let len = (line - inside).min(end - at);
            let run = Run { global: index * stride + first + inside, local: at, len };
            at += len;
            Some(run)
        })
    }
}
