//! `fasttext`: keeps documents by the probability of a label of a fastText model.

use std::{collections::BTreeMap, path::Path};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FastText;
use crate::{Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

/// Settings of `fasttext`: rules by name, asked in the order of their names. Rule `x` drops for the reason `fasttext_x`.
///
/// ```toml
/// [pipeline.filter.fasttext.hq]
/// model = "models/openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin"
/// label = "__label__hq"
/// min = 0.018112
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FastTextConfig(pub BTreeMap<String, FastTextRule>);

/// One model, one label, and the probabilities that keep a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FastTextRule {
    /// A `.bin` or `.ftz` file.
    pub model: String,
    /// The label, with or without `__label__`.
    pub label: String,
    /// Drop documents whose probability of the label is lower. fastText's probabilities carry a constant of 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Drop documents whose probability of the label is higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Only documents of this language are judged; all when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lang: String,
}

/// The filter. Source code is judged like prose: leave it to the model's language, or to a strategy.
pub struct FastTextFilter {
    rules: Vec<Rule>,
    /// Language of all documents where the user names one.
    lang: Option<String>,
}

struct Rule {
    reason: String,
    model: FastText,
    label: usize,
    settings: FastTextRule,
}

impl Rule {
    fn new(name: &str, settings: FastTextRule) -> Result<Self, String> {
        let named = |reason: &str| format!("`{name}`: {reason}");
        let is_snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(is_snake) {
            return Err(named("names of rules are in snake_case, as reasons are"));
        }
        if settings.min.is_none() && settings.max.is_none() {
            return Err(named("set `min` or `max`, else the rule drops nothing"));
        }
        let model = FastText::load(Path::new(&settings.model)).map_err(|error| named(&error.to_string()))?;
        let label = model.label(&settings.label).ok_or_else(|| {
            let known: Vec<&str> = model.labels().iter().take(20).map(|label| label.name.as_str()).collect();
            named(&format!("the model has no label `{}`; it has {}", settings.label, known.join(", ")))
        })?;
        Ok(Self { reason: format!("fasttext_{name}"), model, label, settings })
    }

    /// The probability of the label with its limits; nothing where the rule does not apply or the model knows nothing of the text.
    fn measure(&self, document: &Features<'_>, lang: Option<&str>) -> Vec<Measure> {
        let asked = &self.settings.lang;
        let applies = asked.is_empty() || lang.or(document.lang()) == Some(asked);
        let scores = applies.then(|| self.model.scores(document.text())).flatten();
        let Some(score) = scores.map(|scores| f64::from(scores[self.label])) else { return Vec::new() };
        let min = self.settings.min.map(|min| Measure::at_least(self.reason.clone(), score, min));
        let max = self.settings.max.map(|max| Measure::at_most(self.reason.clone(), score, max));
        min.into_iter().chain(max).collect()
    }
}

impl Plugin for FastTextFilter {
    const NAME: &'static str = "fasttext";
    const ABOUT: &'static str = "Keeps documents by the probability of a label of a fastText model (.bin, .ftz).";
    type Config = FastTextConfig;
}

impl FilterPlugin for FastTextFilter {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let refused = |reason: String| PluginError::Build { plugin: Self::NAME, reason };
        if config.0.is_empty() {
            let key = "pipeline.filter.fasttext.NAME";
            return Err(refused(format!("there is no model: set `model`, `label` and `min` or `max` in [{key}]")));
        }
        let rules = config.0.into_iter().map(|(name, settings)| Rule::new(&name, settings));
        let rules = rules.collect::<Result<_, _>>().map_err(refused)?;
        Ok(Box::new(Self { rules, lang: cx.lang.map(str::to_owned) }))
    }
}

register_filter!(FastTextFilter);

impl Filter for FastTextFilter {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.rules.iter().flat_map(|rule| rule.measure(document, self.lang.as_deref())))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.rules.iter().flat_map(|rule| rule.measure(document, self.lang.as_deref())).collect()
    }

    fn fingerprint(&self) -> String {
        self.rules.iter().map(|rule| rule.model.fingerprint()).collect::<Vec<_>>().join("+")
    }
}
