//! One document to hashes: what a thread does by itself.

use super::super::{
    catalog::{Facts, Rank},
    minhash::MinHasher,
    settings::{Method, Settings},
    shingle::{ShingleSet, shingles},
    tokens::{TokenRule, Tokens, text_identity},
};

/// Seed of the hash functions: part of the format of band keys, so that shards hashed on different machines agree.
const HASH_SEED: u64 = 1;

/// What the first pass needs of a document.
#[derive(Clone, Copy, Debug)]
pub struct DocumentView<'a> {
    /// Its text.
    pub text: &'a str,
    /// Prose or code.
    pub rule: TokenRule,
    /// For the keep rule ([`KeepRule::rank`](crate::dedup::KeepRule::rank)).
    pub rank: Rank,
    /// Does its line name its id?
    pub named: bool,
}

/// What the first pass found out about a document.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// For the catalog.
    pub facts: Facts,
    /// Equal for exact copies.
    pub identity: u128,
    /// One per band; none for a document without tokens.
    pub keys: Vec<u64>,
}

/// Buffers that one thread reuses for all its documents.
#[derive(Debug, Default)]
pub struct HashBuffers {
    tokens: Tokens,
    shingles: Vec<u64>,
    signature: Vec<u32>,
}

/// Turns texts into hashes; shared by all threads.
#[derive(Clone, Debug)]
pub struct Hasher {
    settings: Settings,
    minhash: MinHasher,
}

impl Hasher {
    /// The hasher of these settings.
    pub fn new(settings: &Settings) -> Self {
        let functions = settings.bands.bands * settings.bands.rows;
        Self { settings: *settings, minhash: MinHasher::new(functions, HASH_SEED) }
    }

    /// Hashes a document.
    pub fn hash(&self, buffers: &mut HashBuffers, document: &DocumentView<'_>) -> Hashed {
        let facts =
            Facts { text_bytes: document.text.len() as u64, broken: false, named: document.named, rank: document.rank };
        if self.settings.method != Method::MinHash {
            return Hashed { facts, identity: text_identity(document.text), keys: Vec::new() };
        }
        self.read(buffers, document.text, document.rule);
        let mut keys = Vec::new();
        if !buffers.shingles.is_empty() {
            self.minhash.signature(&buffers.shingles, &mut buffers.signature);
            keys.reserve_exact(self.settings.bands.bands);
            self.settings.bands.keys(&buffers.signature, &mut keys);
        }
        Hashed { facts, identity: buffers.tokens.identity(document.text, document.rule), keys }
    }

    /// The shingle set of a text; the second pass makes it for every candidate.
    pub fn shingle_set(&self, buffers: &mut HashBuffers, text: &str, rule: TokenRule) -> ShingleSet {
        self.read(buffers, text, rule);
        ShingleSet::new(buffers.shingles.clone())
    }

    fn read(&self, buffers: &mut HashBuffers, text: &str, rule: TokenRule) {
        buffers.tokens.read(text, rule);
        shingles(buffers.tokens.hashes(), self.settings.ngram, &mut buffers.shingles);
    }
}
