//! `toxicity` and `pornography`: filters around a [`TextClassifier`] that was trained on labelled documents of the user's own.
//!
//! No model comes with the program. Train one with [`TextClassifier::train`] and store it as `toxicity.model` or
//! `pornography.model` in the folder of models, or name its file.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refused;
use crate::{
    Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, classifier::TextClassifier, register_filter,
};

/// What a classifier finds.
pub trait Subject: Send + Sync + 'static {
    /// Name of the filter and of its reason, and stem of its model's file.
    const NAME: &'static str;
    /// One sentence.
    const ABOUT: &'static str;
    /// The label that is dropped, unless the settings name another.
    const LABEL: &'static str;
}

/// Insults, threats, hate.
pub struct Toxicity;

impl Subject for Toxicity {
    const NAME: &'static str = "toxicity";
    const ABOUT: &'static str = "Drops documents that a classifier trained on labelled documents finds toxic.";
    const LABEL: &'static str = "toxic";
}

/// Pornographic texts.
pub struct Pornography;

impl Subject for Pornography {
    const NAME: &'static str = "pornography";
    const ABOUT: &'static str = "Drops documents that a classifier trained on labelled documents finds pornographic.";
    const LABEL: &'static str = "porn";
}

/// Settings of `toxicity` and `pornography`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainedConfig {
    /// File of the model. Empty: `toxicity.model` or `pornography.model` in the folder of models.
    pub model: String,
    /// The label to drop. Empty: `toxic` or `porn`.
    pub label: String,
    /// Drop documents for which the label has at least this probability. The model's own table of thresholds says what that costs.
    pub threshold: f64,
    /// Judge documents of these languages only (`lang`). Empty: all.
    pub languages: Vec<String>,
}

impl Default for TrainedConfig {
    fn default() -> Self {
        Self { model: String::new(), label: String::new(), threshold: 0.9, languages: Vec::new() }
    }
}

/// The filter around a model of subject `S`.
pub struct TrainedFilter<S> {
    config: TrainedConfig,
    lang: Option<String>,
    classifier: TextClassifier,
    label: usize,
    fingerprint: String,
    subject: PhantomData<S>,
}

impl<S: Subject> TrainedFilter<S> {
    /// Reads the model.
    ///
    /// # Errors
    /// A model that is missing, damaged, or does not know the label.
    pub fn new(config: TrainedConfig, cx: &FilterContext<'_>) -> Result<Self, PluginError> {
        let path = match &*config.model {
            "" => cx.artifacts.join(format!("{}.model", S::NAME)),
            path => PathBuf::from(path),
        };
        let classifier = load(&path).map_err(|reason| refused(S::NAME, reason))?;
        let wanted = if config.label.is_empty() { S::LABEL } else { &config.label };
        let label = classifier.label(wanted).ok_or_else(|| {
            let labels = classifier.labels();
            refused(S::NAME, format!("{} has the labels {labels:?}, not `{wanted}`", path.display()))
        })?;
        let (lang, fingerprint) = (cx.lang.map(str::to_owned), classifier.fingerprint());
        Ok(Self { config, lang, classifier, label, fingerprint, subject: PhantomData })
    }

    /// Probability of the label; 0 for texts without words and for languages that are not judged.
    pub fn probability(&self, document: &Features<'_>) -> f64 {
        let lang = self.lang.as_deref().or(document.lang()).unwrap_or_default();
        if !self.config.languages.is_empty() && !self.config.languages.iter().any(|own| own == lang) {
            return 0.0;
        }
        self.classifier.probabilities(document.text()).map_or(0.0, |all| all[self.label])
    }
}

fn load(path: &Path) -> Result<TextClassifier, String> {
    if !path.is_file() {
        return Err(format!("there is no model at {}; train one on labelled documents first", path.display()));
    }
    TextClassifier::load(path).map_err(|error| error.to_string())
}

impl<S: Subject> Plugin for TrainedFilter<S> {
    const NAME: &'static str = S::NAME;
    const ABOUT: &'static str = S::ABOUT;
    type Config = TrainedConfig;
}

impl<S: Subject> FilterPlugin for TrainedFilter<S> {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        Ok(Box::new(Self::new(config, cx)?))
    }
}

register_filter!(TrainedFilter<Toxicity>);
register_filter!(TrainedFilter<Pornography>);

impl<S: Subject> Filter for TrainedFilter<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        vec![Measure::below(S::NAME, self.probability(document), self.config.threshold)]
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        Document,
        classifier::{ClassifierSettings, Labelled},
    };

    /// A model that knows `vile` and `awful` from `kind` and `gentle`, stored as `name` in `folder`.
    pub fn store_model(folder: &Path, name: &str) {
        let words = [["vile", "awful"], ["kind", "gentle"]];
        let text =
            |i: usize| format!("a {} word number {i} and a {} one", words[i % 2][i / 2 % 2], words[i % 2][i / 4 % 2]);
        let documents = (0..400).map(|i| Labelled::new(text(i), ["toxic", "fine"][i % 2])).collect();
        let settings = ClassifierSettings { bits: 14, ..ClassifierSettings::default() };
        TextClassifier::train(documents, &settings).expect("trained").save(&folder.join(name)).expect("stored");
    }

    #[test]
    fn a_trained_model_drops_its_label_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let context = FilterContext { lang: Some("en"), artifacts: dir.path() };
        let build =
            |settings: &str| TrainedFilter::<Toxicity>::new(toml::from_str(settings).expect("settings"), &context);
        let message = build("").err().expect("no model").to_string();
        assert!(message.contains("toxicity.model") && message.contains("train"), "{message}");
        store_model(dir.path(), "toxicity.model");
        let judge = |settings: &str, text: &str| {
            build(settings).expect("built").judge(&Features::new(&Document::new("d", text)))
        };
        let vile = "an awful thing, a vile thing, said in a vile voice";
        assert!(matches!(judge("", vile), Verdict::Drop { reason, value } if reason == "toxicity" && value >= 0.9));
        assert_eq!(judge("", "a gentle voice and a kind word"), Verdict::Keep);
        assert_eq!(judge("languages = ['zh']", vile), Verdict::Keep);
        assert!(matches!(judge("label = 'fine'", "a gentle voice and a kind word"), Verdict::Drop { .. }));
        let message = build("label = 'insult'").err().expect("no label").to_string();
        assert!(message.contains("insult") && message.contains("toxic"), "{message}");
    }
}
