//! Every reader against some thousand damaged files, the same in every run. `examples/fuzz_readers.rs` goes on for as long as wanted.

#[path = "common/fuzz.rs"]
mod fuzz;

use fuzz::{FORMATS, mutate, read_all, sound};

/// Damaged files per format.
const ROUNDS: u64 = 1500;

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
