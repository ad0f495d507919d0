//! A thousand corrupted files among sound ones: a thousand clear errors, and nothing else is lost.

#[path = "common/fuzz.rs"]
#[allow(dead_code, reason = "shared with the fuzz tests")]
mod fuzz;

use std::{collections::BTreeMap, fs, path::Path};

use fuzz::{gz, warc_record};
use internevo_core::{config::PipelineConfig, rng::CounterRng};
use internevo_data::stage::{StageRequest, run_stage};
use serde_json::Value;

const CORRUPTED: usize = 1000;
const SOUND: usize = 60;

fn line(file: usize, i: usize) -> String {
    format!(
        "{{\"id\":\"{file}-{i}\",\"text\":\"The river went by the house number {i} of street {file} in the evening.\"}}\n"
    )
}

/// A corrupted file of one of eight kinds: its name, its bytes, how many documents can still be read for certain, and the reason.
fn corrupted(file: usize) -> (String, Vec<u8>, usize, &'static str) {
    let lines: Vec<String> = (0..6).map(|i| line(file, i)).collect();
    let mut records: Vec<Vec<u8>> = (0..6).map(|i| warc_record(file * 10 + i)).collect();
    let bad = CounterRng::new(file as u64, "corrupted").below(0, 5) as usize;
    let all = lines.concat();
    match file % 8 {
        0 => {
            let cut = lines[bad][..lines[bad].len() / 2].to_owned() + "\n";
            let text: String =
                lines.iter().enumerate().map(|(i, line)| if i == bad { &cut } else { line }.as_str()).collect();
            (format!("{file}.jsonl"), text.into_bytes(), 5, "broken_json")
        }
        1 => {
            let mut bytes = all.into_bytes();
            bytes[lines[..bad].concat().len() + 30] = 0xff;
            (format!("{file}.jsonl"), bytes, 5, "invalid_utf8")
        }
        2 => {
            let packed = gz(all.as_bytes());
            (format!("{file}.jsonl.gz"), packed[..packed.len() - 4].to_vec(), 6, "truncated_archive")
        }
        3 => {
            let members: Vec<u8> = [gz(all.as_bytes()), gz(line(file, 6).as_bytes())[..20].to_vec()].concat();
            (format!("{file}.jsonl.gz"), members, 6, "truncated_archive")
        }
        4 => {
            let frame = zstd::encode_all(all.as_bytes(), 1).expect("memory");
            (
                format!("{file}.jsonl.zst"),
                [frame.clone(), frame[..frame.len() / 2].to_vec()].concat(),
                6,
                "truncated_archive",
            )
        }
        5 => {
            let text = String::from_utf8(records[bad].clone()).expect("ASCII").replacen(
                "Content-Length: ",
                "Content-Length: x",
                1,
            );
            records[bad] = text.into_bytes();
            (format!("{file}.warc"), records.concat(), 5, "malformed_record")
        }
        6 => {
            records[bad].truncate(150);
            (format!("{file}.warc.gz"), records.iter().flat_map(|record| gz(record)).collect(), 5, "malformed_record")
        }
        _ => (format!("{file}.html"), b"<meta charset=shift_jis><p>\x81".to_vec(), 0, "invalid_utf8"),
    }
}

fn json_lines(folder: &Path) -> Vec<Value> {
    let mut paths: Vec<_> = fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).expect("file"));
    texts.flat_map(|t| t.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<Value>>()).collect()
}

#[test]
fn a_thousand_corrupted_files_give_a_thousand_errors_and_an_otherwise_complete_run() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let input = dir.path().join("in");
    fs::create_dir_all(&input).expect("folder");
    let (mut expected, mut readable) = (BTreeMap::new(), 0);
    for file in 0..CORRUPTED {
        let (name, bytes, documents, reason) = corrupted(file);
        fs::write(input.join(&name), bytes).expect("file");
        readable += documents;
        expected.insert(name, reason);
    }
    for file in CORRUPTED..CORRUPTED + SOUND {
        let text: String = (0..6).map(|i| line(file, i)).collect();
        fs::write(input.join(format!("{file}.jsonl")), text).expect("file");
        readable += 6;
    }
    let pipeline = PipelineConfig::default();
    for stage in ["format", "dedup"] {
        let output = dir.path().join(stage);
        let request = StageRequest {
            stage,
            input: input.clone(),
            output: output.clone(),
            lang: Some("en"),
            threads: 2,
            artifacts: output.clone(),
            pipeline: &pipeline,
        };
        let report = run_stage(&request, &()).expect("the run goes on to its end");
        let reader_faults = ["broken_json", "invalid_utf8", "truncated_archive", "malformed_record"];
        let rejected: Vec<Value> = json_lines(&output.join("rejected"))
            .into_iter()
            .filter(|line| reader_faults.iter().any(|fault| line["reason"] == *fault))
            .collect();
        let found: BTreeMap<String, &str> = rejected
            .iter()
            .map(|line| {
                let (file, _) = line["place"].as_str().expect("a place").rsplit_once(':').expect("file:line");
                assert!(!line["detail"].as_str().expect("a detail").is_empty(), "{line}");
                (file.to_owned(), line["reason"].as_str().expect("a reason"))
            })
            .collect();
        assert_eq!((rejected.len(), &found), (CORRUPTED, &expected), "{stage}");
        assert_eq!(report.documents_in, (CORRUPTED + readable) as u64, "{stage}: {:?}", report.reasons);
        let kept: std::collections::BTreeSet<String> = json_lines(&output.join("kept"))
            .iter()
            .map(|line| line["id"].as_str().expect("an id").to_owned())
            .collect();
        if stage == "format" {
            assert_eq!(kept.len(), readable, "no id is lost and none comes twice");
        }
    }
}
