//! For authors of filters: one line per expectation.
//!
//! ```
//! use internevo_data::{filters::GopherQuality, testing};
//! testing::assert_drops::<GopherQuality>("", "too short", "gopher_short_document");
//! testing::assert_keeps::<GopherQuality>("min_words = 2\nmin_stop_words = 0", "long enough");
//! ```

use crate::{
    document::Document,
    features::Features,
    filter::{Filter, FilterContext, FilterPlugin, Verdict},
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

/// Asserts that `P` keeps `text`.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_keeps<P: FilterPlugin>(settings: &str, text: &str) {
    let verdict = judge::<P>(settings, text);
    assert!(verdict == Verdict::Keep, "`{}` was to keep the text, but said {verdict:?}", P::NAME);
}
