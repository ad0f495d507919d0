//! FineWeb's own rules (Penedo et al. 2024, section 3.6), as in datatrove: lines that end well, short lines, repeated lines, lists.
//! For other languages than English, FineWeb-2's thresholds (Penedo et al. 2025).

use std::collections::BTreeMap;

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LanguageTable, language};
use crate::{
    features::{
        Blocks, Features, Split,
        classes::{Class, Classes},
        newline_split,
    },
    filter::{Filter, Measure, Verdict},
};

/// FineWeb-2 tolerates more repeated lines in every language.
const FINEWEB2_DUPLICATE_LINE_CHARS: f64 = 0.1;

/// Thresholds of [`FineWeb`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FineWebConfig {
    /// Smallest share of lines that end with a terminal mark of any script.
    pub min_terminal_lines: f64,
    /// Lines of at most so many characters are short.
    pub short_line: usize,
    /// Largest share of short lines.
    pub max_short_lines: f64,
    /// Largest share of characters in lines that repeat an earlier one.
    pub max_duplicate_line_chars: f64,
    /// Most line ends per word.
    pub max_line_ends: f64,
    /// What differs by language (ISO 639-1 code). A language that is not listed here has the thresholds of FineWeb-2, which does
    /// not ask for short lines.
    pub languages: BTreeMap<String, LanguageFineWeb>,
}

/// Thresholds of one language; what is unset is as in FineWeb-2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LanguageFineWeb {
    /// Smallest share of lines that end with a terminal mark of any script.
    pub min_terminal_lines: Option<f64>,
    /// Largest share of short lines.
    pub max_short_lines: Option<f64>,
    /// Largest share of characters in lines that repeat an earlier one.
    pub max_duplicate_line_chars: Option<f64>,
    /// Most line ends per word.
    pub max_line_ends: Option<f64>,
}

impl Default for FineWebConfig {
    fn default() -> Self {
        Self {
            min_terminal_lines: 0.12,
            short_line: 30,
            max_short_lines: 0.67,
            max_duplicate_line_chars: 0.01,
            max_line_ends: 0.3,
            languages: BTreeMap::new(),
        }
    }
}

/// The filter `fineweb`. Source code is kept untouched.
pub struct FineWeb {
    config: FineWebConfig,
    lang: Option<String>,
}

/// The thresholds of one language.
#[derive(Clone, Copy, Debug)]
struct Limits {
    terminal: f64,
    short: f64,
    duplicate: f64,
    line_ends: f64,
}

impl Plugin for FineWeb {
    const NAME: &'static str = "fineweb";
    const ABOUT: &'static str =
        "FineWeb's rules: lines that end well, short lines, repeated lines, lists; FineWeb-2's by language.";
    type Config = FineWebConfig;
}

crate::register_filter!(FineWeb { config, lang });

impl Filter for FineWeb {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.rules(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.rules(document).collect()
    }
}

impl FineWeb {
    /// The rules in datatrove's order; each is measured when it is asked for. A text without lines breaks a rule of its own.
    fn rules(&self, document: &Features<'_>) -> impl Iterator<Item = Measure> {
        let lang = language(self.lang.as_deref(), document);
        let limits = self.limits(lang);
        let lines = if document.is_code() { Lines::default() } else { Lines::of(document, self.config.short_line) };
        let rules = match lines.count {
            _ if document.is_code() => 0..0,
            0 => 0..1,
            _ => 1..5,
        };
        let share = move |part: usize| part as f64 / lines.count as f64;
        let split = Split::of(lang);
        rules.map(move |rule| match rule {
            0 => Measure::at_least("fineweb_empty", 0.0, 1.0),
            1 => Measure::at_least("fineweb_few_terminal_lines", share(lines.terminal), limits.terminal),
            2 => Measure::at_most("fineweb_short_lines", share(lines.short), limits.short),
            3 => {
                let full = newline_split(document.text()).filter(|line| !is_blank(line));
                let repeated = Blocks::count(full, |line| line.chars().count()).duplicate_length;
                let share = repeated as f64 / (document.chars() - lines.ends) as f64;
                Measure::at_most("fineweb_duplicate_lines", share, limits.duplicate)
            }
            _ => {
                let line_ends = lines.ends as f64 / document.words_by(split).len() as f64;
                Measure::at_most("fineweb_list", line_ends, limits.line_ends)
            }
        })
    }

    fn limits(&self, lang: Option<&str>) -> Limits {
        let config = &self.config;
        let english = Limits {
            terminal: config.min_terminal_lines,
            short: config.max_short_lines,
            duplicate: config.max_duplicate_line_chars,
            line_ends: config.max_line_ends,
        };
        let Some(lang) = lang else { return english };
        let base = LanguageTable::of(lang).map_or(english, |table| Limits {
            terminal: table.min_terminal_lines,
            short: f64::INFINITY,
            duplicate: FINEWEB2_DUPLICATE_LINE_CHARS,
            line_ends: table.max_line_ends,
        });
        let Some(own) = config.languages.get(lang) else { return base };
        Limits {
            terminal: own.min_terminal_lines.unwrap_or(base.terminal),
            short: own.max_short_lines.unwrap_or(base.short),
            duplicate: own.max_duplicate_line_chars.unwrap_or(base.duplicate),
            line_ends: own.max_line_ends.unwrap_or(base.line_ends),
        }
    }
}

/// Lines that are not blank, by kind.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    count: usize,
    terminal: usize,
    short: usize,
    /// Line ends of the text.
    ends: usize,
}

impl Lines {
    fn of(document: &Features<'_>, short_line: usize) -> Self {
        let (classes, text) = (Classes::get(), document.text());
        let is_ascii = document.chars() == text.len();
        let mut lines = Self { ends: memchr::memchr_iter(b'\n', text.as_bytes()).count(), ..Self::default() };
        for line in newline_split(text).filter(|line| !is_blank(line)) {
            lines.count += 1;
            lines.terminal += usize::from(line.ends_with(|c| classes.of(c).has(Class::TERMINAL)));
            // A character has one byte at least and four at most.
            let may_be_short = !is_ascii && line.len() <= 4 * short_line;
            let is_short = line.len() <= short_line || may_be_short && line.chars().count() <= short_line;
            lines.short += usize::from(is_short);
        }
        lines
    }
}

fn is_blank(line: &str) -> bool {
    line.chars().all(|c| Classes::get().of(c).has(Class::SPACE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Document,
        testing::{assert_drops, assert_keeps, judge_document},
    };

    fn lines(count: usize) -> String {
        (0..count).map(|i| format!("This is line {i} of a text, long enough to be no list.\n")).collect()
    }

    #[test]
    fn each_rule_measures_what_can_be_counted_by_hand() {
        let drops = assert_drops::<FineWeb>;
        assert_keeps::<FineWeb>("", &lines(10));
        assert_eq!(drops("", "\n \n", "fineweb_empty"), 0.0);
        assert_eq!(drops("", &lines(10).replace('.', ","), "fineweb_few_terminal_lines"), 0.0);
        // A mark before white space does not end the line.
        assert_eq!(drops("", &lines(10).replace(".\n", ". \n"), "fineweb_few_terminal_lines"), 0.0);
        assert_eq!(drops("", &format!("{}{}", lines(1), "Short line.\n".repeat(3)), "fineweb_short_lines"), 0.75);
        let line = lines(1);
        let repeated = drops("", &line.repeat(4), "fineweb_duplicate_lines");
        assert_eq!(repeated, 0.75);
        assert_eq!(drops("max_line_ends = 0.05", &lines(10), "fineweb_list"), 10.0 / 150.0);
    }

    #[test]
    fn languages_have_fineweb_2s_thresholds_and_may_be_given_own_ones() {
        let mut document = Document::new("a", "所有权是这门语言最独特的特性。\n它保证内存安全而这一行没有标点");
        assert_eq!(judge_document::<FineWeb>("", &document), Verdict::drop("fineweb_short_lines", 1.0));
        document.meta.insert("lang".into(), "zh".into());
        assert_eq!(judge_document::<FineWeb>("", &document), Verdict::Keep);
        let own = "[languages.zh]\nmin_terminal_lines = 0.9";
        assert_eq!(judge_document::<FineWeb>(own, &document), Verdict::drop("fineweb_few_terminal_lines", 0.5));
    }
}
