//! Rules for source code (Li et al. 2023, "StarCoder", section 3.1; bigcode-dataset's basic filters).

use internevo_core::plugin::Plugin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::Features,
    filter::{Filter, Measure, Verdict},
    format::code_body,
};

/// Where an XML file that pretends to be something else says what it is.
const XML_DECLARATION: &str = "<?xml version=";
const XML_SEARCH_CHARS: usize = 100;

/// Thresholds of [`CodeQuality`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CodeQualityConfig {
    /// Longest line, characters.
    pub max_line: usize,
    /// Largest mean length of lines, characters.
    pub max_mean_line: f64,
    /// Smallest share of letters and digits among all characters.
    pub min_alphanumeric: f64,
}

impl Default for CodeQualityConfig {
    fn default() -> Self {
        Self { max_line: 1000, max_mean_line: 100.0, min_alphanumeric: 0.25 }
    }
}

/// The filter `code_quality`. Prose is kept untouched.
pub struct CodeQuality {
    config: CodeQualityConfig,
}

impl Plugin for CodeQuality {
    const NAME: &'static str = "code_quality";
    const ABOUT: &'static str =
        "StarCoder's rules for source code: length of lines, share of letters and digits, no XML.";
    type Config = CodeQualityConfig;
}

crate::register_filter!(CodeQuality { config });

impl Filter for CodeQuality {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        let (code, rules) = self.rules(document);
        let head = code.char_indices().nth(XML_SEARCH_CHARS).map_or(code, |(at, _)| &code[..at]);
        match (Measure::verdict(rules), head.find(XML_DECLARATION)) {
            (Verdict::Keep, Some(at)) => Verdict::drop("code_xml", at as f64),
            (verdict, _) => verdict,
        }
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.rules(document).1
    }
}

impl CodeQuality {
    /// The code (nothing where the text is none) and what is measured in it.
    fn rules<'d>(&self, document: &'d Features<'_>) -> (&'d str, Vec<Measure>) {
        if !document.is_code() {
            return ("", Vec::new());
        }
        let code = code_body(document.text());
        let (mut lines, mut longest, mut chars, mut alphanumeric) = (0usize, 0, 0usize, 0usize);
        for line in code.lines() {
            let length = line.chars().count();
            lines += 1;
            longest = longest.max(length);
            chars += length;
            alphanumeric += line.chars().filter(|c| c.is_alphanumeric()).count();
        }
        if chars == 0 {
            return (code, vec![Measure::at_least("code_empty", 0.0, 1.0)]);
        }
        // Line ends count as characters, as in the original.
        let share = alphanumeric as f64 / code.chars().count() as f64;
        let rules = vec![
            Measure::at_most("code_long_line", longest as f64, self.config.max_line as f64),
            Measure::at_most("code_long_lines", chars as f64 / lines as f64, self.config.max_mean_line),
            Measure::at_least("code_few_alphanumerics", share, self.config.min_alphanumeric),
        ];
        (code, rules)
    }
}
