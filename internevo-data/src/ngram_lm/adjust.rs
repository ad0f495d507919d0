//! Adjusted counts: how many different words stand before an n-gram, which is what Kneser-Ney estimates shorter n-grams from.

use internevo_core::storage::StorageError;

use super::{
    UNKNOWN,
    count::{BEGIN, Gram, Packing},
};
use crate::spill::{Scratch, Sorted, Sorter};

/// How many n-grams of an order there are, and how many of them have a small adjusted count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistic {
    /// By adjusted count.
    pub with_count: [u64; 5],
    /// n-grams that stay after pruning.
    pub kept: u64,
}

impl Statistic {
    fn add(&mut self, count: u64, pruned: bool) {
        self.kept += u64::from(!pruned);
        if let Some(n) = self.with_count.get_mut(usize::try_from(count).unwrap_or(usize::MAX)) {
            *n += 1;
        }
    }
}

/// An adjusted count, and whether the n-gram is pruned, as the value of a [`Gram`].
pub(super) fn pack(count: u64, pruned: bool) -> u64 {
    count << 1 | u64::from(pruned)
}

/// What [`pack`] packed.
pub(super) fn unpack(value: u64) -> (u64, bool) {
    (value >> 1, value & 1 == 1)
}

/// The n-grams of all orders with their adjusted counts, by context, and their statistics.
pub(super) struct Adjusted {
    pub grams: Vec<Sorted<Gram>>,
    pub statistics: Vec<Statistic>,
}

/// Adjusts counts. `prune[m]`: n-grams of `m + 1` words that occur this often or less go.
pub(super) fn adjust(
    full: &Sorted<Gram>,
    order: usize,
    prune: &[u64],
    scratch: &Scratch,
    memory: usize,
) -> Result<Adjusted, StorageError> {
    let mut adjuster = Adjuster {
        order,
        packing: Packing::new(order),
        prune,
        key: 0,
        length: 0,
        open: vec![Open::default(); order],
        sorters: (0..order).map(|_| Sorter::new(scratch, memory / order)).collect(),
        statistics: vec![Statistic::default(); order],
    };
    for special in [UNKNOWN, BEGIN] {
        adjuster.emit(adjuster.packing.push(0, special, order), 1, 0, 0, false)?;
    }
    for gram in full.iter()? {
        let gram = gram?;
        adjuster.add(gram.key(), gram.value)?;
    }
    adjuster.close_from(1, true)?;
    let grams = adjuster.sorters.into_iter().map(Sorter::finish).collect::<Result<_, _>>()?;
    Ok(Adjusted { grams, statistics: adjuster.statistics })
}

/// An n-gram that more n-grams may still end in.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    adjusted: u64,
    occurrences: u64,
}

/// n-grams of the full order come in the order of their ends, so those of a shorter order that end alike come together.
struct Adjuster<'a> {
    order: usize,
    packing: Packing,
    prune: &'a [u64],
    /// The n-gram before, and how many of its words count.
    key: u128,
    length: usize,
    /// Its ends of one word, of two, …
    open: Vec<Open>,
    sorters: Vec<Sorter<'a, Gram>>,
    statistics: Vec<Statistic>,
}

impl Adjuster<'_> {
    fn add(&mut self, key: u128, occurrences: u64) -> Result<(), StorageError> {
        // What begins with `<s>` has nothing before it: the other marks before a sentence's beginning are padding.
        let begin = (0..self.order).find(|place| self.packing.word(key, *place) == BEGIN);
        let length = begin.map_or(self.order, |place| place + 1);
        let same = self.packing.common(key, self.key).min(length).min(self.length);
        self.close_from(same + 1, false)?;
        if same > 0 {
            self.open[same - 1].adjusted += 1;
        }
        self.open[..same].iter_mut().for_each(|open| open.occurrences += occurrences);
        self.open[same..length].fill(Open { adjusted: 1, occurrences });
        self.open[length - 1].adjusted = occurrences;
        (self.key, self.length) = (key, length);
        Ok(())
    }

    /// Nothing more ends in the last `shortest` words and more of the n-gram before.
    fn close_from(&mut self, shortest: usize, at_end: bool) -> Result<(), StorageError> {
        for words in shortest..=self.length {
            let open = self.open[words - 1];
            let pruned = open.occurrences <= self.prune[words - 1];
            // lmplz enters the very last n-gram of each shorter order into the statistics by its occurrences; so do we, to get
            // its discounts.
            let counted = if at_end && words < self.order { open.occurrences } else { open.adjusted };
            self.emit(self.key, words, open.adjusted, counted, pruned)?;
        }
        Ok(())
    }

    fn emit(&mut self, key: u128, words: usize, adjusted: u64, counted: u64, pruned: bool) -> Result<(), StorageError> {
        self.statistics[words - 1].add(counted, pruned);
        let key = self.packing.by_context(self.packing.suffix(key, words), words);
        self.sorters[words - 1].push(Gram::new(key, pack(adjusted, pruned)))
    }
}
