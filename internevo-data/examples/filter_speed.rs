//! How fast the rules are: `cargo run --release -p internevo-data --example filter_speed -- FILES… [--threads 2]`.
//! With `--settings FILE`, a TOML table for each filter as under `pipeline.filter`, those filters instead: the way to measure filters
//! that need a model.
//!
//! Reads JSONL or plain text files into memory (plain text is cut into documents of 4 000 bytes at line ends), judges every document
//! by each filter alone and by all in one pass, and prints megabytes (10^6 bytes of UTF-8) per second of CPU time. All filters see
//! all documents: nothing ends a chain early.

#[path = "../tests/common/cpu.rs"]
mod cpu;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cpu::cpu_time;
use internevo_data::{
    Document, Features, Filter, FilterContext,
    document::read_jsonl,
    filter::FilterChain,
    filters::{C4, CharAnomaly, FineWeb, GopherQuality, GopherRepetition},
    testing::build,
};
use rayon::prelude::*;

/// The product's allocator: what it costs and keeps is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DOCUMENT_BYTES: usize = 4000;

fn documents(path: &Path) -> Vec<Document> {
    if path.to_string_lossy().contains(".jsonl") {
        return read_jsonl(path).expect("a readable file").map(|document| document.expect("a document")).collect();
    }
    let text = String::from_utf8_lossy(&std::fs::read(path).expect("a readable file")).into_owned();
    let mut found = Vec::new();
    let mut current = String::new();
    for line in text.split_inclusive('\n') {
        current.push_str(line);
        if current.len() > DOCUMENT_BYTES {
            found.push(Document::new("part", std::mem::take(&mut current)));
        }
    }
    found.push(Document::new("part", current));
    found
}

fn measure(name: &str, documents: &[Document], filters: &[Box<dyn Filter>]) {
    measure_with(name, documents, |features| {
        filters.iter().filter(|filter| filter.judge(features) == internevo_data::Verdict::Keep).count()
    });
}

/// Every filter of a settings file.
fn measure_settings(path: &Path, documents: &[Document]) {
    let settings: toml::Table = toml::from_str(&std::fs::read_to_string(path).expect("a file")).expect("TOML");
    let context = FilterContext { lang: None, artifacts: path.parent().expect("a folder") };
    for name in settings.keys() {
        let chain = FilterChain::build(std::slice::from_ref(name), &settings, &context);
        let chain = chain.unwrap_or_else(|error| panic!("{error}"));
        measure_with(name, documents, |features| usize::from(chain.judge(features).dropped.is_none()));
    }
}

fn measure_with(name: &str, documents: &[Document], kept: impl Fn(&Features<'_>) -> usize + Sync) {
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    let judge = || -> usize { documents.par_iter().map(|document| kept(&Features::new(document))).sum() };
    judge();
    let (start, cpu, mut rounds, mut kept) = (Instant::now(), cpu_time(), 0, 0);
    while rounds < 3 || start.elapsed() < Duration::from_secs(2) {
        kept = judge();
        rounds += 1;
    }
    let cpu = (cpu_time() - cpu).as_secs_f64();
    let megabytes = bytes as f64 * f64::from(rounds) / 1e6;
    let wall = start.elapsed().as_secs_f64();
    println!("{name:18} {:7.1} MB per CPU second {:7.1} MB per second, {kept} kept", megabytes / cpu, megabytes / wall);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut paths, mut threads, mut settings) = (Vec::new(), 2, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().and_then(|n| n.parse().ok()).expect("a number"),
            "--settings" => settings = arguments.next(),
            _ => paths.push(argument),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("threads");
    let documents: Vec<Document> = paths.iter().flat_map(|path| documents(Path::new(path))).collect();
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    println!("{} documents, {:.1} MB", documents.len(), bytes as f64 / 1e6);
    if let Some(settings) = settings {
        return measure_settings(Path::new(&settings), &documents);
    }
    let all = || -> Vec<Box<dyn Filter>> {
        vec![build::<GopherQuality>(""), build::<GopherRepetition>(""), build::<C4>(""), build::<FineWeb>("")]
    };
    for (name, filter) in ["gopher_quality", "gopher_repetition", "c4", "fineweb"].into_iter().zip(all().chunks(1)) {
        measure(name, &documents, filter);
    }
    measure("char_anomaly", &documents, &[build::<CharAnomaly>("")]);
    measure("gopher+c4+fineweb", &documents, &all());
    for mode in ["dolma", "datamap", "redpajama"] {
        let settings = format!("mode = \"{mode}\"");
        measure(mode, &documents, &[build::<GopherQuality>(&settings), build::<GopherRepetition>(&settings)]);
    }
}
