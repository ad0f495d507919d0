//! Duplicates: exact copies, and near duplicates by MinHash, LSH and the true Jaccard similarity.
//!
//! A document is a set of shingles (hashes of `ngram` consecutive tokens). Two documents are near duplicates when the
//! Jaccard similarity of their sets reaches `threshold`. LSH proposes candidates (see [`probability`] for how many it
//! misses), every candidate pair is compared exactly, and a document goes only if a *kept* document is that similar:
//! precision is 1 by construction, and each rejection carries the measured similarity and the id of the copy that
//! stays.
//!
//! The result depends on the documents, their order and the settings only: not on threads, batches or files.
//!
//! | file | holds |
//! |---|---|
//! | `tokens.rs` | normalisation and tokens, for prose and for code |
//! | `shingle.rs` | shingles, sets, Jaccard |
//! | `minhash.rs`, `lsh.rs` | signatures, bands, the mathematics |
//! | `union_find.rs`, `cluster.rs` | verified pairs, clusters, the choice |
//! | `decide.rs` | the passes over a stream of documents; what stays |
//! | `stage.rs` | the stage over files |

mod cluster;
mod decide;
mod lsh;
mod minhash;
mod shingle;
mod stage;
mod tokens;
mod union_find;

pub use self::{
    cluster::{Components, Removal, choose, connect},
    decide::{Candidates, Date, Deduplicator, DocumentView, Duplicate, DuplicateKind, KeepRule, Outcome},
    lsh::{LshIndex, half_point, probability},
    minhash::MinHasher,
    shingle::{ShingleSet, shingles},
    stage::{Cluster, DUPLICATES, DuplicateReport, run, token_rule},
    tokens::{TokenRule, Tokens, is_unspaced},
    union_find::UnionFind,
};
