//! Fuzzes every reader for as many CPU minutes as asked, and names the seed of whatever it finds.
//!
//! ```text
//! cargo run --release -p internevo-data --features parquet --example fuzz_readers -- 10      # CPU minutes for each format
//! cargo run --release -p internevo-data --features parquet --example fuzz_readers -- 10 a.warc.gz
//! cargo run --release -p internevo-data --features parquet --example fuzz_readers -- 10 ngram_lm/trie.binary
//! ```

#[path = "../tests/common/cpu.rs"]
mod cpu;
#[path = "../tests/common/fuzz.rs"]
mod fuzz;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use cpu::cpu_time;
use fuzz::{FORMATS, MODELS, ask_model, mutate, read_all, sound, sound_model};

/// Seeds of the tests end below this: a run finds what they do not.
const FIRST_SEED: u64 = 1_000_000;
/// A file of some kilobytes that takes more CPU time than this is a finding too.
const SLOW: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let only = arguments.next();
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut findings = 0;
    for format in FORMATS.iter().chain(MODELS).filter(|format| only.as_ref().is_none_or(|only| only == **format)) {
        let is_model = MODELS.contains(format);
        let path = dir.path().join(format.replace('/', "-"));
        let sound = if is_model { sound_model(format) } else { sound(format) };
        let (started, mut seed, mut faulty) = (cpu_time(), FIRST_SEED, 0u64);
        while (cpu_time() - started).as_secs_f64() < minutes * 60.0 {
            // Every eighth file is damaged twice over.
            let mut bytes = sound.clone();
            mutate(&mut bytes, seed);
            if seed % 8 == 0 {
                mutate(&mut bytes, seed ^ 0x5555_5555);
            }
            let begun = cpu_time();
            let read = || if is_model { ask_model(&path, &bytes) } else { read_all(&path, &bytes).1 > 0 };
            match catch_unwind(AssertUnwindSafe(read)) {
                Ok(told) => faulty += u64::from(told),
                Err(_) => {
                    println!("{format}: seed {seed} panics");
                    findings += 1;
                }
            }
            let taken = cpu_time() - begun;
            if taken > SLOW {
                println!("{format}: seed {seed} takes {:.1} s", taken.as_secs_f64());
                findings += 1;
            }
            seed += 1;
        }
        println!("{format}: {} files, {faulty} with faults, {findings} findings so far", seed - FIRST_SEED);
    }
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
