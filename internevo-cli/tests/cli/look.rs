//! Looking at a corpus: `data inspect`, `data report`, `data review`.

use std::{fs, io::Write, process::Stdio};

use serde_json::Value;

use crate::workshop::Workshop;

/// A cleaned corpus: documents of 5 to 60 words from two sources, of which those below 30 words go.
fn cleaned() -> Workshop {
    let workshop = Workshop::new();
    let line = |words: usize| {
        let text = "the river is that of a ".repeat(10).split_inclusive(' ').take(words).collect::<String>();
        let source = if words.is_multiple_of(2) { "even" } else { "odd <b>" };
        serde_json::json!({"id": format!("w{words}"), "text": text, "lang": "en", "source": source}).to_string() + "\n"
    };
    fs::write(workshop.path().join("in.jsonl"), (5..=60).map(line).collect::<String>()).expect("documents");
    let settings = "[pipeline]\nclean = ['gopher_quality']\n[pipeline.filter.gopher_quality]\nmin_words = 30\nmin_mean_word_length = 1.0\n";
    fs::write(workshop.path().join("clean.toml"), settings).expect("settings");
    workshop.ok(&["data", "clean", "--input", "in.jsonl", "--output", "clean", "--config", "clean.toml"]);
    workshop
}

fn json(workshop: &Workshop, args: &[&str]) -> Value {
    serde_json::from_str(&workshop.ok(args)).expect("one JSON document")
}

/// Runs a review with these keys; gives the summary and the labels.
fn review(workshop: &Workshop, keys: &str) -> (Value, Vec<Value>) {
    let args = ["data", "review", "clean", "--labels", "labels.jsonl", "--config", "clean.toml", "--samples", "2"];
    let mut command = workshop.command(&[&args[..], &["--rule", "gopher_short_document", "--json"]].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(keys.as_bytes()).expect("it listens");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let labels = fs::read_to_string(workshop.path().join("labels.jsonl")).unwrap_or_default();
    let summary = serde_json::from_slice(&output.stdout).expect("one JSON document");
    (summary, labels.lines().map(|line| serde_json::from_str(line).expect("a label")).collect())
}

#[test]
fn inspecting_a_file_or_a_stage_tells_its_schema_languages_sources_and_lengths() {
    let workshop = cleaned();
    let file = json(&workshop, &["data", "inspect", "in.jsonl", "--json"]);
    assert_eq!((&file["documents"], &file["report"]), (&56.into(), &Value::Null));
    assert_eq!(file["sources"]["odd <b>"]["documents"], 28);
    assert_eq!(file["fields"][1]["name"], "source");
    let stage = json(&workshop, &["data", "inspect", "clean", "--json"]);
    assert_eq!((&stage["documents"], &stage["report"]["documents_kept"]), (&31.into(), &31.into()));
    assert_eq!(stage["samples"][0]["id"], "w30");
    let text = workshop.ok(&["data", "inspect", "clean"]);
    for part in ["31 documents", "even", "lengths", "gopher_short_document"] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    workshop.fails(&["data", "inspect", "nowhere"], 2);
}

#[test]
fn the_page_shows_thresholds_with_the_documents_on_both_sides_and_needs_nothing_from_outside() {
    let workshop = cleaned();
    let answer = json(&workshop, &["data", "report", "clean", "--config", "clean.toml", "--json"]);
    let rule = &answer["stages"][0]["borderline"]["rules"][0];
    assert_eq!((&rule["reason"], &rule["threshold"]), (&"gopher_short_document".into(), &30.0.into()));
    assert_eq!((&rule["just_rejected"][0]["id"], &rule["just_kept"][0]["id"]), (&"w29".into(), &"w30".into()));
    let html = fs::read_to_string(workshop.path().join("clean/report.html")).expect("the page");
    for part in ["class=\"threshold\"", "at least 30", "w29", "w30", "odd &lt;b&gt;", "after clean", "even"] {
        assert!(html.contains(part), "{part} is not in the page");
    }
    for outside in ["http://", "https://", "src=", "href=", "@import", "url(", "<script", "<link", "onload"] {
        assert!(!html.contains(outside), "{outside} would load something");
    }
    assert!(!html.contains("NaN"));
    let other = workshop.ok(&["data", "inspect", "clean", "--html", "page.html"]);
    assert_eq!(other.trim(), "page.html");
    let message = workshop.fails(&["data", "report", "text"], 2);
    assert!(message.contains("no finished stage"), "{message}");
}

#[test]
fn a_review_asks_for_the_nearest_first_goes_back_and_goes_on_where_it_stopped() {
    let workshop = cleaned();
    // Keep, drop, back over the drop, keep instead, leave.
    let (summary, labels) = review(&workshop, "k\nd\nb\nk\nq\n");
    let seen: Vec<_> = labels.iter().map(|label| (label["id"].clone(), label["label"].clone())).collect();
    assert_eq!(seen, [("w29".into(), "keep".into()), ("w30".into(), "keep".into())]);
    assert_eq!(
        labels[0],
        serde_json::json!({"id": "w29", "label": "keep", "reason": "gopher_short_document", "value": 29.0, "kept": false})
    );
    assert_eq!((&summary["labelled"], &summary["left"]), (&2.into(), &2.into()));
    assert_eq!(summary["rules"][0]["wrongly_dropped"], 1);
    // The rest, one of them skipped; the input ends without a `q`.
    let (summary, labels) = review(&workshop, "s?d");
    assert_eq!(labels.len(), 3);
    assert_eq!(
        (&labels[2]["id"], &labels[2]["label"], &labels[2]["kept"]),
        (&"w31".into(), &"drop".into(), &true.into())
    );
    assert_eq!((&summary["left"], &summary["rules"][0]["wrongly_kept"]), (&0.into(), &1.into()));
    // What was skipped comes again.
    let (summary, _) = review(&workshop, "q");
    assert_eq!(summary["left"], 1);
    let args = ["data", "review", "clean", "--labels", "l.jsonl", "--config", "clean.toml", "--rule", "no_rule"];
    assert!(workshop.fails(&args, 2).contains("gopher_short_document"));
}
