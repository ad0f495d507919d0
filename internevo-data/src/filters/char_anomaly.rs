//! Separation, line breaks, characters and punctuation that look wrong: the heuristics that the InternLM2 report names for web pages
//! ("separation and line break anomalies, abnormal character frequency, and distribution of punctuation marks", section 3.1.1).
//! The report gives no numbers; the thresholds here are wide, meant for what no reader would call text.
//!
//! | heuristic | rules |
//! |---|---|
//! | separation | runs of one mark, characters that stand alone between spaces, long stretches without any space |
//! | line breaks | line ends per character |
//! | character frequency | the most frequent letter, entropy of letters, digits, undecodable characters |
//! | punctuation | too much, too little, too much of one mark; full-width marks count as the others |

use std::collections::HashMap;

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    dedup::is_unspaced,
    features::{Features, is_punctuation},
    filter::{Filter, Measure, Verdict},
};

/// Texts with fewer visible characters are not judged: shares of so few mean nothing.
const MIN_CHARS: usize = 100;

/// A run of one mark this long separates parts of a page.
const SEPARATOR_RUN: usize = 8;

/// A stretch of this many characters without a space is no word, except in scripts without spaces.
const GLUED_STRETCH: usize = 100;

/// Thresholds of [`CharAnomaly`]. Shares are of the visible characters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CharAnomalyConfig {
    /// Most line ends per visible character. One word a line is about 0.2 in English.
    pub max_line_ends: f64,
    /// Largest share of characters in runs of eight or more equal marks (`--------`).
    pub max_separators: f64,
    /// Largest share of letters and digits that stand alone between spaces (`l i k e`, `这 样`). English has about 0.01.
    pub max_lone_characters: f64,
    /// Largest share of characters in stretches of 100 and more without a space, in scripts with spaces.
    pub max_glued: f64,
    /// Largest share of any one letter or digit. `e` has about 0.13 in English.
    pub max_one_character: f64,
    /// Smallest entropy of letters and digits, bits. English has about 4.2, Chinese more than 6.
    pub min_entropy: f64,
    /// Largest share of digits.
    pub max_digits: f64,
    /// Largest share of replacement, private-use and control characters.
    pub max_undecodable: f64,
    /// Largest share of punctuation.
    pub max_punctuation: f64,
    /// Largest share of any one mark.
    pub max_one_mark: f64,
    /// Smallest share of punctuation.
    pub min_punctuation: f64,
}

impl Default for CharAnomalyConfig {
    fn default() -> Self {
        Self {
            max_line_ends: 0.2,
            max_separators: 0.2,
            max_lone_characters: 0.25,
            max_glued: 0.5,
            max_one_character: 0.25,
            min_entropy: 2.5,
            max_digits: 0.5,
            max_undecodable: 0.005,
            max_punctuation: 0.4,
            max_one_mark: 0.25,
            min_punctuation: 0.002,
        }
    }
}

/// The filter `char_anomaly`. Source code is kept untouched.
pub struct CharAnomaly {
    config: CharAnomalyConfig,
}

impl Plugin for CharAnomaly {
    const NAME: &'static str = "char_anomaly";
    const ABOUT: &'static str =
        "Abnormal separation, line breaks, character frequencies and punctuation (InternLM2 report, 3.1.1).";
    type Config = CharAnomalyConfig;
}

crate::register_filter!(CharAnomaly { config });

impl Filter for CharAnomaly {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        if document.is_code() {
            return Vec::new();
        }
        let counts = Counts::of(document.text());
        if counts.visible < MIN_CHARS { Vec::new() } else { self.config.rules(&counts) }
    }
}

impl CharAnomalyConfig {
    fn rules(&self, counts: &Counts) -> Vec<Measure> {
        let share = |count: usize| count as f64 / counts.visible as f64;
        vec![
            Measure::at_most("anomaly_line_ends", share(counts.line_ends), self.max_line_ends),
            Measure::at_most("anomaly_separators", share(counts.separators), self.max_separators),
            Measure::at_most("anomaly_lone_characters", share(counts.lone), self.max_lone_characters),
            Measure::at_most("anomaly_glued", share(counts.glued), self.max_glued),
            Measure::at_most("anomaly_one_character", share(counts.letters.most_frequent()), self.max_one_character),
            Measure::at_most("anomaly_digits", share(counts.digits), self.max_digits),
            Measure::at_most("anomaly_undecodable", share(counts.undecodable), self.max_undecodable),
            Measure::at_most("anomaly_much_punctuation", share(counts.punctuation), self.max_punctuation),
            Measure::at_most("anomaly_one_mark", share(counts.marks.most_frequent()), self.max_one_mark),
            Measure::at_least("anomaly_low_entropy", counts.letters.entropy(), self.min_entropy),
            Measure::at_least("anomaly_little_punctuation", share(counts.punctuation), self.min_punctuation),
        ]
    }
}

/// How often each of some characters occurs.
#[derive(Debug)]
struct Frequencies {
    ascii: [usize; 128],
    others: HashMap<char, usize>,
}

impl Default for Frequencies {
    fn default() -> Self {
        Self { ascii: [0; 128], others: HashMap::new() }
    }
}

impl Frequencies {
    fn add(&mut self, c: char) {
        match self.ascii.get_mut(c as usize) {
            Some(count) => *count += 1,
            None => *self.others.entry(c).or_default() += 1,
        }
    }

    fn counts(&self) -> impl Iterator<Item = usize> {
        self.ascii.iter().chain(self.others.values()).copied().filter(|count| *count > 0)
    }

    fn most_frequent(&self) -> usize {
        self.counts().max().unwrap_or(0)
    }

    /// In bits. Counts are sorted first, so that the sum has the same bits in every run.
    fn entropy(&self) -> f64 {
        let mut counts: Vec<usize> = self.counts().collect();
        counts.sort_unstable();
        let all = counts.iter().sum::<usize>() as f64;
        counts.iter().map(|count| *count as f64 / all).map(|share| -share * share.log2()).sum()
    }
}

/// Characters by kind.
#[derive(Debug, Default)]
struct Counts {
    visible: usize,
    line_ends: usize,
    separators: usize,
    lone: usize,
    glued: usize,
    digits: usize,
    undecodable: usize,
    punctuation: usize,
    /// Letters and digits.
    letters: Frequencies,
    /// Punctuation.
    marks: Frequencies,
}

/// Visible characters since the last white space.
#[derive(Default)]
struct Stretch {
    chars: usize,
    has_letter: bool,
    has_unspaced: bool,
}

impl Counts {
    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        let mut stretch = Stretch::default();
        let (mut last, mut run) = ('\0', 0);
        for c in text.chars() {
            run = if c == last { run + 1 } else { 1 };
            last = c;
            if c.is_whitespace() {
                counts.line_ends += usize::from(c == '\n');
                counts.end(&std::mem::take(&mut stretch));
                continue;
            }
            stretch.chars += 1;
            stretch.has_unspaced |= !c.is_ascii() && is_unspaced(c);
            if c.is_alphanumeric() {
                stretch.has_letter = true;
                counts.digits += usize::from(c.is_numeric());
                counts.letters.add(c);
            } else {
                counts.add_mark(c, run);
            }
        }
        counts.end(&stretch);
        counts
    }

    fn add_mark(&mut self, c: char, run: usize) {
        self.undecodable += usize::from(is_undecodable(c));
        if is_punctuation(c) {
            self.punctuation += 1;
            self.marks.add(c);
        }
        self.separators += match run {
            SEPARATOR_RUN => SEPARATOR_RUN,
            _ => usize::from(run > SEPARATOR_RUN),
        };
    }

    fn end(&mut self, stretch: &Stretch) {
        self.visible += stretch.chars;
        self.lone += usize::from(stretch.chars == 1 && stretch.has_letter);
        if stretch.chars >= GLUED_STRETCH && !stretch.has_unspaced && stretch.has_letter {
            self.glued += stretch.chars;
        }
    }
}

fn is_undecodable(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xFFFD | 0xE000..=0xF8FF | 0xF0000..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_drops, assert_keeps};

    const SENTENCE: &str = "A paragraph of plain text, with some words and a full stop at the end. ";
    const CHINESE: &str =
        "所有权是这门语言最独特的特性，它让程序无需垃圾回收器即可保证内存安全。因此理解所有权如何工作十分重要！";

    #[test]
    fn each_kind_of_anomaly_is_found_and_measured() {
        let drops = assert_drops::<CharAnomaly>;
        assert_keeps::<CharAnomaly>("", &SENTENCE.repeat(4));
        assert_eq!(drops("", &"ab, \n".repeat(50), "anomaly_line_ends"), 1.0 / 3.0);
        let separated = format!("{}{}", "word, ".repeat(20), "=".repeat(60));
        assert_eq!(drops("", &separated, "anomaly_separators"), 60.0 / 160.0);
        assert_eq!(drops("", &"l i k e this, ".repeat(15), "anomaly_lone_characters"), 4.0 / 9.0);
        let glued = format!("{}{}", SENTENCE.repeat(2), "aGVsbG8gd29ybGQ=".repeat(20));
        assert_eq!(drops("", &glued, "anomaly_glued"), 320.0 / 432.0);
        assert_eq!(drops("", &"0000.5, ".repeat(30), "anomaly_one_character"), 4.0 / 7.0);
        assert_eq!(drops("", &"1234567 8901, x ".repeat(12), "anomaly_digits"), 11.0 / 13.0);
        assert_eq!(drops("", &"abcdef,\u{fffd} ".repeat(30), "anomaly_undecodable"), 1.0 / 8.0);
        assert_eq!(drops("", &"abcdef;,?!: ".repeat(30), "anomaly_much_punctuation"), 5.0 / 11.0);
        assert_eq!(drops("", &"abcdef,,,x ".repeat(30), "anomaly_one_mark"), 0.3);
        assert_eq!(drops("", &"abba dcd, ".repeat(30), "anomaly_low_entropy"), {
            let share = |part: f64| -part * part.log2();
            2.0 * share(2.0 / 7.0) + share(1.0 / 7.0) + share(2.0 / 7.0)
        });
        assert_eq!(drops("", &"words without any mark ".repeat(9), "anomaly_little_punctuation"), 0.0);
    }

    #[test]
    fn chinese_is_judged_with_its_own_marks_and_without_spaces() {
        let text = CHINESE.repeat(3);
        assert_keeps::<CharAnomaly>("", &text);
        let spaced: String = text.chars().flat_map(|c| [c, ' ']).collect();
        assert_eq!(assert_drops::<CharAnomaly>("", &spaced, "anomaly_lone_characters"), 48.0 / 51.0);
        let unmarked = text.replace(['，', '。', '！'], "");
        assert_eq!(assert_drops::<CharAnomaly>("", &unmarked, "anomaly_little_punctuation"), 0.0);
    }
}
