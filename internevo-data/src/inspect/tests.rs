//! A corpus whose documents and verdicts are known.

use std::{fs, path::Path};

use internevo_core::config::PipelineConfig;

use super::*;
use crate::stage::{StageRequest, Strategies, run_stage};

/// Documents of 1 to 30 words from two sources; those of fewer than ten words go.
fn cleaned(folder: &Path) -> (PipelineConfig, Strategies) {
    let line = |words: usize| {
        let text = "the word that is ".repeat(8).split_inclusive(' ').take(words).collect::<String>();
        let source = if words.is_multiple_of(2) { "even" } else { "odd" };
        serde_json::json!({"id": format!("w{words}"), "text": text, "lang": "en", "source": source, "n": words})
            .to_string()
            + "\n"
    };
    fs::write(folder.join("in.jsonl"), (1..=30).map(line).collect::<String>() + "{broken\n").expect("input");
    let settings = toml::from_str("[gopher_quality]\nmin_words = 10\nmin_mean_word_length = 1.0").expect("TOML");
    let pipeline =
        PipelineConfig { clean: vec!["gopher_quality".into()], filter: settings, ..PipelineConfig::default() };
    let request = StageRequest {
        stage: "clean",
        input: folder.join("in.jsonl"),
        output: folder.join("clean"),
        lang: None,
        threads: 2,
        artifacts: folder.to_owned(),
        pipeline: &pipeline,
    };
    run_stage(&request, &()).expect("it runs");
    let strategies = request.strategies().expect("filters");
    (pipeline, strategies)
}

#[test]
fn a_survey_counts_documents_sources_lengths_fields_and_what_is_broken() {
    let dir = tempfile::tempdir().expect("temporary folder");
    cleaned(dir.path());
    let raw = survey(&dir.path().join("in.jsonl"), &|_| ()).expect("readable");
    assert_eq!((raw.documents, raw.broken["broken_json"]), (30, 1));
    assert_eq!((raw.sources["even"].documents, raw.languages["en"].documents), (15, 30));
    assert_eq!(raw.bytes, raw.sources.values().map(|count| count.bytes).sum::<u64>());
    assert_eq!(raw.lengths.iter().map(|(_, documents)| documents).sum::<u64>(), 30);
    assert_eq!(raw.lengths[0], (4, 1), "`the ` alone has fewer than eight bytes");
    let fields: Vec<_> = raw.fields.iter().map(|field| (field.name.as_str(), field.types.clone())).collect();
    assert_eq!(fields[2], ("n", [("number", 30)].into()));
    assert_eq!(raw.fields[1].values, [("even".to_owned(), 15), ("odd".to_owned(), 15)].into());
    assert_eq!(raw.samples[0].excerpt, "the ");
    let kept = survey(&dir.path().join("clean"), &|_| ()).expect("a stage's output stands for its kept/");
    assert_eq!((kept.documents, kept.samples[0].id.as_str()), (21, "w10"));
    for part in fs::read_dir(dir.path().join("clean/kept")).expect("folder") {
        fs::write(part.expect("entry").path(), "").expect("write");
    }
    let none = survey(&dir.path().join("clean"), &|_| ()).expect("a stage may keep nothing");
    assert_eq!((none.documents, none.lengths.len()), (0, 0));
    fs::remove_file(dir.path().join("clean/report.json")).expect("a report");
    fs::remove_dir_all(dir.path().join("clean/rejected")).expect("a folder");
    assert!(survey(&dir.path().join("clean"), &|_| ()).is_err(), "a folder without documents is a mistake");
}

#[test]
fn the_documents_nearest_to_a_threshold_are_found_on_both_sides() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (_, strategies) = cleaned(dir.path());
    let options = BorderlineOptions { samples: 2, ..BorderlineOptions::default() };
    let found = borderline(&dir.path().join("clean"), &strategies, &options).expect("readable");
    assert_eq!(found.measured, 21);
    let rule = &found.rules[0];
    assert_eq!((rule.reason.as_str(), rule.filter.as_str()), ("gopher_short_document", "gopher_quality"));
    assert_eq!((rule.rejected, rule.threshold, rule.is_minimum), (9, Some(10.0), Some(true)));
    let ids = |samples: &[Sample]| samples.iter().map(|sample| sample.id.clone()).collect::<Vec<_>>();
    assert_eq!(
        (ids(&rule.just_rejected), ids(&rule.just_kept)),
        (vec!["w9".into(), "w8".into()], vec!["w10".into(), "w11".into()])
    );
    assert_eq!((rule.rejected_values.total(), rule.kept_values.total()), (9, 21));
    assert_eq!((rule.rejected_values.low, rule.rejected_values.high), (rule.kept_values.low, rule.kept_values.high));
    // What was no document has no threshold.
    let reader = found.rules.iter().find(|rule| rule.filter == "reader").expect("the broken line");
    assert_eq!((reader.rejected, reader.threshold, reader.just_kept.len()), (1, None, 0));
}

#[test]
fn a_stage_is_seen_by_source_and_found_in_the_folder_of_its_run() {
    let dir = tempfile::tempdir().expect("temporary folder");
    cleaned(dir.path());
    assert_eq!(stage_folders(dir.path()).expect("listed"), [dir.path().join("clean")]);
    assert_eq!(stage_folders(&dir.path().join("clean")).expect("listed"), [dir.path().join("clean")]);
    let view = view_stage(&dir.path().join("clean")).expect("readable").expect("a stage");
    let flow = view.sources["odd"];
    assert_eq!((flow.kept.documents, flow.rejected.documents), (10, 5));
    assert_eq!((view.report.documents_kept, view.duplicates), (21, None));
    assert_eq!(view_stage(dir.path()).expect("readable"), None);
}

#[test]
fn a_histogram_counts_every_number_once_and_shows_the_threshold() {
    let values: Vec<f64> = (0..1000).map(f64::from).chain([f64::NAN, 1e9]).collect();
    let histogram = Histogram::of(&values, 10, Some(2000.0));
    assert_eq!((histogram.total(), histogram.high), (1001, 2000.0));
    let single = Histogram::of(&[3.0], 4, None);
    assert_eq!((single.low, single.high, single.total()), (2.5, 3.5, 1));
    assert_eq!(Histogram::of(&[], 4, None).total(), 0);
}
