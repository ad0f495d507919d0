//! From kept documents to token stores: `<folder>/<split>.bin`, its index, and `<split>.stats.json`.
//! Not here: how documents are read (`document`) and how stores lie on disk (`store`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use internevo_core::storage;
use serde::{Deserialize, Serialize};

use super::{TextEncoder, TokenizerError};
use crate::{
    document::{Document, read_jsonl},
    store::{StoreError, TokenSink, TokenSinkContext, token_sink, with_suffix},
};

/// Documents are encoded in batches of about this many bytes of text.
const BATCH_BYTES: usize = 8 << 20;

/// What to encode and where to.
pub struct EncodeRequest<'a> {
    /// JSONL files (also `.gz`, `.zst`), in the order in which the store is to hold them.
    pub inputs: &'a [PathBuf],
    /// The tokenizer.
    pub tokenizer: &'a dyn TextEncoder,
    /// Folder of the stores; made when missing.
    pub folder: &'a Path,
    /// Form of the stores: a token sink by its name.
    pub sink: &'a str,
    /// Settings of the sink.
    pub sink_settings: &'a toml::Table,
    /// Which store a document goes to, by name: `train`, `valid`.
    pub split_of: &'a dyn Fn(&Document) -> &'static str,
}

/// Totals of one store; `<split>.stats.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitStats {
    /// Documents.
    pub documents: u64,
    /// Tokens, with the one that ends each document.
    pub tokens: u64,
    /// Bytes of UTF-8 text.
    pub bytes: u64,
    /// `bytes / tokens`.
    pub bytes_per_token: f64,
    /// Entropy of the distribution of single tokens, nats: the loss of a model that knows frequencies only.
    pub unigram_entropy_nats: f64,
    /// How often each token occurs, by id.
    pub histogram: Vec<u64>,
}

/// Totals of every store, by the name of its split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EncodeReport {
    /// Splits that hold documents.
    pub splits: BTreeMap<String, SplitStats>,
}

/// Encodes every document, ends it with the tokenizer's end-of-document token and writes it to the store of its split.
/// The stores are the same for any number of threads. `progress` is told the bytes of text encoded so far.
///
/// # Errors
/// [`TokenizerError::EmptyCorpus`] without documents; [`TokenizerError::Data`] for a line that is none, with file and line;
/// errors of the tokenizer and the store. Stores appear only when everything was encoded.
pub fn encode_corpus(request: &EncodeRequest<'_>, progress: &dyn Fn(u64)) -> Result<EncodeReport, TokenizerError> {
    let mut stores: BTreeMap<&'static str, SplitWriter> = BTreeMap::new();
    let mut batch = Batch::default();
    let mut bytes = 0;
    for input in request.inputs {
        for document in read_jsonl(input)? {
            let document = document?;
            batch.splits.push((request.split_of)(&document));
            batch.bytes += document.text.len();
            batch.ids.push(document.id);
            batch.texts.push(document.text);
            if batch.bytes >= BATCH_BYTES {
                bytes += batch.bytes as u64;
                std::mem::take(&mut batch).write(request, &mut stores)?;
                progress(bytes);
            }
        }
    }
    bytes += batch.bytes as u64;
    batch.write(request, &mut stores)?;
    progress(bytes);
    if stores.is_empty() {
        return Err(TokenizerError::EmptyCorpus { path: request.inputs.first().cloned() });
    }
    let mut report = EncodeReport::default();
    for (name, store) in stores {
        let stats = store.finish()?;
        let json = serde_json::to_string(&stats).expect("numbers have a JSON form");
        storage::write_atomic(with_suffix(&request.folder.join(name), ".stats.json"), json)?;
        report.splits.insert(name.to_owned(), stats);
    }
    Ok(report)
}

/// Documents on their way to the stores.
#[derive(Default)]
struct Batch {
    splits: Vec<&'static str>,
    ids: Vec<String>,
    texts: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn write(
        self,
        request: &EncodeRequest<'_>,
        stores: &mut BTreeMap<&'static str, SplitWriter>,
    ) -> Result<(), TokenizerError> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let encoded = request.tokenizer.encode_batch(&texts)?;
        for (((split, id), text), tokens) in self.splits.into_iter().zip(&self.ids).zip(&self.texts).zip(encoded) {
            if !stores.contains_key(split) {
                stores.insert(split, SplitWriter::create(request, split)?);
            }
            let store = stores.get_mut(split).expect("made above");
            store.push(id, text.len(), tokens, request.tokenizer.eos_id())?;
        }
        Ok(())
    }
}

/// A store being written, and its totals so far.
struct SplitWriter {
    sink: Box<dyn TokenSink>,
    stats: SplitStats,
}

impl SplitWriter {
    fn create(request: &EncodeRequest<'_>, split: &str) -> Result<Self, StoreError> {
        let vocab_size = request.tokenizer.vocab_size();
        let context = TokenSinkContext { prefix: &request.folder.join(split), vocab_size };
        let sink = token_sink(request.sink)?.build(request.sink_settings, &context)?;
        let stats = SplitStats { histogram: vec![0; vocab_size], ..SplitStats::default() };
        Ok(Self { sink, stats })
    }

    fn push(&mut self, id: &str, bytes: usize, ids: Vec<u32>, eos: u32) -> Result<(), TokenizerError> {
        let tokens: Vec<i32> = ids.into_iter().chain([eos]).map(|id| id as i32).collect();
        for token in &tokens {
            let Some(count) = self.stats.histogram.get_mut(*token as usize) else {
                let vocabulary = self.stats.histogram.len();
                let reason = format!("token {token} of document `{id}` is outside of a vocabulary of {vocabulary}");
                return Err(TokenizerError::Text { action: "encode", reason });
            };
            *count += 1;
        }
        self.stats.documents += 1;
        self.stats.tokens += tokens.len() as u64;
        self.stats.bytes += bytes as u64;
        Ok(self.sink.push(id, &tokens)?)
    }

    fn finish(self) -> Result<SplitStats, StoreError> {
        self.sink.finish()?;
        let stats = self.stats;
        Ok(SplitStats {
            bytes_per_token: stats.bytes as f64 / stats.tokens as f64,
            unigram_entropy_nats: entropy(&stats.histogram),
            ..stats
        })
    }
}

/// Entropy in nats of the distribution that `counts` are drawn from, as their frequencies estimate it.
fn entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let share = |count: &u64| *count as f64 / total as f64;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).ln()).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use internevo_core::config::TokenizerConfig;

    use super::*;
    use crate::{
        store::TokenStore,
        tokenizer::{Tokenizer, train},
    };

    fn corpus(folder: &Path) -> (Vec<PathBuf>, Vec<String>) {
        let texts: Vec<String> =
            (0..7).map(|i| format!("document {i} has </s> and 世界 {}", "word ".repeat(i))).collect();
        let line =
            |(i, text): (usize, &String)| serde_json::json!({"id": i.to_string(), "text": text}).to_string() + "\n";
        let lines: Vec<String> = texts.iter().enumerate().map(line).collect();
        let files = ["a.jsonl", "b.jsonl"].map(|name| folder.join(name));
        std::fs::write(&files[0], lines[..3].concat()).unwrap();
        std::fs::write(&files[1], lines[3..].concat()).unwrap();
        (files.to_vec(), texts)
    }

    fn split_of(document: &Document) -> &'static str {
        if document.id == "4" { "valid" } else { "train" }
    }

    fn request<'a>(inputs: &'a [PathBuf], tokenizer: &'a Tokenizer) -> EncodeRequest<'a> {
        static NO_SETTINGS: LazyLock<toml::Table> = LazyLock::new(toml::Table::new);
        EncodeRequest {
            inputs,
            tokenizer,
            folder: Path::new("none"),
            sink: "megatron",
            sink_settings: &NO_SETTINGS,
            split_of: &split_of,
        }
    }

    #[test]
    fn stores_hold_every_document_of_their_split_in_order_with_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, texts) = corpus(folder.path());
        let config = TokenizerConfig { vocab_size: 300, ..Default::default() };
        let tokenizer = train(texts.iter().cloned(), &config, &|_| ()).unwrap();
        let mut stores = Vec::new();
        for sink in ["megatron", "internevo"] {
            let out = folder.path().join(sink);
            let request = EncodeRequest { folder: &out, sink, ..request(&inputs, &tokenizer) };
            let report = encode_corpus(&request, &|_| ()).unwrap();
            let saved = std::fs::read_to_string(out.join("train.stats.json")).unwrap();
            assert_eq!(serde_json::from_str::<SplitStats>(&saved).unwrap(), report.splits["train"]);
            assert_eq!(report.splits["valid"].bytes, texts[4].len() as u64);
            stores.push((report, TokenStore::open_folder(&out, "train").unwrap()));
        }
        let train: Vec<&String> = texts.iter().enumerate().filter(|(i, _)| *i != 4).map(|(_, text)| text).collect();
        let (report, store) = &stores[0];
        assert_eq!(*report, stores[1].0);
        assert_eq!((store.documents(), store.tokens()), (stores[1].1.documents(), stores[1].1.tokens()));
        assert_eq!(store.documents(), train.len());
        assert_eq!(store.tokens(), report.splits["train"].tokens);
        for (document, text) in train.into_iter().enumerate() {
            let mut tokens = Vec::new();
            store.read(document, 0..store.len(document), &mut tokens).unwrap();
            let ids: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
            assert_eq!(ids.last(), Some(&tokenizer.eos_id()));
            assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
        }
    }

    /// Id and tokens of each document of a JSONL or Parquet file.
    fn rows(path: &Path) -> Vec<(String, Vec<u32>)> {
        let mut reader = crate::format::open_records(path).unwrap();
        let (mut rows, mut line) = (Vec::new(), Vec::new());
        while reader.next_record(&mut line).unwrap() == crate::format::RawRecord::Record {
            let row: serde_json::Value = serde_json::from_slice(&line).unwrap();
            rows.push((row["id"].as_str().unwrap().to_owned(), serde_json::from_value(row["tokens"].clone()).unwrap()));
        }
        rows
    }

    #[test]
    fn every_sink_for_other_programs_holds_the_id_and_the_tokens_of_each_document() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, texts) = corpus(folder.path());
        let config = TokenizerConfig { vocab_size: 300, ..Default::default() };
        let tokenizer = train(texts.iter().cloned(), &config, &|_| ()).unwrap();
        let expected: Vec<_> = (0..texts.len())
            .filter(|i| *i != 4)
            .map(|i| (i.to_string(), [tokenizer.encode(&texts[i]).unwrap(), vec![tokenizer.eos_id()]].concat()))
            .collect();
        let mut sinks = vec![
            ("jsonl", "", "train.jsonl"),
            ("jsonl", "compression = 'gz'", "train.jsonl.gz"),
            ("jsonl", "compression = 'zst'", "train.jsonl.zst"),
        ];
        if cfg!(feature = "parquet") {
            sinks.extend([("parquet", "", "train.parquet"), ("parquet", "row_group_tokens = 1", "train.parquet")]);
        }
        for (sink, settings, file) in sinks {
            let settings = toml::from_str(settings).unwrap();
            let request =
                EncodeRequest { folder: folder.path(), sink, sink_settings: &settings, ..request(&inputs, &tokenizer) };
            encode_corpus(&request, &|_| ()).unwrap();
            assert_eq!(rows(&folder.path().join(file)), expected, "{sink} with {settings}");
        }
    }

    #[test]
    fn an_unknown_sink_and_a_wrong_setting_are_named_with_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, texts) = corpus(folder.path());
        let tokenizer = train(texts.into_iter(), &TokenizerConfig::default(), &|_| ()).unwrap();
        let refused = |sink, settings: &str| {
            let settings = toml::from_str(settings).unwrap();
            let request =
                EncodeRequest { folder: folder.path(), sink, sink_settings: &settings, ..request(&inputs, &tokenizer) };
            encode_corpus(&request, &|_| ()).unwrap_err().to_string()
        };
        let message = refused("megatorn", "");
        assert!(message.contains("did you mean `megatron`?") && message.contains("jsonl"), "{message}");
        let message = refused("megatron", "token_type = 'float'");
        assert!(message.contains("token_type") && message.contains("uint16"), "{message}");
    }

    #[test]
    fn entropy_is_that_of_the_frequencies() {
        assert!((entropy(&[2, 0, 1, 1]) - 1.5 * std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!(entropy(&[7, 0]), 0.0);
    }

    #[test]
    fn no_document_and_a_broken_line_are_named_and_leave_no_store() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = train(["text".to_owned()].into_iter(), &TokenizerConfig::default(), &|_| ()).unwrap();
        let input = folder.path().join("kept.jsonl");
        let out = folder.path().join("out");
        let encode = |content: &str| {
            std::fs::write(&input, content).unwrap();
            let request = EncodeRequest { folder: &out, ..request(std::slice::from_ref(&input), &tokenizer) };
            encode_corpus(&request, &|_| ()).unwrap_err().to_string()
        };
        assert!(encode("").contains("kept.jsonl"));
        let error = encode("{\"id\": \"1\", \"text\": \"whole\"}\n{\"id\": \"2\", \"te");
        assert!(error.contains("kept.jsonl:2"), "{error}");
        assert!(!out.exists());
    }
}
