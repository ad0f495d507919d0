//! Every reader against some thousand damaged files, the same in every run. `examples/fuzz_readers.rs` goes on for as long as wanted.

#[path = "common/fuzz.rs"]
mod fuzz;

use fuzz::{FORMATS, MODELS, ask_model, mutate, read_all, sound, sound_model};

/// Damaged files per format.
const ROUNDS: u64 = 1500;
/// Damaged files per model: these are larger.
const MODEL_ROUNDS: u64 = 200;

#[test]
fn every_reader_reads_its_sound_file() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for format in FORMATS {
        let (records, faults) = read_all(&dir.path().join(format), &sound(format));
        assert!(records > 0 && faults == 0, "{format}: {records} records, {faults} faults");
    }
}

#[test]
fn every_reader_comes_to_an_end_of_every_damaged_file_without_a_panic() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for format in FORMATS {
        let (path, sound) = (dir.path().join(format), sound(format));
        let mut faulty = 0;
        for seed in 0..ROUNDS {
            let mut bytes = sound.clone();
            mutate(&mut bytes, seed);
            faulty += u64::from(read_all(&path, &bytes).1 > 0);
        }
        let least = match *format {
            "a.html" => 0,
            // Tokens and shingles are numbers like any others: of these files damage shows in lengths alone.
            "megatron.bin" | "segment-00000-0.bin" => ROUNDS / 8,
            _ => ROUNDS / 4,
        };
        assert!(faulty >= least, "{format}: only {faulty} of the damaged files were told");
    }
}

#[test]
fn every_damaged_model_is_refused_or_can_still_be_asked() {
    let dir = tempfile::tempdir().expect("temporary folder");
    for model in MODELS {
        let path = dir.path().join(model.replace('/', "-"));
        let sound = sound_model(model);
        assert!(!ask_model(&path, &sound), "{model} is sound");
        let told = (0..MODEL_ROUNDS).filter(|seed| {
            let mut bytes = sound.clone();
            mutate(&mut bytes, *seed);
            ask_model(&path, &bytes)
        });
        let told = told.count() as u64;
        assert!(told > MODEL_ROUNDS / 20, "{model}: only {told} of the damaged files were told");
    }
}
