//! Duplicates: exact copies, and near duplicates by MinHash, LSH and the true Jaccard similarity; repeated parts of documents.
//!
//! A document is a set of shingles (hashes of `ngram` consecutive tokens). Two documents are near duplicates when the
//! Jaccard similarity of their sets reaches `threshold`. LSH proposes candidates (see [`probability`] for how many it
//! misses), every candidate pair is compared exactly, and a document goes only if a *kept* document is that similar:
//! precision is 1 by construction, and each rejection carries the measured similarity and the id of the copy that
//! stays.
//!
//! The result depends on the documents, their order and the settings only: not on threads, batches or files.
//!
//! Beyond `memory` everything is sorted and looked up on disk ([`crate::spill`]), with the same result.
//!
//! | file | holds |
//! |---|---|
//! | `settings.rs` | `[pipeline.dedup]`, checked |
//! | `tokens.rs` | normalisation and tokens, for prose and for code |
//! | `shingle.rs` | shingles, sets, Jaccard |
//! | `minhash.rs`, `lsh.rs` | signatures, bands, the mathematics |
//! | `catalog.rs` | what is remembered of a document; which copy stays |
//! | `union_find.rs`, `cluster.rs` | verified pairs, clusters, the choice |
//! | `decide/` | the passes over a stream of documents |
//! | `stage.rs`, `report.rs` | the stage over files, and what it reports |
//! | `index.rs` | what earlier runs kept |
//! | `parts.rs` | repeated lines, paragraphs, sentences and substrings |
//! | `stream.rs`, `bloom.rs` | one pass over a stream, by a method of another crate or a Bloom filter over equal texts |

mod bloom;
mod catalog;
mod cluster;
mod decide;
mod index;
mod lsh;
mod minhash;
mod parts;
mod report;
mod settings;
mod shingle;
mod stage;
mod stream;
mod tokens;
mod union_find;

use std::path::{Path, PathBuf};

use internevo_core::{
    config::DedupConfig,
    plugin::{Entry as _, settings_of},
};

pub use self::{
    catalog::{BitSet, Catalog, Facts, KeepRule, Rank},
    cluster::{Components, Removal, Sets, choose, connect},
    decide::{Candidates, Deduplicator, DocumentView, Duplicate, DuplicateKind, HashBuffers, Hashed, Hasher, Outcome},
    index::{Index, IndexedDocument, SegmentWriter},
    lsh::{Bands, choose_bands, half_point, probability},
    minhash::MinHasher,
    report::{Cluster, DUPLICATES, DuplicateReport},
    settings::{Method, Part, Settings, bytes},
    shingle::{ShingleSet, shingles},
    stage::token_rule,
    stream::{
        DeduplicatorContext, DeduplicatorEntry, DeduplicatorPlugin, Repetition, StreamDeduplicator, deduplicators,
    },
    tokens::{TokenRule, Tokens, is_unspaced, text_identity},
    union_find::UnionFind,
};
use crate::{
    DataError,
    stage::{InputFile, Progress, StageReport, StageWriter, inputs_fingerprint},
};

/// Runs the stage on `inputs`, writes `output/kept`, `output/rejected`, `output/duplicates.json` and `output/report.json`.
///
/// Uses the current rayon pool; the output is the same bytes for any number of threads and any memory.
///
/// # Errors
/// A wrong setting by its key, a file that cannot be read or written, an input that changes while it is read, a stop request. A
/// broken line is no error: it is rejected with its reason.
pub fn run(
    inputs: &[InputFile],
    output: &Path,
    config: &DedupConfig,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let settings = Settings::new(config)?;
    let writer = StageWriter::create(output, stage::STAGE)?;
    let stored_bytes = inputs.iter().map(|file| file.bytes).sum();
    let cx = DeduplicatorContext { stored_bytes, memory: settings.memory };
    match settings.method {
        Method::Parts(part) => return parts::run(inputs, writer, output, &settings, part, progress),
        Method::Bloom => {
            let mut method = bloom::Bloom::new(&settings, &cx)?;
            return stream::run(inputs, writer, output, &settings, &mut method, progress);
        }
        Method::Plugin(plugin) => {
            let own = settings_of(&config.settings, plugin.descriptor().name)?;
            let mut method = plugin.build(&own, &cx)?;
            return stream::run(inputs, writer, output, &settings, &mut *method, progress);
        }
        Method::MinHash | Method::Exact => {}
    }
    let open = || Index::open(&PathBuf::from(&config.index), &settings, &run_hash(config, inputs));
    let index = (!config.index.is_empty()).then(open).transpose()?;
    stage::run(inputs, writer, output, &settings, index.as_ref(), progress)
}

/// A hash of all that a run's result depends on but its index.
fn run_hash(config: &DedupConfig, inputs: &[InputFile]) -> String {
    let config = result_settings(config);
    let all = format!("{}\n{}", serde_json::json!(config), inputs_fingerprint(inputs));
    blake3::hash(all.as_bytes()).to_hex().to_string()
}

/// `config` without what does not change the result.
pub(crate) fn result_settings(config: &DedupConfig) -> DedupConfig {
    DedupConfig { memory: String::new(), ..config.clone() }
}
