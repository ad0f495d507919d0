//! What a rank's shard holds of a parameter, as places in a matrix, and the sums of squares over its rows and columns.

use std::ops::Range;

use crate::optimizer::{
    Segment, ShardLayout,
    exact::{Slot, Terms},
};

/// This rank's elements of one parameter. A parameter is a matrix of its last dimension's columns; a vector has one row.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Rows of the whole parameter.
    pub(super) rows: usize,
    /// Columns of the whole parameter.
    pub(super) columns: usize,
    pub(super) runs: Vec<RowRun>,
}

/// Adjacent elements of one row.
#[derive(Clone, Debug)]
pub(super) struct RowRun {
    pub(super) row: usize,
    /// Column of the first element.
    pub(super) column: usize,
    /// Place in the shard.
    pub(super) at: Range<usize>,
    /// Whether they count in sums, or another rank of the same copy of the state holds them too.
    primary: bool,
}

impl Part {
    /// The part of every parameter of the model, in its order; empty for those that this rank does not hold.
    pub(super) fn all(shard: &ShardLayout) -> Vec<Self> {
        let empty = |shape: &[usize]| match shape {
            [] => Self { rows: 1, columns: 1, runs: Vec::new() },
            [rows @ .., columns] => Self { rows: rows.iter().product(), columns: *columns, runs: Vec::new() },
        };
        let mut parts: Vec<Self> = shard.params.iter().map(|spec| empty(&spec.shape)).collect();
        shard.segments.iter().for_each(|segment| parts[segment.param].add(segment));
        parts
    }

    /// Elements of the whole parameter.
    pub(super) fn elements(&self) -> usize {
        self.rows * self.columns
    }

    fn add(&mut self, segment: &Segment) {
        for run in segment.slab.runs(&segment.flat) {
            let start = segment.range.start + run.local - segment.flat.start;
            let mut done = 0;
            while done < run.len {
                let (row, column) = ((run.global + done) / self.columns, (run.global + done) % self.columns);
                let len = (self.columns - column).min(run.len - done);
                let at = start + done..start + done + len;
                self.runs.push(RowRun { row, column, at, primary: segment.primary });
                done += len;
            }
        }
    }
}

/// Squares of `value(element of the shard, row, column)`, to be added over rows, and over columns too where asked for.
pub(super) struct Squares<'a, F> {
    pub(super) part: &'a Part,
    pub(super) columns: bool,
    pub(super) value: &'a F,
}

impl<F: Fn(usize, usize, usize) -> f32 + Sync> Terms for Squares<'_, F> {
    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![self.part.columns; self.part.rows];
        if self.columns {
            counts.resize(self.part.rows + self.part.columns, self.part.rows);
        }
        counts
    }

    fn visit<S: Slot>(&self, slots: &mut [S]) {
        let (rows, columns) = slots.split_at_mut(self.part.rows);
        for run in self.part.runs.iter().filter(|run| run.primary) {
            let (row, len) = (&mut rows[run.row], run.at.len());
            let square = |i: usize| f64::from((self.value)(run.at.start + i, run.row, run.column + i)).powi(2);
            (0..len).for_each(|i| row.take(square(i)));
            if self.columns {
                let own = &mut columns[run.column..run.column + len];
                own.iter_mut().enumerate().for_each(|(i, column)| column.take(square(i)));
            }
        }
    }
}
