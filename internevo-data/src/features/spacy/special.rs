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
    /// By first byte: the lengths of the texts that begin with it, a bit each. Most words are turned away here, before they are hashed.
    lengths: Lengths,
    /// Hashes of all texts: nearly every word that is left is turned away here.
    texts: Filter,
    /// What the affix rules make of a case that they tear apart, by the hash of the first token: hashes of all, and the case.
    torn: HashMap<u64, Vec<(Vec<u64>, u32)>>,
    /// The keys of `torn`.
    starts: Filter,
}

/// Lengths of texts (below 64 bytes) by first byte.
struct Lengths(Box<[u64; 256]>);

impl Default for Lengths {
    fn default() -> Self {
        Self(Box::new([0; 256]))
    }
}

impl Lengths {
    fn add(&mut self, text: &str) {
        assert!(text.len() < 64, "special cases are short");
        self.0[usize::from(text.as_bytes()[0])] |= 1 << text.len();
    }

    #[inline]
    fn may_have(&self, text: &str) -> bool {
        let first = text.as_bytes().first();
        text.len() < 64 && first.is_some_and(|first| self.0[usize::from(*first)] >> text.len() & 1 == 1)
    }
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
        self.lengths.add(case.text);
        if tokens.len() > 1 {
            self.starts.add(tokens[0]);
            self.torn.entry(tokens[0]).or_default().push((tokens, number));
        }
        self.cases.push(case);
    }

    /// The case `text`, whose hash is `hash`.
    #[inline]
    pub(super) fn find(&self, text: &str, hash: u64) -> Option<&SpecialCase> {
        if !self.lengths.may_have(text) || !self.texts.may_have(hash) {
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
        if self.lengths.may_have(text) { self.find(text, xxh3_64(text.as_bytes())) } else { None }
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

    /// Puts torn cases among `words[first..]` together, longer ones first, then earlier ones. Words of a case that stand apart are left
    /// as they are, but they are taken all the same.
    pub(super) fn mend<'a>(&self, text: &'a str, words: &mut Vec<Word<'a>>, first: usize) {
        let mut mended = self.chosen(text, &words[first..]);
        mended.retain(|(at, length, case)| {
            whole(text, &words[first + at..first + at + length]) == self.cases[*case as usize].text
        });
        mended.sort_unstable();
        let torn = words.split_off(first);
        let mut done = 0;
        for (at, length, case) in mended {
            words.extend_from_slice(&torn[done..at]);
            self.cases[case as usize].push(whole(text, &torn[at..at + length]), words);
            done = at + length;
        }
        words.extend_from_slice(&torn[done..]);
    }

    /// Torn cases that do not overlap: place, number of words, case.
    fn chosen(&self, text: &str, words: &[Word<'_>]) -> Vec<(usize, usize, u32)> {
        // Words are neighbours if at most one space is between them: spaCy has a token for any other white space.
        let end = |word: &Word<'_>| word.start(text) + word.text.len();
        let adjacent = |pair: &[Word<'_>]| matches!(&text[end(&pair[0])..pair[1].start(text)], "" | " ");
        let mut found = Vec::new();
        for at in (0..words.len()).filter(|at| self.starts.may_have(words[*at].hash)) {
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

/// The stretch of `text` from the first of these words to the last.
fn whole<'a>(text: &'a str, words: &[Word<'a>]) -> &'a str {
    let last = &words[words.len() - 1];
    &text[words[0].start(text)..last.start(text) + last.text.len()]
}
