//! What is remembered of every document: a few facts, 32 bytes each; and the rule that chooses among copies.

use std::{
    cmp::Reverse,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use internevo_core::storage::StorageError;
use serde_json::Value;

use crate::Document;
use crate::spill::{Scratch, Table};

/// Which copy stays. Ties are broken by input order, so the choice never depends on the order of work. Documents of an index
/// (`dedup/index.rs`) always stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepRule {
    /// The one with the greatest `date`, else `timestamp`, else `dump` (numbers by value, texts alphabetically by their first 23
    /// bytes: ISO dates and Common Crawl names sort in time). Documents without any count as oldest; among equals the later in
    /// input order stays.
    Newest,
    /// The one with the most bytes of text; among equals the earlier in input order.
    Longest,
    /// The one with the greatest number in `quality_score`, else `score`; documents without any come last, among equals the earlier
    /// in input order stays.
    BestScore,
    /// The earliest in input order.
    First,
}

impl KeepRule {
    /// The names of all rules in `pipeline.dedup.keep`.
    pub const NAMES: [&str; 4] = ["newest", "longest", "best_score", "first"];

    /// The rule called `name` in `pipeline.dedup.keep`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "newest" => Some(Self::Newest),
            "longest" => Some(Self::Longest),
            "best_score" => Some(Self::BestScore),
            "first" => Some(Self::First),
            _ => None,
        }
    }

    /// What the rule looks at in a document.
    pub fn rank(self, document: &Document) -> Rank {
        let first = |keys: &[&str]| keys.iter().find_map(|key| document.meta.get(*key));
        match self {
            Self::Newest => Rank::of(first(&["date", "timestamp", "dump"])),
            Self::Longest => Rank::number(document.text.len() as f64),
            Self::BestScore => {
                first(&["quality_score", "score"]).and_then(Value::as_f64).map_or(Rank::UNKNOWN, Rank::number)
            }
            Self::First => Rank::UNKNOWN,
        }
    }
}

/// How much a document is to be preferred under one [`KeepRule`]. Ordered: unknown, numbers, texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank([u8; 24]);

impl Rank {
    /// The document says nothing.
    pub const UNKNOWN: Self = Self([0; 24]);

    /// A number: bytes, a score, seconds, a year. Not a number is unknown.
    pub fn number(value: f64) -> Self {
        if value.is_nan() {
            return Self::UNKNOWN;
        }
        // The usual order-preserving map: flip all bits of negative numbers, the sign of the others.
        let bits = (value + 0.0).to_bits();
        let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        let mut rank = [0; 24];
        rank[0] = 1;
        rank[1..9].copy_from_slice(&ordered.to_be_bytes());
        Self(rank)
    }

    /// A text, by its first 23 bytes: an ISO date, a dump's name.
    pub fn text(value: &str) -> Self {
        let mut rank = [0; 24];
        rank[0] = 2;
        let length = value.len().min(23);
        rank[1..=length].copy_from_slice(&value.as_bytes()[..length]);
        Self(rank)
    }

    /// The value of a field.
    pub fn of(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Number(number)) => number.as_f64().map_or(Self::UNKNOWN, Self::number),
            Some(Value::String(text)) => Self::text(text),
            _ => Self::UNKNOWN,
        }
    }
}

/// The facts about one item of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of its text.
    pub text_bytes: u64,
    /// Is it no document at all?
    pub broken: bool,
    /// Does its line name its id? One without gets its id written out.
    pub named: bool,
    /// For the keep rule.
    pub rank: Rank,
}

const BROKEN: u64 = 1 << 63;
const NAMED: u64 = 1 << 62;

impl Facts {
    fn to_row(self) -> [u8; 32] {
        let flags = if self.broken { BROKEN } else { 0 } | if self.named { NAMED } else { 0 };
        let mut row = [0; 32];
        row[..8].copy_from_slice(&(self.text_bytes | flags).to_le_bytes());
        row[8..].copy_from_slice(&self.rank.0);
        row
    }

    fn of_row(row: [u8; 32]) -> Self {
        let word = u64::from_le_bytes(row[..8].try_into().expect("eight bytes"));
        let rank = Rank(row[8..].try_into().expect("twenty-four bytes"));
        let text_bytes = word & !(BROKEN | NAMED);
        Self { text_bytes, broken: word & BROKEN != 0, named: word & NAMED != 0, rank }
    }
}

/// The facts about all items, those of an index first.
pub struct Catalog<'s> {
    keep: KeepRule,
    rows: Table<'s, 32>,
    indexed: u32,
}

impl<'s> Catalog<'s> {
    /// An empty catalog that holds about `memory` bytes.
    pub fn new(keep: KeepRule, scratch: &'s Scratch, memory: usize) -> Self {
        Self { keep, rows: Table::new(scratch, memory), indexed: 0 }
    }

    /// Number of items.
    pub fn items(&self) -> u32 {
        self.rows.rows() as u32
    }

    /// Items of an index: they have the numbers below this, and always stay.
    pub fn indexed(&self) -> u32 {
        self.indexed
    }

    /// Declares all items so far to be of an index.
    pub fn end_index(&mut self) {
        self.indexed = self.items();
    }

    /// Appends an item; gives its number.
    ///
    /// # Errors
    /// When its file cannot be written.
    ///
    /// # Panics
    /// At the 2^32nd item: items are numbered in 32 bits.
    pub fn push(&mut self, facts: Facts) -> Result<u32, StorageError> {
        let number = u32::try_from(self.rows.rows()).ok().filter(|n| *n < u32::MAX);
        self.rows.push(facts.to_row())?;
        Ok(number.expect("one run deduplicates fewer than 2^32 documents"))
    }

    /// The facts about an item.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn get(&self, item: u32) -> Result<Facts, StorageError> {
        self.rows.get(item as usize).map(Facts::of_row)
    }

    /// Copies of each other, the preferred one first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn by_preference(&self, documents: &[u32]) -> Result<Vec<u32>, StorageError> {
        let later_first = self.keep == KeepRule::Newest;
        let mut ranked = documents
            .iter()
            .map(|&document| {
                let indexed = document < self.indexed;
                let tie = if later_first && !indexed { u32::MAX - document } else { document };
                Ok((!indexed, Reverse(self.get(document)?.rank), tie, document))
            })
            .collect::<Result<Vec<_>, StorageError>>()?;
        ranked.sort_unstable();
        Ok(ranked.into_iter().map(|(.., document)| document).collect())
    }
}

/// A set of items that threads add to at once; a bit each.
#[derive(Debug)]
pub struct BitSet(Vec<AtomicU64>);

impl BitSet {
    /// No item of `0..items`.
    pub fn new(items: u32) -> Self {
        Self((0..items.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds an item.
    pub fn insert(&self, item: u32) {
        self.0[item as usize / 64].fetch_or(1 << (item % 64), Relaxed);
    }

    /// Is the item in the set?
    pub fn contains(&self, item: u32) -> bool {
        self.0[item as usize / 64].load(Relaxed) >> (item % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_unknown_then_numbers_then_texts() {
        let numbers = [f64::NEG_INFINITY, -3.5, -1e-300, 0.0, 2.0, 1e9, f64::INFINITY].map(Rank::number);
        let texts = ["", "2019-01-01", "2019-01-01T00:00:00Z", "2021", "CC-MAIN-2024-10"].map(Rank::text);
        let all: Vec<Rank> = [Rank::UNKNOWN].into_iter().chain(numbers).chain(texts).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert_eq!((Rank::number(f64::NAN), Rank::number(-0.0)), (Rank::UNKNOWN, Rank::number(0.0)));
    }

    #[test]
    fn facts_survive_their_row() {
        let facts = Facts { text_bytes: 12_345_678_901, broken: true, named: false, rank: Rank::text("2024") };
        for facts in [facts, Facts { broken: false, named: true, ..facts }] {
            assert_eq!(Facts::of_row(facts.to_row()), facts);
        }
    }
}
