//! The sections that InternEvo leaves to other tools, on the way from raw text to token stores: `corpus`, `pipeline` and
//! `tokenizer`.
//!
//! Not here: the other sections (`schema.rs`), and what the stages do with them (internevo-data).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The bundled corpus: text that cargo and rustup already put on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CorpusConfig {
    /// Folder of the corpus, its stages and the tokenizer. Empty: `<run_dir>/corpus/<hash of the settings>`.
    pub folder: String,
    /// Own JSONL(.gz/.zst), HTML, Markdown or source files or folders, read instead of the bundled corpus.
    pub inputs: Vec<String>,
    /// Read Markdown, sources and licences of the packages in this `Cargo.lock`. Empty: none.
    pub cargo_lock: String,
    /// Read the toolchain's HTML documentation where it is installed.
    pub rust_docs: bool,
    /// Cap on the raw text, bytes. 0: no cap.
    pub max_bytes: u64,
    /// Cap on one package's share, bytes, so that no package dominates. 0: no cap.
    pub max_bytes_per_package: u64,
    /// Share of packages (or input files) held out for validation, 0 to 0.5.
    pub valid_fraction: f64,
}

impl Default for CorpusConfig {
    fn default() -> Self {
        Self {
            folder: String::new(),
            inputs: Vec::new(),
            cargo_lock: "Cargo.lock".into(),
            rust_docs: true,
            max_bytes: 24_000_000,
            max_bytes_per_package: 600_000,
            valid_fraction: 0.05,
        }
    }
}

/// The stages format → clean → dedup → safe → quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PipelineConfig {
    /// Stages to run, in order.
    pub stages: Vec<String>,
    /// Filters of the `clean` stage, in order: names of registered filters.
    pub clean: Vec<String>,
    /// Filters of the `safe` stage.
    pub safe: Vec<String>,
    /// Filters of the `quality` stage.
    pub quality: Vec<String>,
    /// Settings of each filter, by its name.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub filter: toml::Table,
    /// How files become documents.
    pub format: FormatConfig,
    /// Near-duplicate removal.
    pub dedup: DedupConfig,
    /// Other filters or other settings for some documents: `[[pipeline.strategy]]`. The first that fits a document decides.
    pub strategy: Vec<StrategyConfig>,
}

/// How documents of one kind are judged in the stages `clean`, `safe` and `quality`. Conditions that are empty fit every document;
/// in a condition `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StrategyConfig {
    /// What the document's `source` must be, such as `cc-*`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What its `type` must be, such as `code`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// What its `lang` must be, such as `zh` or `code:*`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Filters instead of `pipeline.clean`; an empty list keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Vec<String>>,
    /// Filters instead of `pipeline.safe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe: Option<Vec<String>>,
    /// Filters instead of `pipeline.quality`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Vec<String>>,
    /// Settings that replace those of `pipeline.filter`, key by key.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub filter: toml::Table,
}

/// The stages whose filters are configured.
pub const FILTER_STAGES: [&str; 3] = ["clean", "safe", "quality"];

impl PipelineConfig {
    /// Filters of a stage; `None` for a stage without a list of them.
    pub fn filters(&self, stage: &str) -> Option<&[String]> {
        match stage {
            "clean" => Some(&self.clean),
            "safe" => Some(&self.safe),
            "quality" => Some(&self.quality),
            _ => None,
        }
    }

    /// Filters that a stage may ask, those of strategies included; a name may come more than once.
    pub fn all_filters<'a>(&'a self, stage: &'a str) -> impl Iterator<Item = &'a String> {
        let own = self.filters(stage).into_iter().flatten();
        own.chain(self.strategy.iter().filter_map(move |strategy| strategy.filters(stage)).flatten())
    }
}

impl StrategyConfig {
    /// Filters of a stage; `None`: those of the pipeline.
    pub fn filters(&self, stage: &str) -> Option<&[String]> {
        match stage {
            "clean" => self.clean.as_deref(),
            "safe" => self.safe.as_deref(),
            "quality" => self.quality.as_deref(),
            _ => None,
        }
    }
}

impl Default for PipelineConfig {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            stages: names(&["format", "clean", "dedup", "safe", "quality"]),
            clean: names(&["gopher_quality", "gopher_repetition", "char_anomaly", "code_quality"]),
            safe: names(&["blocked_words", "blocked_urls"]),
            quality: names(&["quality_classifier"]),
            filter: toml::Table::new(),
            format: FormatConfig::default(),
            dedup: DedupConfig::default(),
            strategy: Vec::new(),
        }
    }
}

/// The stage `format`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FormatConfig {
    /// What finds the text of an HTML page: `main_content`, or an extractor of another crate.
    pub extractor: String,
    /// Settings of each extractor, by its name.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl Default for FormatConfig {
    fn default() -> Self {
        Self { extractor: "main_content".into(), settings: toml::Table::new() }
    }
}

/// Deduplication; by default MinHash-LSH with verified similarity (InternLM2 report, section 3.1.1: 128 hashes, 5-grams, 0.7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DedupConfig {
    /// `minhash` (exact and near duplicates), `exact` (equal texts), `bloom` (equal texts in one pass; a few others go with them), or
    /// parts of documents that repeat: `lines`, `paragraphs`, `sentences`, `substrings`; or a method of another crate.
    pub method: String,
    /// LSH bands; `bands * rows` hash functions are computed. The default finds a pair at the threshold with probability 0.989.
    pub bands: usize,
    /// Rows per band.
    pub rows: usize,
    /// Tokens per shingle.
    pub ngram: usize,
    /// True Jaccard similarity from which two documents count as duplicates.
    pub threshold: f64,
    /// Which copy stays: `newest`, `longest`, `best_score` or `first`.
    pub keep: String,
    /// Memory of the stage, such as `2GiB`, at least `128MiB`; what does not fit is sorted on disk. Empty: half of what is free.
    /// The result does not depend on it.
    pub memory: String,
    /// Folder of an index: its documents count as seen before, and the kept ones are added to it. Empty: none.
    pub index: String,
    /// Fewest tokens of a repeated part that is removed (`lines`, `paragraphs`, `sentences`: of the part; `substrings`: in a row).
    /// 0: 50 for `substrings`, 3 for the others.
    pub min_tokens: usize,
    /// Share of unseen documents that `bloom` may drop once all are read.
    pub false_positives: f64,
    /// Settings of each method of another crate, by its name.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            method: "minhash".into(),
            bands: 25,
            rows: 5,
            ngram: 5,
            threshold: 0.7,
            keep: "newest".into(),
            memory: String::new(),
            index: String::new(),
            min_tokens: 0,
            false_positives: 1e-4,
            settings: toml::Table::new(),
        }
    }
}

/// The tokenizer: by default a byte-level BPE that is trained on the corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenizerConfig {
    /// What turns text into tokens: `hugging_face` (a `tokenizer.json`), or a tokenizer of another crate, which is not trained here.
    pub kind: String,
    /// An existing tokenizer's file to use. Empty: train a `tokenizer.json` on the corpus.
    pub file: String,
    /// Size of the trained vocabulary, special tokens included.
    pub vocab_size: usize,
    /// A pair must occur this often to be merged.
    pub min_frequency: u64,
    /// Cap on the text the tokenizer is trained on, bytes. 0: no cap.
    pub max_train_bytes: u64,
    /// Settings of each tokenizer of another crate, by its name.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

/// The kind of tokenizer that is trained here.
pub const HUGGING_FACE: &str = "hugging_face";

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            kind: HUGGING_FACE.into(),
            file: String::new(),
            vocab_size: 4096,
            min_frequency: 2,
            max_train_bytes: 0,
            settings: toml::Table::new(),
        }
    }
}
