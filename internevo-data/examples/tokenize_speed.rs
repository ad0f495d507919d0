//! Speed of the tokenizer, and whether its tokens are those of Hugging Face: one JSON line each.
//!
//! ```text
//! cargo run --release -p internevo-data --example tokenize_speed -- encode tokenizer.json FILES… [--threads 2]
//! cargo run --release -p internevo-data --example tokenize_speed -- verify tokenizer.json FILES…
//! cargo run --release -p internevo-data --example tokenize_speed -- train tokenizer.json FILES… [--vocab 32000]
//! ```
//!
//! `encode` times texts that are in memory already, `train` writes `tokenizer.json` and counts reading in. MB are 10^6 bytes of UTF-8
//! text, seconds those of the process over all threads. `verify` ends with code 1 at the first text with other tokens.

#[path = "../tests/common/cpu.rs"]
mod cpu;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use cpu::cpu_time;
use internevo_core::config::TokenizerConfig;
use internevo_data::{
    document::read_jsonl,
    tokenizer::{Tokenizer, train},
};
use rayon::prelude::*;
use serde_json::json;

/// Texts per batch, as the peers are given them.
const BATCH: usize = 256;

struct Arguments {
    mode: String,
    tokenizer: PathBuf,
    files: Vec<PathBuf>,
    threads: usize,
    vocab: usize,
}

fn arguments() -> Option<Arguments> {
    let mut all = std::env::args().skip(1);
    let (mode, tokenizer) = (all.next()?, all.next()?.into());
    let mut arguments = Arguments { mode, tokenizer, files: Vec::new(), threads: 2, vocab: 32_000 };
    while let Some(argument) = all.next() {
        match argument.as_str() {
            "--threads" => arguments.threads = all.next()?.parse().ok()?,
            "--vocab" => arguments.vocab = all.next()?.parse().ok()?,
            _ => arguments.files.push(argument.into()),
        }
    }
    (!arguments.files.is_empty()).then_some(arguments)
}

fn texts(file: &Path) -> impl Iterator<Item = String> + use<> {
    read_jsonl(file).expect("a readable file").map(|document| document.expect("a document").text)
}

fn report(mode: &str, bytes: usize, tokens: usize, start: Instant, cpu: Duration) {
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    let mb = bytes as f64 / 1e6;
    println!(
        "{}",
        json!({"lib": "internevo", "mode": mode, "mb": mb, "tokens": tokens, "wall_s": wall, "cpu_s": cpu,
               "mb_per_cpu_s": mb / cpu, "mb_per_wall_s": mb / wall})
    );
}

fn encode(tokenizer: &Tokenizer, texts: &[String]) {
    let (start, cpu, mut tokens) = (Instant::now(), cpu_time(), 0);
    for batch in texts.chunks(BATCH) {
        let encoded = tokenizer.encode_batch(batch).expect("byte-level tokenizers encode every text");
        tokens += encoded.iter().map(Vec::len).sum::<usize>();
    }
    report("encode", texts.iter().map(String::len).sum(), tokens, start, cpu);
}

/// Compares every text with the library that defines the format.
fn verify(path: &Path, tokenizer: &Tokenizer, texts: &[String]) -> bool {
    let mut reference = tokenizers::Tokenizer::from_file(path).expect("a tokenizer");
    reference.set_encode_special_tokens(true);
    let compared: Vec<Result<usize, usize>> = texts
        .par_iter()
        .enumerate()
        .map(|(number, text)| {
            let expected = reference.encode_fast(text.as_str(), false).expect("it encodes");
            let ours = tokenizer.encode(text).expect("it encodes");
            if ours == expected.get_ids() { Ok(ours.len()) } else { Err(number) }
        })
        .collect();
    let tokens: usize = compared.iter().flatten().sum();
    let different = compared.iter().filter(|result| result.is_err()).count();
    println!(
        "{}",
        json!({"lib": "internevo", "mode": "verify", "texts": texts.len(), "tokens": tokens, "different": different})
    );
    if let Some(Err(number)) = compared.iter().find(|result| result.is_err()) {
        println!("text {number} differs: {:?}", texts[*number].chars().take(200).collect::<String>());
    }
    different == 0
}

fn main() -> ExitCode {
    let Some(Arguments { mode, tokenizer, files, threads, vocab }) = arguments() else {
        println!("usage: tokenize_speed encode|verify|train tokenizer.json FILES… [--threads N] [--vocab N]");
        return ExitCode::from(2);
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("a thread pool");
    let documents = || files.iter().flat_map(|file| texts(file));
    if mode == "train" {
        let (start, cpu, mut bytes) = (Instant::now(), cpu_time(), 0);
        let config = TokenizerConfig { vocab_size: vocab, ..TokenizerConfig::default() };
        let trained = train(documents().inspect(|text| bytes += text.len()), &config, &|_| ()).expect("it trains");
        report("train", bytes, trained.vocab_size(), start, cpu);
        trained.save(&tokenizer).expect("it can be written");
        return ExitCode::SUCCESS;
    }
    let loaded = Tokenizer::load(&tokenizer).expect("a tokenizer");
    let texts: Vec<String> = documents().collect();
    match mode.as_str() {
        "verify" if !verify(&tokenizer, &loaded, &texts) => return ExitCode::FAILURE,
        "verify" => {}
        _ => encode(&loaded, &texts),
    }
    ExitCode::SUCCESS
}
