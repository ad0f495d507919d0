//! Probabilities and backoffs from adjusted counts: modified Kneser-Ney smoothing, interpolated (Chen and Goodman 1998, section 4.1.6;
//! in sorted streams as Heafield et al. 2013).

use std::io::Write;

use internevo_core::storage::StorageError;

use super::{
    Weights,
    adjust::{Statistic, unpack},
    arpa::ArpaWriter,
    count::{BEGIN, Gram, Packing},
};
use crate::{
    DataError,
    interner::Interner,
    spill::{Scratch, Sorted, Sorter},
};

/// What is taken away from an adjusted count of 1, of 2, and of 3 or more.
pub(super) type Discount = [f64; 3];

/// lmplz's discounts for a corpus from which none can be estimated.
const FALLBACK: Discount = [0.5, 1.0, 1.5];

/// Chen and Goodman's estimate, equation 26.
///
/// # Errors
/// A corpus that is too small or too repetitive for one, unless `fallback`.
pub(super) fn discount(order: usize, statistic: &Statistic, fallback: bool) -> Result<Discount, DataError> {
    let n = statistic.with_count.map(|count| count as f64);
    let y = n[1] / (n[1] + 2.0 * n[2]);
    let estimated = [1, 2, 3].map(|j| j as f64 - (j + 1) as f64 * y * n[j + 1] / n[j]);
    let is_possible = |(at, discount): (usize, &f64)| (0.0..=(at + 1) as f64).contains(discount);
    let is_seen = n[1..4].iter().all(|count| *count > 0.0);
    match is_seen && estimated.iter().enumerate().all(is_possible) {
        true => Ok(estimated),
        false if fallback => Ok(FALLBACK),
        false => Err(DataError::Setting {
            key: "order".into(),
            reason: format!(
                "no Kneser-Ney discounts can be estimated for {order}-grams: {:?} of them have an adjusted count of 1, 2, 3 and 4. \
                 Take more text, remove its duplicates, lower the order, or allow fixed discounts with discount_fallback",
                &statistic.with_count[1..]
            ),
        }),
    }
}

/// n-grams of one order, by suffix, each with its share of probability before interpolation and the weight of the shorter n-gram;
/// and the contexts, by suffix, with that weight.
pub(super) struct Shares {
    grams: Sorted<Gram>,
    contexts: Sorted<Gram>,
}

/// The shares of the n-grams of `order` words.
pub(super) fn shares(
    grams: &Sorted<Gram>,
    order: usize,
    packing: Packing,
    discount: &Discount,
    scratch: &Scratch,
    memory: usize,
) -> Result<Shares, StorageError> {
    let mut out = Sharer {
        order,
        packing,
        discount,
        grams: Sorter::new(scratch, memory / 2),
        contexts: Sorter::new(scratch, memory / 2),
    };
    let mut group: Vec<Gram> = Vec::new();
    for gram in grams.iter()? {
        let gram = gram?;
        let is_new = |last: &Gram| packing.suffix(last.key(), order - 1) != packing.suffix(gram.key(), order - 1);
        if group.last().is_some_and(is_new) {
            out.group(&group)?;
            group.clear();
        }
        group.push(gram);
    }
    out.group(&group)?;
    Ok(Shares { grams: out.grams.finish()?, contexts: out.contexts.finish()? })
}

struct Sharer<'s> {
    order: usize,
    packing: Packing,
    discount: &'s Discount,
    grams: Sorter<'s, Gram>,
    contexts: Sorter<'s, Gram>,
}

impl Sharer<'_> {
    fn taken(&self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.discount[count.min(3) as usize - 1] }
    }

    /// All n-grams of one context.
    fn group(&mut self, group: &[Gram]) -> Result<(), StorageError> {
        let Some(first) = group.first() else { return Ok(()) };
        let counts = || group.iter().map(|gram| unpack(gram.value));
        let all: u64 = counts().map(|(count, _)| count).sum();
        // A pruned n-gram leaves its whole count to the shorter one.
        let left: f64 = counts().map(|(count, pruned)| if pruned { count as f64 } else { self.taken(count) }).sum();
        let weight = left / all as f64;
        self.contexts.push(Gram::new(self.packing.suffix(first.key(), self.order - 1), weight.to_bits()))?;
        for gram in group {
            let (count, pruned) = unpack(gram.value);
            let key = self.packing.by_suffix(gram.key(), self.order);
            if pruned {
                continue;
            }
            let is_begin = self.order == 1 && self.packing.word(key, 0) == BEGIN;
            // A sentence begins: nothing to predict. `<unk>` was never counted and lives on the shorter n-gram alone.
            let share = if is_begin { [1.0, 0.0] } else { [(count as f64 - self.taken(count)) / all as f64, weight] };
            self.grams.push(Gram::new(key, pack(share)))?;
        }
        Ok(())
    }
}

/// Share and weight, in 32 bits each.
fn pack([share, weight]: [f64; 2]) -> u64 {
    u64::from((share as f32).to_bits()) << 32 | u64::from((weight as f32).to_bits())
}

fn unpack_share(value: u64) -> [f64; 2] {
    [(value >> 32) as u32, value as u32].map(|bits| f32::from_bits(bits).into())
}

/// Interpolates order by order and writes the model.
pub(super) struct Interpolation<'a, W> {
    pub packing: Packing,
    pub words: &'a Interner,
    pub scratch: &'a Scratch,
    pub memory: usize,
    pub out: ArpaWriter<W>,
}

impl<W: Write> Interpolation<'_, W> {
    /// Writes the n-grams of `order` words. `shorter`: the probabilities of the order below, by suffix; the first order has `uniform`
    /// below it. `longer`: the order above. Returns the probabilities.
    pub fn order(
        &mut self,
        order: usize,
        shares: &Shares,
        shorter: Option<&Sorted<Gram>>,
        uniform: f64,
        longer: Option<&Shares>,
    ) -> Result<Sorted<Gram>, DataError> {
        let mut finished = Sorter::new(self.scratch, self.memory);
        let mut shorter = Follower::new(shorter)?;
        let mut contexts = Follower::new(longer.map(|longer| &longer.contexts))?;
        for gram in shares.grams.iter()? {
            let gram = gram?;
            let [share, weight] = unpack_share(gram.value);
            let below = shorter.value(self.packing.suffix(gram.key(), order - 1))?.unwrap_or(uniform);
            let probability = share + weight * below;
            finished.push(Gram::new(gram.key(), probability.to_bits()))?;
            let backoff = contexts.value(gram.key())?.unwrap_or(1.0);
            let weights = Weights { log10: probability.log10().min(0.0) as f32, backoff: backoff.log10() as f32 };
            let words = (0..order).rev().map(|place| self.words.word(self.packing.word(gram.key(), place)));
            self.out.ngram(words, order, weights).map_err(StorageError::at("write", "the model"))?;
        }
        Ok(finished.finish()?)
    }
}

/// Values by key, asked for in ascending order.
struct Follower<I> {
    items: Option<I>,
    current: Option<Gram>,
}

impl<'a> Follower<crate::spill::Merge<'a, Gram>> {
    fn new(sorted: Option<&'a Sorted<Gram>>) -> Result<Self, StorageError> {
        let mut follower = Self { items: sorted.map(Sorted::iter).transpose()?, current: None };
        follower.next()?;
        Ok(follower)
    }

    fn next(&mut self) -> Result<(), StorageError> {
        self.current = self.items.as_mut().and_then(Iterator::next).transpose()?;
        Ok(())
    }

    /// The value of `key`, if it has one.
    fn value(&mut self, key: u128) -> Result<Option<f64>, StorageError> {
        while self.current.is_some_and(|current| current.key() < key) {
            self.next()?;
        }
        Ok(self.current.filter(|current| current.key() == key).map(|current| f64::from_bits(current.value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_follow_chen_and_goodman() {
        let statistic = Statistic { with_count: [0, 100, 40, 20, 10], kept: 170 };
        let y = 100.0 / 180.0;
        let expected = [1.0 - 2.0 * y * 0.4, 2.0 - 3.0 * y * 0.5, 3.0 - 4.0 * y * 0.5];
        let found = discount(2, &statistic, false).expect("enough");
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn a_corpus_without_repeated_ngrams_has_discounts_only_if_fixed_ones_are_allowed() {
        let statistic = Statistic { with_count: [0, 100, 0, 0, 0], kept: 100 };
        assert_eq!(discount(5, &statistic, true).expect("fixed"), FALLBACK);
        let message = discount(5, &statistic, false).expect_err("none").to_string();
        assert!(message.contains("5-grams") && message.contains("discount_fallback"), "{message}");
    }
}
