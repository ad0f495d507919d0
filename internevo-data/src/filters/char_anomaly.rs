//! Line breaks, characters and punctuation that look wrong: the three heuristics that the InternLM2 report names for web pages
//! ("separation and line break anomalies, abnormal character frequency, and distribution of punctuation marks", section 3.1.1).
//! The report gives no numbers; the thresholds here are wide, meant for what no reader would call text.

use std::collections::HashMap;

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Features, is_punctuation},
    filter::{Filter, FilterContext, FilterPlugin, Verdict},
};

/// Texts with fewer visible characters are not judged: shares of so few mean nothing.
const MIN_CHARS: usize = 100;

/// A run of one mark this long separates parts of a page.
const SEPARATOR_RUN: usize = 8;

/// Thresholds of [`CharAnomaly`]. Shares are of the visible characters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CharAnomalyConfig {
    /// Most line ends per visible character. One word a line is about 0.2 in English.
    pub max_line_ends: f64,
    /// Largest share of characters in runs of eight or more equal marks (`--------`).
    pub max_separators: f64,
    /// Largest share of any one letter or digit. `e` has about 0.13 in English.
    pub max_one_character: f64,
    /// Largest share of replacement, private-use and control characters.
    pub max_undecodable: f64,
    /// Largest share of punctuation.
    pub max_punctuation: f64,
    /// Smallest share of punctuation.
    pub min_punctuation: f64,
}

impl Default for CharAnomalyConfig {
    fn default() -> Self {
        Self {
            max_line_ends: 0.2,
            max_separators: 0.2,
            max_one_character: 0.25,
            max_undecodable: 0.005,
            max_punctuation: 0.4,
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
        "Abnormal line breaks, character frequencies and punctuation (InternLM2 report, 3.1.1).";
    type Config = CharAnomalyConfig;
}

impl FilterPlugin for CharAnomaly {
    fn build(config: CharAnomalyConfig, _: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self { config }))
    }
}

crate::register_filter!(CharAnomaly);

impl Filter for CharAnomaly {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        if document.is_code() {
            return Verdict::Keep;
        }
        let counts = Counts::of(document.text());
        if counts.visible < MIN_CHARS {
            return Verdict::Keep;
        }
        let share = |count: usize| count as f64 / counts.visible as f64;
        let config = &self.config;
        let above = [
            ("anomaly_line_ends", share(counts.line_ends), config.max_line_ends),
            ("anomaly_separators", share(counts.separators), config.max_separators),
            ("anomaly_one_character", share(counts.most_frequent), config.max_one_character),
            ("anomaly_undecodable", share(counts.undecodable), config.max_undecodable),
            ("anomaly_much_punctuation", share(counts.punctuation), config.max_punctuation),
        ];
        if let Some((reason, value, _)) = above.into_iter().find(|(_, value, limit)| value > limit) {
            return Verdict::drop(reason, value);
        }
        let punctuation = share(counts.punctuation);
        if punctuation < config.min_punctuation {
            return Verdict::drop("anomaly_little_punctuation", punctuation);
        }
        Verdict::Keep
    }
}

/// Characters by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    visible: usize,
    line_ends: usize,
    separators: usize,
    most_frequent: usize,
    undecodable: usize,
    punctuation: usize,
}

impl Counts {
    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        let (mut ascii, mut others) = ([0usize; 128], HashMap::<char, usize>::new());
        let (mut last, mut run) = ('\0', 0);
        for c in text.chars() {
            run = if c == last { run + 1 } else { 1 };
            last = c;
            if c == '\n' {
                counts.line_ends += 1;
            }
            if c.is_whitespace() {
                continue;
            }
            counts.visible += 1;
            if c.is_alphanumeric() {
                match ascii.get_mut(c as usize) {
                    Some(count) => *count += 1,
                    None => *others.entry(c).or_default() += 1,
                }
                continue;
            }
            counts.undecodable += usize::from(is_undecodable(c));
            counts.punctuation += usize::from(is_punctuation(c));
            counts.separators += match run {
                SEPARATOR_RUN => SEPARATOR_RUN,
                _ => usize::from(run > SEPARATOR_RUN),
            };
        }
        counts.most_frequent = ascii.into_iter().chain(others.into_values()).max().unwrap_or(0);
        counts
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

    #[test]
    fn each_kind_of_anomaly_is_found_and_measured() {
        assert_keeps::<CharAnomaly>("", &SENTENCE.repeat(4));
        assert_eq!(assert_drops::<CharAnomaly>("", &"ab, \n".repeat(50), "anomaly_line_ends"), 1.0 / 3.0);
        let separated = format!("{}{}", "word, ".repeat(20), "=".repeat(60));
        assert_eq!(assert_drops::<CharAnomaly>("", &separated, "anomaly_separators"), 60.0 / 160.0);
        assert_eq!(assert_drops::<CharAnomaly>("", &"0000.5, ".repeat(30), "anomaly_one_character"), 4.0 / 7.0);
        assert_eq!(assert_drops::<CharAnomaly>("", &"abcdef,\u{fffd} ".repeat(30), "anomaly_undecodable"), 1.0 / 8.0);
        assert_eq!(assert_drops::<CharAnomaly>("", &"abc;,! ".repeat(30), "anomaly_much_punctuation"), 0.5);
        assert_eq!(
            assert_drops::<CharAnomaly>("", &"words without any mark ".repeat(9), "anomaly_little_punctuation"),
            0.0
        );
    }
}
