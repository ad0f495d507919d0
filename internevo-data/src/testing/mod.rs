//! For authors of plugins: one line per expectation, and what a plugin of each kind owes whoever runs it.
//!
//! ```
//! use internevo_data::{assert_extractor, assert_filter, filters::GopherQuality, format::MainContent, testing};
//!
//! assert_filter!(GopherQuality, "", drops "too short" => "gopher_short_document");
//! testing::assert_keeps::<GopherQuality>("min_words = 2\nmin_stop_words = 0", "long enough");
//! assert_extractor!(MainContent, "", "<nav>Menu</nav><main><h1>Ada</h1><p>A <b>text</b>.</main>" => "# Ada\n\nA text.\n");
//! ```

mod filter;
mod parts;

use internevo_core::plugin::{Plugin, parse_config};

pub use self::{
    filter::{assert_drops, assert_edits, assert_keeps, assert_sound, build, judge, judge_document},
    parts::{
        assert_sound_classifier, assert_sound_extractor, assert_sound_tokenizer, build_classifier, build_extractor,
        build_tokenizer, most_probable,
    },
};

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

/// The settings of plugin `P`, from TOML.
fn parsed<P: Plugin>(settings: &str) -> P::Config {
    let table: toml::Table = toml::from_str(settings).expect("the settings are TOML");
    parse_config::<P>(&table).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts that the default settings of `P` survive being written as TOML, which is how they are listed.
#[track_caller]
fn assert_defaults<P: Plugin>() {
    let defaults = toml::Table::try_from(P::Config::default()).expect("the default settings are a TOML table");
    parse_config::<P>(&defaults).unwrap_or_else(|error| panic!("default settings: {error}"));
}
