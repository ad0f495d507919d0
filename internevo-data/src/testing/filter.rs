//! For authors of filters.

use super::{AWKWARD, parsed};
use crate::{
    Document,
    features::Features,
    filter::{Filter, FilterContext, FilterPlugin, Measure, Verdict},
};

/// Builds filter `P` from its TOML settings; its folder of models does not exist.
///
/// # Panics
/// If the settings are no TOML, or `P` refuses them.
pub fn build<P: FilterPlugin>(settings: &str) -> Box<dyn Filter> {
    let context = FilterContext { lang: None, artifacts: std::path::Path::new("no-artifacts") };
    P::build(parsed::<P>(settings), &context).unwrap_or_else(|error| panic!("{error}"))
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

/// Asserts what every filter owes the stage that runs it: any text in any language is judged without a panic, twice the same way, the
/// same way by another instance and among others; a drop has a reason in snake_case and a value that is a number; an edit changes the
/// text, has such reasons too, and adds up; what the filter measures agrees with its verdict; the default settings survive being
/// written as TOML.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_sound<P: FilterPlugin>(settings: &str) {
    super::assert_defaults::<P>();
    let (filter, other) = (build::<P>(settings), build::<P>(settings));
    let long: Vec<String> = AWKWARD.iter().map(|text| format!("{text} ").repeat(200)).collect();
    for text in AWKWARD.into_iter().chain(long.iter().map(String::as_str)) {
        for lang in ["", "en", "zh", "de", "none", "code:rust"] {
            let mut document = Document::new("test", text);
            document.meta.insert("lang".into(), lang.into());
            let features = Features::new(&document);
            let verdict = filter.judge(&features);
            let mut again = filter.judge_all(&[&features, &features]);
            again.push(other.judge(&Features::new(&document)));
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

/// Asserts what a filter with some settings says about texts, and that it is sound ([`assert_sound`](crate::testing::assert_sound)).
///
/// ```
/// use internevo_data::{assert_filter, filters::GopherQuality, safety::PersonalData};
///
/// assert_filter!(GopherQuality, "min_words = 3",
///     drops "too short" => "gopher_short_document",
///     drops "the hashtags that nobody wants are with everybody # # # #" => "gopher_many_hashes",
///     keeps "the end of all that is with us, of the river and of that which remains");
/// assert_filter!(PersonalData, "", edits "mail me@host.org" => "mail <EMAIL>", keeps "no mail");
/// ```
#[macro_export]
macro_rules! assert_filter {
    (@keeps $plugin:ty, $settings:expr, $text:expr) => {
        $crate::testing::assert_keeps::<$plugin>($settings, $text)
    };
    (@drops $plugin:ty, $settings:expr, $text:expr, $reason:expr) => {
        $crate::testing::assert_drops::<$plugin>($settings, $text, $reason)
    };
    (@edits $plugin:ty, $settings:expr, $text:expr, $edited:expr) => {
        assert_eq!($crate::testing::assert_edits::<$plugin>($settings, $text), $edited)
    };
    ($plugin:ty, $settings:expr $(, $does:ident $text:expr $(=> $expected:expr)?)+ $(,)?) => {{
        $crate::testing::assert_sound::<$plugin>($settings);
        $($crate::assert_filter!(@$does $plugin, $settings, $text $(, $expected)?);)+
    }};
}
