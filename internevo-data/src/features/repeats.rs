//! Repeated n-grams of words, for n from 2 to 10, in time close to linear in the words.
//!
//! An n-gram can occur twice only if its first n-1 words do. So each length looks only at the places that the shorter length left
//! over, and in ordinary text almost nothing is left after n = 4. An n-gram is named by the pair (its first n-1 words, its last
//! word), both dense numbers: equal pairs are equal n-grams, there are no hash collisions beyond the 64 bits of a word's hash.

/// Shortest and longest n that is looked at.
const SHORTEST: usize = 2;
const LONGEST: usize = 10;

/// Where n-grams occur that occur more than once. How much of a text that is, tools count in different ways: `filters/gopher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    words: usize,
    levels: Vec<Level>,
}

/// The repeated n-grams of one n.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    /// Places (indices of words) where a repeated n-gram begins, ascending.
    places: Vec<u32>,
    /// Number of the n-gram at each place; equal numbers are equal n-grams.
    ids: Vec<u32>,
    /// How often the n-gram of each number occurs; 1 for those that are not repeated.
    counts: Vec<u32>,
}

impl Repeats {
    /// Finds the repeated n-grams of words, given by their hashes.
    pub fn find(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let mut table = Table::default();
        let (word_ids, counts) = number(hashes, &mut table);
        let mut levels: Vec<Level> = Vec::with_capacity(LONGEST - SHORTEST + 1);
        let single = Level { places: (0..word_ids.len() as u32).collect(), ids: word_ids.clone(), counts }.repeated();
        for n in SHORTEST..=LONGEST {
            let before = levels.last().unwrap_or(&single);
            levels.push(longer(before, n, &word_ids, &mut table));
        }
        Self { words: word_ids.len(), levels }
    }

    fn level(&self, n: usize) -> &Level {
        &self.levels[n - SHORTEST]
    }

    /// Place and count of the most frequent n-gram, the first of several; `None` for texts of fewer than `n` words.
    ///
    /// # Panics
    /// If `n` is not in 2..=10.
    pub fn top(&self, n: usize) -> Option<(usize, usize)> {
        let level = self.level(n);
        let most = level.counts.iter().copied().max().unwrap_or(0);
        if most < 2 {
            return (self.words >= n).then_some((0, 1));
        }
        let first = level.ids.iter().position(|id| level.counts[*id as usize] == most).expect("it occurs");
        Some((level.places[first] as usize, most as usize))
    }

    /// Places of the most frequent repeated n-gram; of several the one with the largest `size(place)`. Empty without repetition.
    ///
    /// # Panics
    /// If `n` is not in 2..=10.
    pub fn top_places(&self, n: usize, size: impl Fn(usize) -> usize) -> impl Iterator<Item = usize> {
        let level = self.level(n);
        let rank = |at: &usize| (level.counts[level.ids[*at] as usize], size(level.places[*at] as usize));
        let top = (0..level.ids.len()).max_by_key(rank).map(|at| level.ids[at]);
        level.places.iter().zip(&level.ids).filter(move |(_, id)| Some(**id) == top).map(|(place, _)| *place as usize)
    }

    /// Places of repeated n-grams, ascending, each with a number below [`Repeats::numbers`]; equal numbers are equal n-grams.
    ///
    /// # Panics
    /// If `n` is not in 2..=10.
    pub fn places(&self, n: usize) -> impl Iterator<Item = (usize, usize)> {
        let level = self.level(n);
        level.places.iter().zip(&level.ids).map(|(place, id)| (*place as usize, *id as usize))
    }

    /// See [`Repeats::places`].
    pub fn numbers(&self, n: usize) -> usize {
        self.level(n).counts.len()
    }
}

impl Level {
    /// Without what occurs once.
    fn repeated(mut self) -> Self {
        let mut kept = 0;
        for at in 0..self.ids.len() {
            if self.counts[self.ids[at] as usize] > 1 {
                (self.places[kept], self.ids[kept]) = (self.places[at], self.ids[at]);
                kept += 1;
            }
        }
        self.places.truncate(kept);
        self.ids.truncate(kept);
        self
    }
}

/// The repeated n-grams, given the repeated (n-1)-grams.
fn longer(before: &Level, n: usize, word_ids: &[u32], table: &mut Table) -> Level {
    let complete = before.places.partition_point(|place| *place as usize + n <= word_ids.len());
    let places = &before.places[..complete];
    let key = |(place, id): (&u32, &u32)| u64::from(*id) << 32 | u64::from(word_ids[*place as usize + n - 1]);
    let (ids, counts) = number(places.iter().zip(&before.ids).map(key), table);
    Level { places: places.to_vec(), ids, counts }.repeated()
}

/// Numbers distinct keys in the order of their first occurrence; also how often each occurs.
pub(super) fn number(keys: impl ExactSizeIterator<Item = u64>, table: &mut Table) -> (Vec<u32>, Vec<u32>) {
    table.reset(keys.len());
    let mut counts: Vec<u32> = Vec::with_capacity(keys.len());
    let ids = keys
        .map(|key| {
            let id = table.id(key, counts.len() as u32);
            match counts.get_mut(id as usize) {
                Some(count) => *count += 1,
                None => counts.push(1),
            }
            id
        })
        .collect();
    (ids, counts)
}

/// An open-addressing map from keys to numbers, reused for all lengths.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<(u64, u32)>,
    shift: u32,
}

/// Marks a free slot.
const FREE: u32 = u32::MAX;

impl Table {
    /// Empties the table and makes room for `keys`, at most half full.
    fn reset(&mut self, keys: usize) {
        let size = (keys * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(size, (0, FREE));
        self.shift = 64 - size.trailing_zeros();
    }

    /// The number of `key`; `new` when it has none yet.
    #[inline]
    fn id(&mut self, key: u64, new: u32) -> u32 {
        // Fibonacci hashing after a fold, so that both halves of a pair reach the high bits.
        let mixed = (key ^ (key >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut slot = (mixed >> self.shift) as usize;
        let mask = self.slots.len() - 1;
        loop {
            match &mut self.slots[slot] {
                (found, id) if *id != FREE && *found == key => return *id,
                (found, id) if *id == FREE => {
                    (*found, *id) = (key, new);
                    return new;
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn repeats_equal_a_quadratic_reference(picks in prop::collection::vec(0u64..5, 0..120), copy in 0usize..60) {
            let mut words = picks;
            words.extend_from_within(..copy.min(words.len()));
            let repeats = Repeats::find(words.iter().copied());
            for n in 2..=10 {
                let mut counts: HashMap<&[u64], usize> = HashMap::new();
                words.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
                let expected: Vec<usize> =
                    (0..(words.len() + 1).saturating_sub(n)).filter(|at| counts[&words[*at..at + n]] > 1).collect();
                let found: Vec<(usize, usize)> = repeats.places(n).collect();
                prop_assert_eq!(found.iter().map(|(place, _)| *place).collect::<Vec<_>>(), expected);
                for (a, b) in found.iter().zip(found.iter().skip(1)) {
                    prop_assert_eq!(a.1 == b.1, words[a.0..a.0 + n] == words[b.0..b.0 + n]);
                }
                let most = counts.values().copied().max();
                let first = words.windows(n).position(|gram| Some(counts[gram]) == most);
                prop_assert_eq!(repeats.top(n), first.zip(most));
                let longest_last = repeats.top_places(n, |place| place).next();
                prop_assert_eq!(longest_last.map(|at| counts[&words[at..at + n]]), most.filter(|most| *most > 1));
            }
        }
    }
}
