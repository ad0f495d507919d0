//! Every stage of the corpus pipeline over made-up text, in bytes of text per second, then tokenizer and loader:
//! `cargo bench -p benches --bench pipeline [-- dedup]`. Each stage reads and writes files as in production.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use benches::{documents, size};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use internevo_core::config::{PipelineConfig, TokenizerConfig};
use internevo_data::{
    Document,
    loader::{LoaderConfig, PackedLoader},
    quality,
    stage::{StageRequest, find_inputs, run_stage},
    store::{MegatronWriter, TokenStore, TokenType},
    tokenizer,
};
use tempfile::TempDir;

/// The corpus as one JSONL file; returns its folder and the bytes of text.
fn corpus(folder: &Path) -> (PathBuf, u64) {
    let input = folder.join("input");
    std::fs::create_dir_all(&input).expect("a folder in the temporary folder");
    let texts = documents(size(16_000_000, 40_000));
    let mut lines = String::new();
    for (index, text) in texts.iter().enumerate() {
        let document = Document::new(format!("doc-{index}"), text.clone());
        lines.push_str(&serde_json::to_string(&document).expect("a document serialises"));
        lines.push('\n');
    }
    std::fs::write(input.join("part-00000.jsonl"), lines).expect("room for the corpus");
    (input, texts.iter().map(|t| t.len() as u64).sum())
}

fn stages(c: &mut Criterion) {
    let folder = TempDir::new().expect("temporary folder");
    let (input, bytes) = corpus(folder.path());
    let pipeline = PipelineConfig::default();
    let artifacts = folder.path().join("artifacts");
    let files = find_inputs(&input, Path::new("")).expect("the file just written");
    quality::ensure_trained(&files, &artifacts, &pipeline, &()).expect("the classifier trains");
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Bytes(bytes));
    for stage in ["format", "clean", "dedup", "safe", "quality"] {
        let run = |output: TempDir| {
            let request = StageRequest {
                stage,
                input: input.clone(),
                output: output.path().join("out"),
                lang: None,
                threads: 0,
                artifacts: artifacts.clone(),
                pipeline: &pipeline,
            };
            run_stage(&request, &()).expect("the stage runs");
            output
        };
        group.bench_function(stage, |b| {
            b.iter_batched(|| TempDir::new().expect("temporary folder"), run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn tokens(c: &mut Criterion) {
    let texts = documents(size(2_000_000, 20_000));
    let bytes = texts.iter().map(|t| t.len() as u64).sum();
    let config = TokenizerConfig { vocab_size: size(4096, 300), ..TokenizerConfig::default() };
    let mut group = c.benchmark_group("tokenizer");
    group.throughput(Throughput::Bytes(bytes));
    let train = || tokenizer::train(texts.iter().cloned(), &config, &|_| ()).expect("enough text");
    group.bench_function("train", |b| b.iter(train));
    let trained = train();
    group.bench_function("encode", |b| b.iter(|| trained.encode_batch(&texts).expect("text encodes")));
    group.finish();

    let folder = TempDir::new().expect("temporary folder");
    let prefix = folder.path().join("train");
    let mut writer = MegatronWriter::create(&prefix, TokenType::U16).expect("room for the store");
    for tokens in trained.encode_batch(&texts).expect("text encodes") {
        let tokens: Vec<i32> = tokens.into_iter().map(|t| t as i32).collect();
        writer.push(&tokens).expect("ids fit");
    }
    writer.finish().expect("room for the store");
    let store = Arc::new(TokenStore::open_folder(folder.path(), "train").expect("the store just written"));
    let shape = LoaderConfig {
        seq_len: size(1024, 64),
        micro_bsz: 4,
        seed: 1,
        min_length: 8,
        pack_sample_into_one: false,
        shuffle: true,
    };
    let mut group = c.benchmark_group("loader");
    group.throughput(Throughput::Elements((shape.seq_len * shape.micro_bsz) as u64));
    let loader = PackedLoader::new(store, shape).expect("enough tokens for a row");
    let mut index = 0;
    group.bench_function("micro_batch", |b| {
        b.iter(|| {
            index += 1;
            loader.micro_batch(index).expect("a valid store")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = stages, tokens
}
criterion_main!(benches);
