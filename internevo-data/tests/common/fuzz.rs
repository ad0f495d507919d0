//! Files of every format, damaged at random but reproducibly, and what every reader must do with them: come to an end without a
//! panic, and give nothing but records and faults. Shared by `tests/readers_fuzz.rs` and `examples/fuzz_readers.rs`.

use std::{ffi::OsStr, fs, io::Write, path::Path};

use internevo_core::{config::DedupConfig, rng::CounterRng};
use internevo_data::{
    Document,
    classifier::{ClassifierSettings, Labelled, TextClassifier},
    dedup::{self, Index, Settings},
    fasttext::FastText,
    format::{Extractor as _, MainContent, RawRecord, encoding, open_records},
    ngram_lm::{LmTokens, NgramModel},
    safety::{
        Address,
        domains::{DomainList, DomainListBuilder},
    },
    stage::find_inputs,
    store::{InternEvoReader, InternEvoWriter, MegatronReader, MegatronWriter, StoreError, TokenType},
};

/// The formats, by the ends of their names.
pub const FORMATS: &[&str] = &[
    "a.jsonl",
    "a.jsonl.gz",
    "a.jsonl.zst",
    "a.warc",
    "a.warc.gz",
    "a.warc.zst",
    "a.html",
    #[cfg(feature = "parquet")]
    "a.parquet",
    "megatron.idx",
    "megatron.bin",
    "internevo.bin.meta",
    "internevo.bin",
    "segment-00000-0.bin",
];

/// Model files, which have readers of their own: golden files, and two that are made here.
pub const MODELS: &[&str] = &[
    "text.classifier",
    "domains.list",
    "ngram_lm/small.arpa",
    "ngram_lm/probing.binary",
    "ngram_lm/trie.binary",
    "ngram_lm/trie_both.binary",
    "fasttext/hierarchical.bin",
    "fasttext/quantised_pruned.ftz",
];

/// A sound model file.
pub fn sound_model(model: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let made = dir.path().join(model);
    match model {
        "text.classifier" => classifier().save(&made).expect("a file"),
        "domains.list" => domains().write(&made).expect("a file"),
        _ => return golden_model(model),
    }
    fs::read(made).expect("a file")
}

fn golden_model(model: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{model}.zst"));
    zstd::decode_all(&*fs::read(path).expect("golden file")).expect("zstd")
}

/// A small classifier.
fn classifier() -> TextClassifier {
    let labels = ["good", "bad"];
    let documents = (0..40).map(|i| Labelled::new(format!("{} thing {i}", labels[i % 2]), labels[i % 2]));
    let settings = ClassifierSettings { bits: 10, epochs: 1, ..ClassifierSettings::default() };
    TextClassifier::train(documents.collect(), &settings).expect("two labels")
}

/// A small list of domains in two categories.
fn domains() -> DomainListBuilder {
    let mut builder = DomainListBuilder::new(vec!["adult".into(), "gambling".into()]).expect("two categories");
    for i in 0..60 {
        let entry = if i % 3 == 0 { format!("d{i}.example/path") } else { format!("d{i}.example") };
        builder.push(&Address::parse(&entry).expect("an address"), i % 2);
    }
    builder
}

/// Reads a damaged model and asks it about a text. Was the damage told?
///
/// # Panics
/// If the reader or the model panics.
pub fn ask_model(path: &Path, bytes: &[u8]) -> bool {
    const TEXT: &str = "We can use the reference as a value.\n所有权 let x = 5;";
    fs::write(path, bytes).expect("write");
    match path.extension().and_then(OsStr::to_str) {
        Some("bin" | "ftz") => FastText::load(path).map(|model| model.scores(TEXT)).is_err(),
        Some("classifier") => TextClassifier::load(path).map(|model| model.probabilities(TEXT)).is_err(),
        Some("list") => {
            let ask = |list: DomainList| (0..60).filter(|i| !list.entry(&format!("d{i}.example")).is_empty()).count();
            DomainList::open(path).map(ask).is_err()
        }
        _ => NgramModel::load(path).map(|model| model.score(TEXT, &LmTokens::Spaces)).is_err(),
    }
}

/// Tokens of the documents of a sound store.
const TOKENS: [&[i32]; 4] = [&[1, 2, 3], &[], &[40_000, 5], &[6; 90]];

/// A small sound file of a format.
pub fn sound(format: &str) -> Vec<u8> {
    let lines: String =
        (0..20).map(|i| format!("{{\"id\":\"d{i}\",\"text\":\"Zeile {i} äöü 中文 {}\"}}\n", "x".repeat(i))).collect();
    let records: Vec<Vec<u8>> = (0..8).map(warc_record).collect();
    match format {
        "a.jsonl" => lines.into_bytes(),
        "a.jsonl.gz" => gz(lines.as_bytes()),
        "a.jsonl.zst" => zstd::encode_all(lines.as_bytes(), 1).expect("memory"),
        "a.warc" => records.concat(),
        "a.warc.gz" => records.iter().flat_map(|record| gz(record)).collect(),
        "a.warc.zst" => zstd::encode_all(&*records.concat(), 1).expect("memory"),
        "a.html" => {
            b"<html lang=de><meta charset=utf-8><body><main><h1>T</h1><p>a <b>b</b><ul><li>c<li>d</ul><pre><code class=\
            language-rust>fn x() {}</code></pre><table><tr><td>1<td>2</table><blockquote>q</blockquote></main>"
                .to_vec()
        }
        #[cfg(feature = "parquet")]
        "a.parquet" => parquet_file(),
        "segment-00000-0.bin" => segment(),
        _ => {
            let dir = tempfile::tempdir().expect("temporary folder");
            write_stores(dir.path());
            fs::read(dir.path().join(format)).expect("one of the files of a store")
        }
    }
}

/// Writes a sound store of either form.
fn write_stores(folder: &Path) {
    let mut megatron = MegatronWriter::create(folder.join("megatron"), TokenType::U16).expect("a file");
    let mut internevo = InternEvoWriter::create(folder.join("internevo"));
    for tokens in TOKENS {
        megatron.push(tokens).expect("small tokens");
        internevo.push(tokens).expect("a file");
    }
    megatron.finish().expect("files");
    internevo.finish().expect("files");
    for (shard, name) in [("internevo-00000.bin", "internevo.bin"), ("internevo-00000.bin.meta", "internevo.bin.meta")]
    {
        fs::rename(folder.join(shard), folder.join(name)).expect("a file");
    }
}

/// A segment of a dedup index, by a run of the stage.
fn segment() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::write(dir.path().join("a.jsonl"), sound("a.jsonl")).expect("write");
    let inputs = find_inputs(&dir.path().join("a.jsonl"), dir.path()).expect("inputs");
    let index = dir.path().join("index");
    let config = DedupConfig { index: index.display().to_string(), ..DedupConfig::default() };
    dedup::run(&inputs, &dir.path().join("out"), &config, &()).expect("the stage runs");
    let file = fs::read_dir(index).expect("an index").next().expect("a segment").expect("an entry");
    fs::read(file.path()).expect("a segment")
}

/// One response of a web archive.
pub fn warc_record(id: usize) -> Vec<u8> {
    let page = format!("<html><meta charset=gb2312><p>Page {id} {}</p>", "word ".repeat(20 + 7 * (id % 5)));
    let http = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n0\r\n\r\n",
        page.len()
    );
    let header = format!(
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:r{id}>\r\nWARC-Target-URI: http://a.example/{id}\r\n\
         WARC-Date: 2024-05-01T00:00:00Z\r\nContent-Length: {}\r\n\r\n",
        http.len()
    );
    format!("{header}{http}\r\n\r\n").into_bytes()
}

/// One gzip member.
pub fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// A Parquet file with the columns `id`, `text` and `n`.
#[cfg(feature = "parquet")]
pub fn parquet_file() -> Vec<u8> {
    use std::sync::Arc;

    use parquet::{
        data_type::{ByteArray, ByteArrayType, Int64Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    let schema = "message d { required binary id (UTF8); required binary text (UTF8); required int64 n; }";
    let schema = Arc::new(parse_message_type(schema).expect("schema"));
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("memory");
    for group in 0..2i64 {
        let mut rows = writer.next_row_group().expect("memory");
        let texts = |prefix: &str| -> Vec<ByteArray> {
            (0..10).map(|i| ByteArray::from(format!("{prefix}{} 中文", group * 10 + i).into_bytes())).collect()
        };
        for column in 0..3 {
            let mut writer = rows.next_column().expect("memory").expect("a column");
            match column {
                0 => writer.typed::<ByteArrayType>().write_batch(&texts("d"), None, None).map(drop),
                1 => writer.typed::<ByteArrayType>().write_batch(&texts("text "), None, None).map(drop),
                _ => writer.typed::<Int64Type>().write_batch(&[7; 10], None, None).map(drop),
            }
            .expect("memory");
            writer.close().expect("memory");
        }
        rows.close().expect("memory");
    }
    writer.close().expect("memory");
    bytes
}

/// Damages `bytes` in one to six places: flipped bits, other bytes, cuts, repetitions, and pieces that mean something to a parser.
pub fn mutate(bytes: &mut Vec<u8>, seed: u64) {
    const TOKENS: &[&[u8]] = &[
        b"\n",
        b"\r\n\r\n",
        b"WARC/1.0\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: 18446744073709551615\r\n",
        b"\x1f\x8b\x08",
        b"{\"text\":\"",
        b"\\ud800",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"<meta charset=utf-16>",
        b"ffffffffffffffff\r\n",
        b"\0\0\0\0",
        b"<table><table><table>",
        b"</body></html>",
        b"\"id\":1e999,",
        b"[[[[[[[[",
    ];
    let rng = CounterRng::new(seed, "mutate");
    let mut draws = 0;
    let mut below = |bound: usize| {
        draws += 1;
        rng.below(draws, bound.max(1) as u64) as usize
    };
    for _ in 0..1 + below(6) {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        let at = below(length);
        match below(7) {
            0 => bytes[at] ^= 1 << below(8),
            1 => bytes[at] = below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + below(64)).min(length))),
            4 => {
                let piece = bytes[at..(at + 1 + below(200)).min(length)].to_vec();
                let to = below(length);
                bytes.splice(to..to, piece);
            }
            5 => {
                let token = TOKENS[below(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
            _ => {
                let end = (at + 1 + below(16)).min(length);
                bytes[at..end].fill(below(256) as u8);
            }
        }
    }
}

/// Reads a damaged file to its end. Gives records and faults.
///
/// # Panics
/// If a reader panics, does not end, or gives more records than the file could hold.
pub fn read_all(path: &Path, bytes: &[u8]) -> (usize, usize) {
    if path.extension().is_some_and(|extension| extension == "html") {
        if let Ok(decoded) = encoding::decode_page(bytes, None) {
            let _ = MainContent::default().extract(&decoded.text, None);
            let _ = encoding::undo_mojibake(&decoded.text);
        }
        return (1, 0);
    }
    let name = path.file_name().expect("a name").to_string_lossy();
    if name.starts_with("segment") {
        return read_segment(path, bytes);
    }
    if name.starts_with("megatron") || name.starts_with("internevo") {
        return read_store(path, bytes);
    }
    fs::write(path, bytes).expect("write");
    let mut reader = open_records(path).expect("it can be opened");
    let (mut buffer, mut records, mut faults) = (Vec::new(), 0, 0);
    loop {
        match reader.next_record(&mut buffer).expect("the system reads it") {
            RawRecord::End => break,
            RawRecord::Damaged(fault) => {
                assert!(!fault.detail.is_empty() && !fault.reason.is_empty());
                faults += 1;
            }
            RawRecord::Record => match Document::from_line(&buffer, || "none".into()) {
                Ok(document) => {
                    let mut line = Vec::new();
                    document.write_line(&mut line);
                    assert_eq!(Document::from_line(&line, String::new).as_ref(), Ok(&document), "it survives writing");
                    records += 1;
                }
                Err(_) => faults += 1,
            },
        }
        assert!(records + faults <= 10 * bytes.len() + 1000, "no end");
    }
    assert_eq!(reader.next_record(&mut buffer).expect("the system reads it"), RawRecord::End, "an end is final");
    (records, faults)
}

/// Opens the store that the file is a part of, whose other part is sound, and reads all documents.
fn read_store(path: &Path, bytes: &[u8]) -> (usize, usize) {
    let name = path.file_name().expect("a name");
    let folder = path.with_file_name(format!("store-of-{}", name.to_string_lossy()));
    if !folder.exists() {
        write_stores(&folder);
    }
    fs::write(folder.join(name), bytes).expect("write");
    let is_megatron = name.to_string_lossy().starts_with("megatron");
    let (mut records, mut faults, mut tokens) = (0, 0, Vec::new());
    let mut count = |read: Result<(), StoreError>| match read {
        Ok(()) => records += 1,
        Err(error) => {
            assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
            faults += 1;
        }
    };
    if is_megatron {
        match MegatronReader::open(folder.join("megatron")) {
            Err(error) => count(Err(error)),
            Ok(store) => (0..store.documents()).for_each(|document| {
                tokens.clear();
                store.read(document, 0..store.len(document), &mut tokens);
                count(Ok(()));
            }),
        }
    } else {
        match InternEvoReader::open(folder.join("internevo.bin")) {
            Err(error) => count(Err(error)),
            Ok(store) => (0..store.documents()).for_each(|document| {
                tokens.clear();
                count(store.read(document, 0..store.len(document), &mut tokens));
            }),
        }
    }
    (records, faults)
}

/// Reads an index of one segment.
fn read_segment(path: &Path, bytes: &[u8]) -> (usize, usize) {
    let folder = path.with_extension("index");
    let settings = Settings::new(&DedupConfig::default()).expect("default settings");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("segment-00000-0.bin"), bytes).expect("write");
    let index = Index::open(&folder, &settings, "another run").expect("a folder");
    let mut records = 0;
    let read = index.for_each(|_| {
        records += 1;
        Ok(())
    });
    (records, usize::from(read.is_err()))
}
