//! `classifier`: keeps documents by the probabilities that classifiers of any kind give to any labels.

use std::{collections::BTreeMap, path::PathBuf};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::plugin::{Classifier, ClassifierContext, is_asked, load};
use crate::{Bound, Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

/// Settings of `classifier`: models by a name, asked in the order of their names, with limits for their labels. Label `y` of model `x`
/// drops for the reason `classifier_x_y`.
///
/// ```toml
/// [pipeline.filter.classifier.dclm]
/// classifier = "fasttext"
/// model = "models/openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin"
/// min.hq = 0.018112
///
/// [pipeline.filter.classifier.toxic]
/// classifier = "onnx"
/// model = "models/toxic-bert.onnx"
/// settings = { labels = ["toxic", "threat"], activation = "sigmoid" }
/// max = { toxic = 0.9, threat = 0.5 }
/// languages = ["en"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ClassifierFilterConfig(pub BTreeMap<String, ClassifierRule>);

/// One model and the probabilities that keep a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierRule {
    /// Which classifier is asked: `linear`, `fasttext`, `onnx` (feature), or one of another crate.
    #[serde(default = "linear")]
    pub classifier: String,
    /// File of its model. Empty: the rule's name with `.classifier`, in the folder of models.
    #[serde(default)]
    pub model: String,
    /// The classifier's own settings.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
    /// By label: documents with a lower probability go.
    #[serde(default)]
    pub min: BTreeMap<String, f64>,
    /// By label: documents with a higher probability go.
    #[serde(default)]
    pub max: BTreeMap<String, f64>,
    /// Languages that are judged (`lang`); empty: all.
    #[serde(default)]
    pub languages: Vec<String>,
}

fn linear() -> String {
    "linear".into()
}

/// The filter. Source code is judged like prose: leave it out by language, or by a strategy.
pub struct ClassifierFilter {
    rules: Vec<Rule>,
    /// Language of all documents where the user names one.
    lang: Option<String>,
}

struct Rule {
    classifier: Box<dyn Classifier>,
    limits: Vec<Limit>,
    languages: Vec<String>,
}

/// What is allowed of a label.
struct Limit {
    reason: String,
    label: usize,
    bound: Bound,
}

impl Rule {
    fn new(name: &str, settings: ClassifierRule, cx: &FilterContext<'_>) -> Result<Self, String> {
        if name.is_empty() || snake(name) != name {
            return Err("names of rules are in snake_case, as reasons are".into());
        }
        if settings.min.is_empty() && settings.max.is_empty() {
            return Err("set `min` or `max` of a label, else the rule drops nothing".into());
        }
        let path = match settings.model.as_str() {
            "" => cx.artifacts.join(format!("{name}.classifier")),
            named => PathBuf::from(named),
        };
        let classifier = load(&settings.classifier, &settings.settings, &ClassifierContext { model: &path })
            .map_err(|error| error.to_string())?;
        let min = settings.min.iter().map(|(label, least)| (label, Bound::Min(*least)));
        let bounds = min.chain(settings.max.iter().map(|(label, most)| (label, Bound::Max(*most))));
        let limits = bounds.map(|(label, bound)| Limit::new(name, label, bound, &*classifier));
        Ok(Self { limits: limits.collect::<Result<_, _>>()?, classifier, languages: settings.languages })
    }

    /// What the limits say; nothing where the rule does not apply or the model knows nothing of the text.
    fn measure(&self, document: &Features<'_>, lang: Option<&str>) -> Vec<Measure> {
        let is_judged = is_asked(&self.languages, lang, document);
        let probabilities = is_judged.then(|| self.classifier.probabilities(document.text())).flatten();
        probabilities.map_or_else(Vec::new, |all| self.limits.iter().map(|limit| limit.of(&all)).collect())
    }
}

impl Limit {
    fn new(rule: &str, label: &str, bound: Bound, classifier: &dyn Classifier) -> Result<Self, String> {
        /// Labels that a message names.
        const SHOWN: usize = 20;
        let Some(place) = classifier.label(label) else {
            let known: Vec<&str> = classifier.labels().into_iter().take(SHOWN).collect();
            return Err(format!("the model has no label `{label}`; it has {}", known.join(", ")));
        };
        let label = match snake(classifier.labels()[place]) {
            unspellable if unspellable.is_empty() => format!("label_{place}"),
            label => label,
        };
        Ok(Self { reason: format!("classifier_{rule}_{label}"), label: place, bound })
    }

    fn of(&self, probabilities: &[f64]) -> Measure {
        Measure { reason: self.reason.clone().into(), value: probabilities[self.label], bound: self.bound }
    }
}

/// A name as reasons are spelled: lower-case ASCII letters, digits, single underscores between them.
fn snake(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

impl Plugin for ClassifierFilter {
    const NAME: &'static str = "classifier";
    const ABOUT: &'static str =
        "Keeps documents by the probabilities of labels under classifiers: linear, fastText, ONNX or of another crate.";
    type Config = ClassifierFilterConfig;
}

impl FilterPlugin for ClassifierFilter {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        if config.0.is_empty() {
            let key = "pipeline.filter.classifier.NAME";
            return Err(Self::refused(format!("there is no model: set `model` and `min` or `max` in [{key}]")));
        }
        let rules = config.0.into_iter().map(|(name, settings)| {
            Rule::new(&name, settings, cx).map_err(|reason| Self::refused(format!("`{name}`: {reason}")))
        });
        Ok(Box::new(Self { rules: rules.collect::<Result<_, _>>()?, lang: cx.lang.map(str::to_owned) }))
    }
}

register_filter!(ClassifierFilter);

impl Filter for ClassifierFilter {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.rules.iter().flat_map(|rule| rule.measure(document, self.lang.as_deref())))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        self.rules.iter().flat_map(|rule| rule.measure(document, self.lang.as_deref())).collect()
    }

    fn fingerprint(&self) -> String {
        self.rules.iter().map(|rule| rule.classifier.fingerprint()).collect::<Vec<_>>().join("+")
    }

    fn failure(&self) -> Option<String> {
        self.rules.iter().find_map(|rule| rule.classifier.failure())
    }
}
