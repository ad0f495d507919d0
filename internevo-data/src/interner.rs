//! Words and their numbers, in two allocations.

/// A free slot.
const FREE: u32 = u32::MAX;

/// Numbers words in the order in which they come. Words are bytes.
#[derive(Debug)]
pub(crate) struct Interner {
    hash: fn(&[u8]) -> u64,
    /// All words, one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Open addressing by hash: number of the word, or [`FREE`]. At most half are taken.
    slots: Vec<u32>,
}

impl Interner {
    /// No words; `hash` places them.
    pub fn new(hash: fn(&[u8]) -> u64) -> Self {
        Self { hash, bytes: Vec::new(), ends: Vec::new(), slots: vec![FREE; 16] }
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>() + self.slots.capacity() * size_of::<u32>()
    }

    /// Word number `index`.
    pub fn word(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// The number of a word whose hash the caller has.
    pub fn find_hashed(&self, word: &[u8], hash: u64) -> Option<u32> {
        Some(self.slots[self.slot(word, hash)]).filter(|found| *found != FREE)
    }

    /// The number of a word, which is new if need be.
    ///
    /// # Panics
    /// With more than 2^31 words.
    pub fn insert(&mut self, word: &[u8]) -> u32 {
        let slot = self.slot(word, (self.hash)(word));
        if self.slots[slot] != FREE {
            return self.slots[slot];
        }
        let index =
            u32::try_from(self.ends.len()).ok().filter(|index| *index < FREE / 2).expect("fewer than 2^31 words");
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
        self.slots[slot] = index;
        if 2 * self.ends.len() > self.slots.len() {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        self.slots = vec![FREE; 2 * self.slots.len()];
        for index in 0..self.ends.len() as u32 {
            let slot = self.slot(self.word(index), (self.hash)(self.word(index)));
            self.slots[slot] = index;
        }
    }

    /// The slot that holds `word`, or the free one where it would be.
    fn slot(&self, word: &[u8], hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != FREE && self.word(self.slots[slot]) != word {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_numbers_while_the_table_grows_even_if_all_hashes_are_equal() {
        for hash in [xxhash_rust::xxh3::xxh3_64, |_: &[u8]| 7] {
            let mut words = Interner::new(hash);
            let texts: Vec<String> = (0..500).map(|i| format!("w{}", i * i)).collect();
            let numbers: Vec<u32> = texts.iter().map(|text| words.insert(text.as_bytes())).collect();
            assert_eq!(numbers, (0..500).collect::<Vec<_>>());
            for (text, number) in texts.iter().zip(numbers) {
                assert_eq!(words.insert(text.as_bytes()), number);
                assert_eq!(words.find_hashed(text.as_bytes(), hash(text.as_bytes())), Some(number));
                assert_eq!(words.word(number), text.as_bytes());
            }
            assert_eq!(words.find_hashed(b"none", hash(b"none")), None);
            assert_eq!(words.len(), 500);
        }
    }
}
