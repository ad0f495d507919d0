//! From kept documents to token stores: `<folder>/<split>.bin`, its index, and `<split>.stats.json`.
//! Not here: how documents are read (`document`) and how stores lie on disk (`store`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use internevo_core::storage::{self, StorageError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{TextEncoder, TokenizerError};
use crate::{
    DataError, Document,
    stage::{Chunk, ChunkReader, InputFile, Item, Position, in_chunks},
    store::{StoreError, TokenSink, TokenSinkContext, token_sink, with_suffix},
};

/// Bytes of input per chunk.
const CHUNK_BYTES: usize = 4 << 20;

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
    pub split_of: &'a (dyn Fn(&Document) -> &'static str + Sync),
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
pub fn encode_corpus(
    request: &EncodeRequest<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<EncodeReport, TokenizerError> {
    let files = record_files(request.inputs)?;
    let mut stores: BTreeMap<&'static str, SplitWriter> = BTreeMap::new();
    let mut bytes = 0;
    let encode = |chunk: &Chunk| {
        let encoded: Vec<_> = chunk.items.par_iter().map(|item| Encoded::of(item, chunk, &files, request)).collect();
        // Collected in order first, so that the error is always that of the first document.
        encoded.into_iter().collect()
    };
    in_chunks(&mut ChunkReader::new(&files, Position::default(), CHUNK_BYTES), encode, |_, found: Vec<Encoded>| {
        for document in found {
            bytes += document.bytes as u64;
            if !stores.contains_key(document.split) {
                stores.insert(document.split, SplitWriter::create(request, document.split)?);
            }
            stores.get_mut(document.split).expect("made above").push(&document)?;
        }
        progress(bytes);
        Ok::<(), TokenizerError>(())
    })?;
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

/// Bytes of text of the documents of `inputs` (as [`EncodeRequest::inputs`]), by the name that `key` gives each: its package, its source.
///
/// # Errors
/// A file that cannot be read; a line that is no document, with file and line.
pub fn text_bytes_by(
    inputs: &[PathBuf],
    key: &(dyn Fn(&Document) -> String + Sync),
) -> Result<BTreeMap<String, u64>, DataError> {
    let files = record_files(inputs)?;
    let mut totals = BTreeMap::new();
    let read = |chunk: &Chunk| {
        let bytes_of = |item: &Item| {
            let document = read_document(item, chunk, &files)?;
            Ok((key(&document), document.text.len() as u64))
        };
        let named: Vec<Result<(String, u64), DataError>> = chunk.items.par_iter().map(bytes_of).collect();
        named.into_iter().collect::<Result<Vec<_>, DataError>>()
    };
    in_chunks(&mut ChunkReader::new(&files, Position::default(), CHUNK_BYTES), read, |_, named| {
        named.into_iter().for_each(|(name, bytes)| *totals.entry(name).or_default() += bytes);
        Ok(())
    })?;
    Ok(totals)
}

fn record_files(inputs: &[PathBuf]) -> Result<Vec<InputFile>, StorageError> {
    inputs.iter().map(|path| InputFile::of_records(path)).collect()
}

fn read_document(item: &Item, chunk: &Chunk, files: &[InputFile]) -> Result<Document, DataError> {
    let (document, _) = chunk
        .document(item, files)
        .map_err(|fault| DataError::invalid(&files[item.file].path, item.line, fault.to_string()))?;
    Ok(document)
}

/// A document on its way to a store.
struct Encoded {
    split: &'static str,
    id: String,
    /// Of its text.
    bytes: usize,
    /// With the one that ends it.
    tokens: Vec<i32>,
}

impl Encoded {
    fn of(
        item: &Item,
        chunk: &Chunk,
        files: &[InputFile],
        request: &EncodeRequest<'_>,
    ) -> Result<Self, TokenizerError> {
        let document = read_document(item, chunk, files)?;
        let ids = request.tokenizer.encode(&document.text)?;
        let tokens = ids.into_iter().chain([request.tokenizer.eos_id()]).map(|id| id as i32).collect();
        Ok(Self { split: (request.split_of)(&document), bytes: document.text.len(), id: document.id, tokens })
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

    fn push(&mut self, document: &Encoded) -> Result<(), TokenizerError> {
        for token in &document.tokens {
            let Some(count) = self.stats.histogram.get_mut(*token as usize) else {
                let (id, vocabulary) = (&document.id, self.stats.histogram.len());
                let reason = format!("token {token} of document `{id}` is outside of a vocabulary of {vocabulary}");
                return Err(TokenizerError::Text { action: "encode", reason });
            };
            *count += 1;
        }
        self.stats.documents += 1;
        self.stats.tokens += document.tokens.len() as u64;
        self.stats.bytes += document.bytes as u64;
        Ok(self.sink.push(&document.id, &document.tokens)?)
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
    fn bytes_of_text_are_added_up_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (inputs, texts) = corpus(folder.path());
        let found = text_bytes_by(&inputs, &|document| split_of(document).to_owned()).unwrap();
        let all: usize = texts.iter().map(String::len).sum();
        assert_eq!(found["valid"], texts[4].len() as u64);
        assert_eq!((found.len(), found["train"] + found["valid"]), (2, all as u64));
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
