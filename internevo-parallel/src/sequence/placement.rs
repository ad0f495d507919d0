//! Which tokens of a micro-batch each rank of a head × context grid has.

use std::ops::Range;

use internevo_kernels::attention::Runs;

/// A rank's place in the grid. Context rank `c` of `C` has pieces `c` and `2C - 1 - c` of `2C` (zig-zag); its head ranks share
/// these tokens in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Ranks of a head group.
    pub heads: usize,
    /// Place in the head group.
    pub head: usize,
    /// Ranks of a context group.
    pub contexts: usize,
    /// Place in the context group.
    pub context: usize,
}

impl Placement {
    /// The tokens, of `tokens`, of all head ranks of context rank `context`: what attention on one of them sees as queries.
    ///
    /// # Panics
    /// If the tokens cannot be cut into equal pieces.
    pub fn of_context(&self, tokens: usize, context: usize) -> Runs {
        if self.contexts == 1 {
            return Runs::from(0..tokens);
        }
        let pieces = 2 * self.contexts;
        assert!(tokens.is_multiple_of(pieces * self.heads), "{tokens} tokens on {self:?}");
        let piece = |i: usize| tokens / pieces * i..tokens / pieces * (i + 1);
        Runs::new([piece(context), piece(pieces - 1 - context)])
    }

    /// The tokens of this rank.
    ///
    /// # Panics
    /// If the tokens cannot be cut into equal pieces.
    pub fn own(&self, tokens: usize) -> Runs {
        let shared = self.of_context(tokens, self.context);
        let share = shared.rows() / self.heads;
        assert_eq!(share * self.heads, shared.rows(), "{tokens} tokens on {self:?}");
        let rows = self.head * share..(self.head + 1) * share;
        Runs::new(runs_of(shared.tokens().skip(rows.start).take(rows.len())))
    }
}

/// Ascending tokens as runs.
fn runs_of(tokens: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for token in tokens {
        match runs.last_mut() {
            Some(run) if run.end == token => run.end += 1,
            _ => runs.push(token..token + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_one_rank_and_all_ranks_have_equally_many() {
        for (heads, contexts) in [(1, 1), (4, 1), (1, 2), (1, 4), (2, 2), (2, 3)] {
            let tokens = 2 * heads * contexts * 3;
            let mut all = Vec::new();
            for context in 0..contexts {
                for head in 0..heads {
                    let own = Placement { heads, head, contexts, context }.own(tokens);
                    assert_eq!(own.rows(), tokens / heads / contexts);
                    all.extend(own.tokens());
                }
            }
            all.sort_unstable();
            assert!(all.into_iter().eq(0..tokens), "{heads} x {contexts}");
        }
    }

    #[test]
    fn zig_zag_gives_every_context_rank_the_same_work_below_the_diagonal() {
        let grid = Placement { heads: 1, head: 0, contexts: 4, context: 0 };
        let work = |context| grid.of_context(64, context).tokens().map(|t| t + 1).sum::<usize>();
        assert!((1..4).all(|context| work(context) == work(0)));
    }
}
