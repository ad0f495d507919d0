//! The Gopher, C4 and FineWeb filters against the verdicts of the tools whose meaning they claim, on 808 texts.
//!
//! `tests/golden` has the texts and one file of verdicts a tool, whose header names tool and version; `xtask/peers/data` has the
//! programs that made them. At most 0.5 % of the verdicts may differ, and each difference is listed here with its reason.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use internevo_data::{
    Document, Features, Filter, Verdict,
    document::read_jsonl,
    filters::{C4, C4Config, FineWeb, GopherQuality, GopherRepetition},
    testing::build,
};
use serde_json::Value;

/// Share of verdicts that may differ, explained.
const TOLERATED: f64 = 0.005;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The texts, each with the tool's line for it.
fn documents(peer: &str) -> Vec<(Document, Value)> {
    let documents = read_jsonl(&golden("documents.jsonl.zst")).expect("the texts");
    let verdicts = std::fs::read_to_string(golden(peer)).expect("the verdicts");
    let mut lines = verdicts.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    assert!(header["packages"].is_object() && header["made_by"].is_string(), "{peer} says who made it");
    let pairs: Vec<_> = documents.map(|document| document.expect("a document")).zip(lines).collect();
    assert!(pairs.len() > 800 && pairs.iter().all(|(document, line)| line["id"] == *document.id));
    pairs
}

/// Ours in the tool's words: `true`, or the reason of a drop.
type Ours = fn(&str) -> &str;

/// A verdict that differs from the tool's.
struct Difference {
    id: String,
    column: &'static str,
    ours: String,
    theirs: String,
}

/// Collects differences in one column of a tool's file.
struct Comparison {
    compared: usize,
    differences: Vec<Difference>,
}

impl Comparison {
    fn new() -> Self {
        Self { compared: 0, differences: Vec::new() }
    }

    fn check(&mut self, document: &Document, column: &'static str, ours: String, theirs: String) {
        self.compared += 1;
        if ours != theirs {
            self.differences.push(Difference { id: document.id.clone(), column, ours, theirs });
        }
    }

    /// Every difference must be explained, every explanation must be needed, and both must be few.
    fn finish(self, explained: &[(&str, &str, &str)]) {
        let mut unexplained = String::new();
        let mut needed = BTreeMap::new();
        for found in &self.differences {
            match explained.iter().find(|(id, column, _)| *id == found.id && *column == found.column) {
                Some((id, column, _)) => drop(needed.insert((*id, *column), ())),
                None => writeln!(unexplained, "{} {}: {} for {}", found.id, found.column, found.ours, found.theirs)
                    .expect("into memory"),
            }
        }
        assert!(unexplained.is_empty(), "of {} verdicts, unexplained:\n{unexplained}", self.compared);
        assert_eq!(needed.len(), explained.len(), "an explained difference has gone; explained: {explained:?}");
        let share = needed.len() as f64 / self.compared as f64;
        assert!(share <= TOLERATED, "{} of {} verdicts differ", needed.len(), self.compared);
    }
}

fn verdict(filter: &dyn Filter, document: &Document, name: Ours) -> String {
    match filter.judge(&Features::new(document)) {
        Verdict::Keep | Verdict::Edit(_) => "true".into(),
        Verdict::Drop { reason, .. } => name(&reason).into(),
    }
}

/// datatrove's names of our reasons.
fn datatrove_reason(reason: &str) -> &str {
    const NAMES: &[(&str, &str)] = &[
        ("gopher_short_document", "gopher_short_doc"),
        ("gopher_long_document", "gopher_long_doc"),
        ("gopher_short_words", "gopher_below_avg_threshold"),
        ("gopher_long_words", "gopher_above_avg_threshold"),
        ("gopher_many_hashes", "gopher_too_many_hashes"),
        ("gopher_many_ellipses", "gopher_too_many_ellipsis"),
        ("gopher_bullet_lines", "gopher_too_many_bullets"),
        ("gopher_ellipsis_lines", "gopher_too_many_end_ellipsis"),
        ("gopher_few_letter_words", "gopher_below_alpha_threshold"),
        ("gopher_few_stop_words", "gopher_enough_stop_words"),
        ("gopher_empty", "empty"),
        ("duplicate_paragraphs", "dup_para_frac"),
        ("duplicate_paragraph_chars", "dup_para_char_frac"),
        ("duplicate_lines", "dup_line_frac"),
        ("duplicate_line_chars", "dup_line_char_frac"),
        ("duplicate_5_grams", "duplicated_5_n_grams"),
        ("duplicate_6_grams", "duplicated_6_n_grams"),
        ("duplicate_7_grams", "duplicated_7_n_grams"),
        ("duplicate_8_grams", "duplicated_8_n_grams"),
        ("duplicate_9_grams", "duplicated_9_n_grams"),
        ("duplicate_10_grams", "duplicated_10_n_grams"),
        ("fineweb_empty", "empty"),
        ("fineweb_few_terminal_lines", "line_punct_ratio"),
        ("fineweb_short_lines", "short_line_ratio"),
        ("fineweb_duplicate_lines", "char_dup_ratio"),
        ("fineweb_list", "list_ratio"),
        ("c4_lorem_ipsum", "lorem_ipsum"),
        ("c4_curly_bracket", "curly_bracket"),
        ("c4_few_sentences", "too_few_sentences"),
    ];
    NAMES.iter().find(|(own, _)| *own == reason).map_or(reason, |(_, theirs)| theirs)
}

/// What the tool said: `true`, or the reason of the drop.
fn theirs(line: &Value, column: &str) -> String {
    match &line[column] {
        Value::Bool(true) => "true".into(),
        Value::String(reason) => reason.clone(),
        other => panic!("{column} is {other}"),
    }
}

/// Chinese is compared where words are jieba's.
fn is_compared(document: &Document) -> bool {
    cfg!(feature = "jieba") || document.lang() != Some("zh")
}

#[test]
fn datatrove_verdicts_and_reasons_are_reproduced() {
    let filters = [
        ("gopher_quality", build::<GopherQuality>("")),
        ("gopher_repetition", build::<GopherRepetition>("")),
        ("fineweb", build::<FineWeb>("")),
        ("c4", build::<C4>("")),
        ("c4_fineweb", build::<C4>("terminal_marks = false")),
    ];
    let mut comparison = Comparison::new();
    for (document, line) in documents("datatrove.jsonl").iter().filter(|(document, _)| is_compared(document)) {
        for (column, filter) in filters.iter().filter(|(column, _)| line.get(column).is_some()) {
            let ours = verdict(&**filter, document, datatrove_reason);
            comparison.check(document, column, ours, theirs(line, column));
        }
    }
    comparison.finish(&[]);
}

#[test]
fn datatrove_finds_the_same_number_of_words_and_of_lines_that_count() {
    let mut comparison = Comparison::new();
    let c4 = C4::new(C4Config::default(), None);
    for (document, line) in documents("datatrove.jsonl").iter().filter(|(document, _)| is_compared(document)) {
        let features = Features::new(document);
        comparison.check(document, "words", features.words().len().to_string(), line["words"].to_string());
        if let Some(lines) = line.get("c4_lines") {
            let kept = c4.kept_lines(&features).map(|kept| kept.lines.len().to_string());
            comparison.check(document, "c4_lines", kept.unwrap_or_default(), lines.to_string());
        }
    }
    comparison.finish(&[]);
}

/// Compares drops alone: the other tools name all violated rules, ours names the first.
fn compare_mode(peer: &str, mode: &str, explained: &[(&str, &str, &str)]) {
    let settings = format!("mode = \"{mode}\"");
    let filters = [
        ("gopher_quality", build::<GopherQuality>(&settings)),
        ("gopher_repetition", build::<GopherRepetition>(&settings)),
    ];
    let mut comparison = Comparison::new();
    for (document, line) in &documents(peer) {
        for (column, filter) in &filters {
            let violated = line[column].as_array().expect("a list of rules");
            let drops = filter.judge(&Features::new(document)) != Verdict::Keep;
            let theirs = format!("{} {violated:?}", !violated.is_empty());
            let ours = format!("{drops} {violated:?}");
            comparison.check(document, column, ours, theirs);
        }
    }
    comparison.finish(explained);
}

#[test]
fn dolma_verdicts_are_reproduced() {
    compare_mode("dolma.jsonl", "dolma", &[]);
}

#[test]
fn datamap_verdicts_are_reproduced() {
    let tie = "several 2-grams are equally frequent and long; datamap takes the last one of its hash table, ours the last of the text";
    compare_mode("datamap.jsonl", "datamap", &[("random-659", "gopher_repetition", tie)]);
}

#[test]
fn redpajama_verdicts_are_reproduced() {
    compare_mode("redpajama.jsonl", "redpajama", &[]);
}
