//! Special cases: texts that are split as listed, whatever the affix rules say.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{super::word::Word, Dialect};

/// A listed text and the lengths of its tokens, bytes.
#[derive(Clone, Debug)]
pub(super) struct SpecialCase {
    text: &'static str,
    lengths: Vec<usize>,
}

impl SpecialCase {
    /// Pushes the tokens of `text`, an occurrence of this case.
    pub(super) fn push<'a>(&self, text: &'a str, words: &mut Vec<Word<'a>>) {
        let mut rest = text;
        for &length in &self.lengths {
            let (token, after) = rest.split_at(length);
            words.push(Word::new(token));
            rest = after;
        }
    }
}

/// All special cases of a dialect.
#[derive(Default)]
pub(super) struct SpecialCases {
    cases: Vec<SpecialCase>,
    /// Hash of the text and number of the case, open addressing; a hash of 0 marks a free slot.
    slots: Vec<(u64, u32)>,
    /// Longest text, bytes.
    longest: usize,
    /// Hashes of all texts: nearly every word is turned away here.
    texts: Filter,
    /// What the affix rules make of a case that they tear apart, by the hash of the first token: hashes of all, and the case.
    torn: HashMap<u64, Vec<(Vec<u64>, u32)>>,
    /// The keys of `torn`.
    starts: Filter,
}

/// A set of hashes by 16 of their bits: small enough for the processor's first cache, wrong for one in fifty others.
struct Filter(Box<[u64; 1024]>);

impl Default for Filter {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Filter {
    fn add(&mut self, hash: u64) {
        self.0[(hash >> 48) as usize / 64] |= 1 << (hash >> 48 & 63);
    }

    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        self.0[(hash >> 48) as usize / 64] >> (hash >> 48 & 63) & 1 == 1
    }
}

/// Slots; a power of two, several times the cases.
const SLOTS: usize = 8192;

impl SpecialCases {
    /// Reads the table; `split` tells the hashes of what the affix rules alone make of a text.
    pub(super) fn load(dialect: Dialect, split: impl Fn(&'static str) -> Vec<u64>) -> Self {
        let mut cases = Self { slots: vec![(0, 0); SLOTS], ..Self::default() };
        for line in include_str!("special_cases.tsv").lines().filter(|line| !line.starts_with('#')) {
            let mut cells = line.split('\t');
            let (set, text) = (cells.next().expect("a set"), cells.next().expect("a text"));
            if set == "base" || dialect == Dialect::English {
                cases.add(SpecialCase { text, lengths: cells.map(str::len).collect() }, split(text));
            }
        }
        cases
    }

    fn add(&mut self, case: SpecialCase, tokens: Vec<u64>) {
        let number = self.cases.len() as u32;
        let hash = xxh3_64(case.text.as_bytes());
        let mut slot = hash as usize % SLOTS;
        while self.slots[slot].0 != 0 {
            slot = (slot + 1) % SLOTS;
        }
        self.slots[slot] = (hash, number);
        self.texts.add(hash);
        self.longest = self.longest.max(case.text.len());
        if tokens.len() > 1 {
            self.starts.add(tokens[0]);
            self.torn.entry(tokens[0]).or_default().push((tokens, number));
        }
        self.cases.push(case);
    }

    /// The case `text`, whose hash is `hash`.
    #[inline]
    pub(super) fn find(&self, text: &str, hash: u64) -> Option<&SpecialCase> {
        if text.len() > self.longest || !self.texts.may_have(hash) {
            return None;
        }
        let mut slot = hash as usize % SLOTS;
        loop {
            match self.slots[slot] {
                (0, _) => return None,
                (found, number) if found == hash => return Some(&self.cases[number as usize]),
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }

    /// The case `text`.
    #[inline]
    pub(super) fn find_text(&self, text: &str) -> Option<&SpecialCase> {
        let is_short = !text.is_empty() && text.len() <= self.longest;
        if is_short { self.find(text, xxh3_64(text.as_bytes())) } else { None }
    }

    /// Do these words, of one stretch, hold a torn special case?
    pub(super) fn tears(&self, words: &[Word<'_>]) -> bool {
        (1..words.len()).any(|next| self.torn_at(&words[next - 1..]).next().is_some())
    }

    /// Torn cases that `words` begin with, each as its number of words and its number.
    fn torn_at(&self, words: &[Word<'_>]) -> impl Iterator<Item = (usize, u32)> {
        let first = words[0].hash;
        let candidates = if self.starts.may_have(first) { self.torn.get(&first) } else { None };
        let fits = move |tokens: &[u64]| {
            tokens.len() <= words.len() && tokens.iter().zip(words).all(|(token, word)| *token == word.hash)
        };
        let fitting = candidates.into_iter().flatten().filter(move |(tokens, _)| fits(tokens));
        fitting.map(|(tokens, case)| (tokens.len(), *case))
    }

    /// Puts torn cases together, longer ones first, then earlier ones. Words of a case that stand apart are left as they are, but
    /// they are taken all the same.
    pub(super) fn mend<'a>(&self, text: &'a str, words: &[Word<'a>]) -> Vec<Word<'a>> {
        let mut mended = vec![None; words.len()];
        for (at, length, case) in self.chosen(text, words) {
            let (first, last) = (words[at].start(text), &words[at + length - 1]);
            let whole = &text[first..last.start(text) + last.text.len()];
            if whole == self.cases[case as usize].text {
                mended[at] = Some((length, whole, case));
            }
        }
        let (mut result, mut at) = (Vec::with_capacity(words.len()), 0);
        while at < words.len() {
            match mended[at] {
                None => result.push(words[at]),
                Some((length, whole, case)) => {
                    self.cases[case as usize].push(whole, &mut result);
                    at += length - 1;
                }
            }
            at += 1;
        }
        result
    }

    /// Torn cases that do not overlap: place, number of words, case.
    fn chosen(&self, text: &str, words: &[Word<'_>]) -> Vec<(usize, usize, u32)> {
        // Words are neighbours if at most one space is between them: spaCy has a token for any other white space.
        let end = |word: &Word<'_>| word.start(text) + word.text.len();
        let adjacent = |pair: &[Word<'_>]| matches!(&text[end(&pair[0])..pair[1].start(text)], "" | " ");
        let mut found = Vec::new();
        for at in 0..words.len() {
            let torn = self.torn_at(&words[at..]).map(|(length, case)| (at, length, case));
            found.extend(torn.filter(|(_, length, _)| words[at..at + length].windows(2).all(adjacent)));
        }
        found.sort_by_key(|(at, length, _)| (std::cmp::Reverse(*length), *at));
        let mut taken = vec![false; words.len()];
        found.retain(|&(at, length, _)| {
            let free = !taken[at] && !taken[at + length - 1];
            taken[at..at + length].fill(true);
            free
        });
        found
    }
}
