//! Repeated n-grams of words, for n from 2 to 10, in time close to linear in the words.
//!
//! An n-gram can occur twice only if its first n-1 words do. So each length looks only at the places that the shorter length left
//! over, and in ordinary text almost nothing is left after n = 4. An n-gram is named by the pair (its first n-1 words, its last
//! word), both dense numbers: equal pairs are equal n-grams, there are no hash collisions beyond the 64 bits of a word's hash.

use super::Word;

/// Shortest and longest n that is looked at.
const SHORTEST: usize = 2;
const LONGEST: usize = 10;

/// Where n-grams occur that occur more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Level {
    /// Places (indices of words) where a repeated n-gram begins, ascending.
    places: Vec<u32>,
    /// Number of the n-gram at each place; equal numbers are equal n-grams.
    ids: Vec<u32>,
    /// Distinct n-grams that were numbered.
    distinct: usize,
    /// Place and count of the most frequent n-gram; the first of several.
    top: Option<(u32, u32)>,
}

impl Repeats {
    /// Finds the repeated n-grams of `words`; `hashes` are the words' hashes.
    pub fn find(words: &[Word<'_>], hashes: &[u64]) -> Self {
        let mut table = Table::default();
        let word_ids = number(hashes.iter().copied(), &mut table).0;
        let mut before =
            Level { places: (0..word_ids.len() as u32).collect(), ids: word_ids.clone(), ..Level::default() };
        let mut levels = Vec::with_capacity(LONGEST - SHORTEST + 1);
        for n in SHORTEST..=LONGEST {
            let mut level = longer(&before, n, &word_ids, &mut table);
            if level.top.is_none() && words.len() >= n {
                level.top = Some((0, 1));
            }
            levels.push(level);
            before.clone_from(levels.last().expect("pushed above"));
        }
        Self { levels }
    }

    /// Characters (words joined by one space) times occurrences of the most frequent n-gram, the first of several; `None` for
    /// texts of fewer than `n` words.
    ///
    /// # Panics
    /// If `n` is not in 2..=10.
    pub fn top_chars(&self, n: usize, words: &[Word<'_>]) -> Option<usize> {
        let (place, count) = self.levels[n - SHORTEST].top?;
        Some((chars(words, place, n) + n - 1) * count as usize)
    }

    /// Characters of n-grams that occurred before, read from left to right; after each of them the next `n` words are passed
    /// over, so that no character counts twice.
    ///
    /// # Panics
    /// If `n` is not in 2..=10.
    pub fn duplicate_chars(&self, n: usize, words: &[Word<'_>]) -> usize {
        let level = &self.levels[n - SHORTEST];
        let mut seen = vec![false; level.distinct];
        let (mut next, mut total) = (0, 0);
        for (&place, &id) in level.places.iter().zip(&level.ids).filter(|_| level.distinct > 0) {
            if place < next {
                continue;
            }
            if std::mem::replace(&mut seen[id as usize], true) {
                total += chars(words, place, n);
                next = place + n as u32;
            }
        }
        total
    }
}

fn chars(words: &[Word<'_>], place: u32, n: usize) -> usize {
    words[place as usize..][..n].iter().map(|word| word.chars as usize).sum()
}

/// The repeated n-grams, given the repeated (n-1)-grams.
fn longer(before: &Level, n: usize, word_ids: &[u32], table: &mut Table) -> Level {
    let complete = before.places.partition_point(|place| *place as usize + n <= word_ids.len());
    let key = |(place, id): (&u32, &u32)| u64::from(*id) << 32 | u64::from(word_ids[*place as usize + n - 1]);
    let (ids, counts) = number(before.places[..complete].iter().zip(&before.ids).map(key), table);
    let mut level = Level { distinct: counts.len(), ..Level::default() };
    let most = counts.iter().copied().max().unwrap_or(0);
    for (&place, &id) in before.places.iter().zip(&ids) {
        let count = counts[id as usize];
        if count > 1 {
            level.places.push(place);
            level.ids.push(id);
        }
        if count == most && most > 1 && level.top.is_none() {
            level.top = Some((place, count));
        }
    }
    level
}

/// Numbers distinct keys in the order of their first occurrence; also how often each occurs.
fn number(keys: impl ExactSizeIterator<Item = u64>, table: &mut Table) -> (Vec<u32>, Vec<u32>) {
    table.reset(keys.len());
    let mut counts: Vec<u32> = Vec::new();
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
struct Table {
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
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use crate::{Document, Features, features::Word};

    fn naive_top(words: &[Word<'_>], n: usize) -> Option<usize> {
        let grams: Vec<Vec<&str>> = words.windows(n).map(|w| w.iter().map(|w| w.text).collect()).collect();
        let mut counts: HashMap<&[&str], usize> = HashMap::new();
        grams.iter().for_each(|gram| *counts.entry(gram).or_default() += 1);
        let most = counts.values().copied().max()?;
        let first = grams.iter().find(|gram| counts[gram.as_slice()] == most)?;
        Some(first.join(" ").chars().count() * most)
    }

    fn naive_duplicates(words: &[Word<'_>], n: usize) -> usize {
        let texts: Vec<&str> = words.iter().map(|w| w.text).collect();
        let (mut seen, mut total, mut at) = (HashSet::new(), 0, 0);
        while at + n <= texts.len() {
            if seen.insert(&texts[at..at + n]) {
                at += 1;
            } else {
                total += texts[at..at + n].concat().chars().count();
                at += n;
            }
        }
        total
    }

    proptest! {
        #[test]
        fn repeats_equal_a_quadratic_reference(picks in prop::collection::vec(0usize..5, 0..120), copy in 0usize..60) {
            const VOCABULARY: [&str; 5] = ["a", "bb", "ccc", "é", "…"];
            let mut picks = picks;
            picks.extend_from_within(..copy.min(picks.len()));
            let text = picks.iter().map(|pick| VOCABULARY[*pick]).collect::<Vec<_>>().join(" ");
            let document = Document::new("a", text);
            let features = Features::new(&document);
            let words = features.words();
            for n in 2..=10 {
                prop_assert_eq!(features.repeats().top_chars(n, words), naive_top(words, n), "top {}", n);
                prop_assert_eq!(features.repeats().duplicate_chars(n, words), naive_duplicates(words, n), "duplicate {}", n);
            }
        }
    }
}
