//! For authors of filters: one line per expectation.
//!
//! ```
//! use internevo_data::{filters::GopherQuality, testing};
//! testing::assert_drops::<GopherQuality>("", "too short", "gopher_short_document");
//! testing::assert_keeps::<GopherQuality>("min_words = 2\nmin_stop_words = 0", "long enough");
//! testing::assert_sound::<GopherQuality>("mode = 'dolma'");
//! ```

use crate::{
    document::Document,
    features::Features,
    filter::{Filter, FilterContext, FilterPlugin, Measure, Verdict},
};

/// Builds filter `P` from its TOML settings; its folder of models does not exist.
///
/// # Panics
/// If the settings are no TOML, or `P` refuses them.
pub fn build<P: FilterPlugin>(settings: &str) -> Box<dyn Filter> {
    let table: toml::Table = toml::from_str(settings).expect("the settings are TOML");
    let context = FilterContext { lang: None, artifacts: std::path::Path::new("no-artifacts") };
    let config = internevo_core::plugin::parse_config::<P>(&table).unwrap_or_else(|error| panic!("{error}"));
    P::build(config, &context).unwrap_or_else(|error| panic!("{error}"))
}

/// What `P` with these settings says about `text`.
pub fn judge<P: FilterPlugin>(settings: &str, text: &str) -> Verdict {
    judge_document::<P>(settings, &Document::new("test", text))
}

/// What `P` with these settings says about `document`.
pub fn judge_document<P: FilterPlugin>(settings: &str, document: &Document) -> Verdict {
    build::<P>(settings).judge(&Features::new(document))
}

/// Asserts that `P` drops `text` for `reason`; returns the value.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_drops<P: FilterPlugin>(settings: &str, text: &str, reason: &str) -> f64 {
    match judge::<P>(settings, text) {
        Verdict::Drop { reason: found, value } if found == reason => value,
        other => panic!("`{}` was to drop the text for `{reason}`, but said {other:?}", P::NAME),
    }
}

/// Asserts that `P` edits `text`; returns the new one.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_edits<P: FilterPlugin>(settings: &str, text: &str) -> String {
    match judge::<P>(settings, text) {
        Verdict::Edit(edit) => edit.text,
        other => panic!("`{}` was to edit the text, but said {other:?}", P::NAME),
    }
}

/// Asserts that `P` keeps `text` as it is.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_keeps<P: FilterPlugin>(settings: &str, text: &str) {
    let verdict = judge::<P>(settings, text);
    assert!(verdict == Verdict::Keep, "`{}` was to keep the text, but said {verdict:?}", P::NAME);
}

/// Texts on which careless filters fail: nothing, no words, no letters, no line end, marks alone, other scripts, control characters.
const AWKWARD: [&str; 16] = [
    "",
    " ",
    "\n\n\n",
    "\u{a0}\u{3000}\u{2028}\u{85}",
    "\0\u{1c}\u{200b}\u{feff}",
    "word",
    "one two",
    "...",
    "……",
    "#",
    "{[(<",
    "1 2 3",
    "e\u{301}\u{301}",
    "所有权。内存安全！",
    "👩‍👩‍👧‍👦 😀",
    "a\r\nb\rc\u{b}d",
];

/// Asserts what every filter owes the stage that runs it: any text in any language is judged without a panic, twice the same way and
/// the same way by another instance; a drop has a reason in snake_case and a value that is a number; an edit changes the text, has
/// such reasons too, and adds up; what the filter measures agrees with its verdict; the default settings survive being written as TOML.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_sound<P: FilterPlugin>(settings: &str) {
    let defaults = toml::Table::try_from(P::Config::default()).expect("the default settings are a TOML table");
    internevo_core::plugin::parse_config::<P>(&defaults).unwrap_or_else(|error| panic!("default settings: {error}"));
    let (filter, other) = (build::<P>(settings), build::<P>(settings));
    let long: Vec<String> = AWKWARD.iter().map(|text| format!("{text} ").repeat(200)).collect();
    for text in AWKWARD.into_iter().chain(long.iter().map(String::as_str)) {
        for lang in ["", "en", "zh", "de", "none", "code:rust"] {
            let mut document = Document::new("test", text);
            document.meta.insert("lang".into(), lang.into());
            let features = Features::new(&document);
            let verdict = filter.judge(&features);
            let again = [filter.judge(&features), other.judge(&Features::new(&document))];
            assert!(again.iter().all(|other| *other == verdict), "{verdict:?}, then {again:?}: {text:?} in {lang:?}");
            assert_well_formed(&verdict, text);
            assert_measured(&filter.measure(&features), &verdict, text);
        }
    }
}

/// A document that stays violates nothing that was measured; one that goes has the value of its rule, where that is measured.
#[track_caller]
fn assert_measured(measures: &[Measure], verdict: &Verdict, text: &str) {
    let Verdict::Drop { reason, value } = verdict else {
        let violated = measures.iter().find(|measure| measure.is_violated());
        return assert!(violated.is_none(), "{verdict:?} in spite of {violated:?}: {text:?}");
    };
    let mut own = measures.iter().filter(|measure| measure.reason == *reason).peekable();
    let is_measured = own.peek().is_none() || own.any(|measure| measure.is_violated() && measure.value == *value);
    assert!(is_measured, "{verdict:?}, measured {measures:?}: {text:?}");
}

#[track_caller]
fn assert_well_formed(verdict: &Verdict, text: &str) {
    let is_snake = |reason: &str| {
        !reason.is_empty() && reason.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    match verdict {
        Verdict::Keep => {}
        Verdict::Drop { reason, value } => {
            assert!(is_snake(reason), "reason {reason:?}: {text:?}");
            assert!(value.is_finite(), "{reason} of {value}: {text:?}");
        }
        Verdict::Edit(edit) => {
            assert!(edit.text != text, "an edit that changes nothing: {text:?}");
            assert!(edit.changes.keys().all(|reason| is_snake(reason)), "reasons of {edit:?}: {text:?}");
            let (removed, added) =
                edit.changes.values().fold((0, 0), |(r, a), c| (r + c.bytes_removed, a + c.bytes_added));
            assert_eq!(text.len() as u64 + added, edit.text.len() as u64 + removed, "bytes of {edit:?}: {text:?}");
        }
    }
}
