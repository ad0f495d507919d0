//! How much faster stages are on two threads: `cargo run --release -p internevo-data --example stage_speed -- clean INPUT OUTPUT`.
//!
//! Runs a stage (`format`, `clean`, `dedup`, `safe`, `quality`, or `tokenise`) with one thread and with two, twice each in turns, and
//! prints megabytes (10^6 bytes of UTF-8) per second and per CPU second, and the ratio of the best times. `--settings FILE` names a
//! TOML file with the keys of `[pipeline]`; `--tokenizer FILE` the `tokenizer.json` of `tokenise`. OUTPUT is emptied before each run.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use internevo_core::config::PipelineConfig;
use internevo_data::{
    stage::{StageRequest, find_inputs, run_stage},
    tokenizer::{EncodeRequest, Tokenizer, encode_corpus},
};

#[path = "../tests/common/cpu.rs"]
mod cpu;

/// The product's allocator: what it costs and keeps is part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is run.
struct Job {
    stage: String,
    input: PathBuf,
    output: PathBuf,
    pipeline: PipelineConfig,
    tokenizer: Option<Tokenizer>,
}

impl Job {
    /// Bytes of text that went in.
    fn run(&self, threads: usize) -> u64 {
        match &self.tokenizer {
            Some(tokenizer) => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| self.tokenise(tokenizer))
            }
            None => self.stage(threads),
        }
    }

    fn stage(&self, threads: usize) -> u64 {
        let request = StageRequest {
            stage: &self.stage,
            input: self.input.clone(),
            output: self.output.clone(),
            lang: None,
            threads,
            artifacts: self.output.clone(),
            pipeline: &self.pipeline,
        };
        run_stage(&request, &()).unwrap_or_else(|error| panic!("{error}")).bytes_in
    }

    fn tokenise(&self, tokenizer: &Tokenizer) -> u64 {
        let files = find_inputs(&self.input, &self.output).expect("an input");
        let inputs: Vec<PathBuf> = files.into_iter().map(|file| file.path).collect();
        let request = EncodeRequest {
            inputs: &inputs,
            tokenizer,
            folder: &self.output,
            sink: "megatron",
            sink_settings: &toml::Table::new(),
            split_of: &|_| "train",
        };
        encode_corpus(&request, &|_| ()).unwrap_or_else(|error| panic!("{error}")).splits["train"].bytes
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut named, mut settings, mut tokenizer) = (Vec::new(), String::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--settings" => settings = fs::read_to_string(arguments.next().expect("a file")).expect("readable"),
            "--tokenizer" => tokenizer = Some(Tokenizer::load(arguments.next().expect("a file")).expect("a tokenizer")),
            _ => named.push(argument),
        }
    }
    let [stage, input, output] = named.try_into().expect("STAGE INPUT OUTPUT");
    let pipeline = toml::from_str(&settings).expect("keys of [pipeline]");
    let job = Job { stage, input: input.into(), output: output.into(), pipeline, tokenizer };
    let mut best = [f64::INFINITY; 2];
    for threads in [1, 2, 1, 2] {
        let (bytes, seconds, cpu) = timed(&job, threads);
        let megabytes = bytes as f64 / 1e6;
        println!(
            "{} with {threads}: {megabytes:.1} MB in {seconds:.2} s, {:.1} MB/s, {:.1} MB per CPU second",
            job.stage,
            megabytes / seconds,
            megabytes / cpu
        );
        best[threads - 1] = best[threads - 1].min(seconds);
    }
    println!("{}: 1 to 2 threads {:.2}", job.stage, best[0] / best[1]);
}

/// Bytes, seconds, and seconds of the processors.
fn timed(job: &Job, threads: usize) -> (u64, f64, f64) {
    empty(&job.output);
    let (start, cpu) = (Instant::now(), cpu::cpu_time());
    let bytes = job.run(threads);
    (bytes, start.elapsed().as_secs_f64(), (cpu::cpu_time() - cpu).as_secs_f64())
}

/// A folder that does not look like a stage's output is left alone.
fn empty(output: &Path) {
    let entries = fs::read_dir(output).into_iter().flatten().flatten();
    let known = [
        "kept",
        "rejected",
        "report.json",
        "progress.json",
        ".lock",
        "duplicates.json",
        "train.bin",
        "train.idx",
        "train.stats.json",
    ];
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(known.contains(&&*name), "{} is nothing of this program", path.display());
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("it can be removed");
    }
}
