//! Which tokens of a micro-batch the rows of a buffer are. Where a rank's tokens come from is decided elsewhere.

use std::ops::Range;

/// Runs of adjacent tokens that a buffer holds, in the order of its rows.
///
/// Tokens are counted over the whole packed micro-batch, as `cu_seqlens` counts them. A rank of ring attention with zig-zag
/// placement holds two runs, one near each end.
///
/// ```
/// use internevo_kernels::attention::Runs;
///
/// let held = Runs::new([4..6, 10..12]);
/// assert_eq!(held.rows(), 4);
/// assert_eq!(held.tokens().collect::<Vec<_>>(), [4, 5, 10, 11]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Range<usize>>);

impl From<Range<usize>> for Runs {
    fn from(run: Range<usize>) -> Self {
        Self::new(std::iter::once(run))
    }
}

impl Runs {
    /// The tokens of `runs`, one run after the other; empty ones are left out.
    ///
    /// # Panics
    /// If a run begins before the one ahead of it ends.
    pub fn new(runs: impl IntoIterator<Item = Range<usize>>) -> Self {
        let runs: Vec<_> = runs.into_iter().filter(|run| !run.is_empty()).collect();
        if let Some(pair) = runs.windows(2).find(|pair| pair[1].start < pair[0].end) {
            panic!("attention: run {:?} of tokens begins before {:?} ends", pair[1], pair[0]);
        }
        Self(runs)
    }

    /// Rows of the buffer.
    pub fn rows(&self) -> usize {
        self.0.iter().map(Range::len).sum()
    }

    /// The token of each row.
    pub fn tokens(&self) -> impl Iterator<Item = usize> {
        self.0.iter().cloned().flatten()
    }

    /// One past the last token.
    pub fn end(&self) -> usize {
        self.0.last().map_or(0, |run| run.end)
    }

    /// The parts of the runs inside `segment`, with the row of their first token. Their rows are adjacent.
    pub(super) fn inside(&self, segment: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut row = 0;
        self.0.iter().filter_map(move |run| {
            let part = run.start.max(segment.start)..run.end.min(segment.end);
            let first = row + part.start.saturating_sub(run.start);
            row += run.len();
            (!part.is_empty()).then_some((first, part))
        })
    }
}
