//! `fluency` and `advertisement`: filters around a classifier that was trained on labelled documents
//! (`internevo data classifier train`).

use std::{marker::PhantomData, path::PathBuf};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_prose, threshold::Keeps};
use crate::{
    Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, classifier::TextClassifier, register_filter,
};

/// What a filter asks its classifier.
pub trait Question: Send + Sync + 'static {
    /// Name of the filter; its model is `NAME.classifier` in the folder of models.
    const NAME: &'static str;
    /// A line about it.
    const ABOUT: &'static str;
    /// The label whose probability counts.
    const LABEL: &'static str;
    /// Which probabilities keep a document.
    const KEEPS: Keeps;
    /// Why a document goes.
    const REASON: &'static str;
}

/// Does it read like text that somebody wrote?
#[derive(Debug)]
pub struct Fluency;

impl Question for Fluency {
    const NAME: &'static str = "fluency";
    const ABOUT: &'static str = "Drops prose that a classifier trained on labelled documents finds not fluent.";
    const LABEL: &'static str = "fluent";
    const KEEPS: Keeps = Keeps::Above;
    const REASON: &'static str = "fluency_low";
}

/// Does it want to sell something?
#[derive(Debug)]
pub struct Advertisement;

impl Question for Advertisement {
    const NAME: &'static str = "advertisement";
    const ABOUT: &'static str = "Drops prose that a classifier trained on labelled documents takes for advertising.";
    const LABEL: &'static str = "advertisement";
    const KEEPS: Keeps = Keeps::Below;
    const REASON: &'static str = "advertisement_high";
}

/// Settings of a filter around a classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifiedConfig {
    /// The classifier's file. Empty: `NAME.classifier` in the folder of models.
    pub model: String,
    /// The label whose probability counts. Empty: `fluent`, or `advertisement`.
    pub label: String,
    /// The probability from which (`advertisement`: up to which) a document stays.
    pub threshold: f64,
    /// Languages that are judged; empty: all. A classifier knows no language that it was not trained on.
    pub languages: Vec<String>,
}

impl Default for ClassifiedConfig {
    fn default() -> Self {
        Self { model: String::new(), label: String::new(), threshold: 0.5, languages: Vec::new() }
    }
}

/// The filter for a question. It leaves source code alone, and text without words.
pub struct Classified<Q> {
    classifier: TextClassifier,
    fingerprint: String,
    label: usize,
    config: ClassifiedConfig,
    /// Language of all documents where the user names one.
    lang: Option<String>,
    question: PhantomData<Q>,
}

impl<Q: Question> Classified<Q> {
    /// The probability of the label; `None` for what is not judged.
    fn probability(&self, document: &Features<'_>) -> Option<f64> {
        let lang = self.lang.as_deref().or(document.lang()).unwrap_or_default();
        let is_asked = self.config.languages.is_empty() || self.config.languages.iter().any(|own| own == lang);
        let is_judged = is_asked && is_prose(document.document());
        Some(is_judged.then(|| self.classifier.probabilities(document.text())).flatten()?[self.label])
    }
}

impl<Q: Question> Plugin for Classified<Q> {
    const NAME: &'static str = Q::NAME;
    const ABOUT: &'static str = Q::ABOUT;
    type Config = ClassifiedConfig;
}

impl<Q: Question> FilterPlugin for Classified<Q> {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        let refused = |reason: String| PluginError::Build { plugin: Q::NAME, reason };
        let path = match config.model.as_str() {
            "" => cx.artifacts.join(format!("{}.classifier", Q::NAME)),
            named => PathBuf::from(named),
        };
        if !path.is_file() {
            let path = path.display();
            return Err(refused(format!(
                "there is no classifier at {path}; `internevo data classifier train` makes one"
            )));
        }
        let classifier = TextClassifier::load(&path).map_err(|error| refused(error.to_string()))?;
        let label = if config.label.is_empty() { Q::LABEL } else { &config.label };
        let label = classifier.label(label).ok_or_else(|| {
            refused(format!("the classifier knows no `{label}`; it knows {}", classifier.labels().join(", ")))
        })?;
        let (fingerprint, lang) = (classifier.fingerprint(), cx.lang.map(str::to_owned));
        Ok(Box::new(Self { classifier, fingerprint, label, config, lang, question: PhantomData }))
    }
}

register_filter!(Classified<Fluency>);
register_filter!(Classified<Advertisement>);

impl<Q: Question> Filter for Classified<Q> {
    fn name(&self) -> &str {
        Q::NAME
    }

    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let threshold = self.config.threshold;
        let measure = |value| match Q::KEEPS {
            Keeps::Above => Measure::at_least(Q::REASON, value, threshold),
            Keeps::Below => Measure::at_most(Q::REASON, value, threshold),
        };
        self.probability(document).map(measure).into_iter().collect()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Document,
        classifier::{ClassifierSettings, Labelled},
        testing,
    };

    const OFFER: &str = "Buy now and save big! Free shipping on all orders, limited offer, click here to order today.";
    const PROSE: &str = "The committee met in spring and discussed the report on the state of the old bridge.";

    /// A classifier that knows offers from minutes, in a folder of its own.
    fn trained(labels: [&str; 2]) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let documents = (0..300).map(|i| {
            let text = if i % 2 == 0 { OFFER } else { PROSE };
            let words: Vec<&str> = text.split(' ').collect();
            let start = i % 5;
            Labelled::new(format!("{} {i}", words[start..].join(" ")), labels[i % 2])
        });
        let settings = ClassifierSettings { bits: 14, ..ClassifierSettings::default() };
        let classifier = TextClassifier::train(documents.collect(), &settings).expect("trained");
        let path = dir.path().join("model");
        classifier.save(&path).expect("saved");
        let settings = format!("model = {:?}\n", path.to_str().expect("UTF-8"));
        (dir, settings)
    }

    #[test]
    fn advertising_goes_and_other_prose_and_code_stay() {
        let (_dir, settings) = trained(["advertisement", "other"]);
        let value = testing::assert_drops::<Classified<Advertisement>>(&settings, OFFER, "advertisement_high");
        assert!(value > 0.5, "{value}");
        testing::assert_keeps::<Classified<Advertisement>>(&settings, PROSE);
        testing::assert_keeps::<Classified<Advertisement>>(&format!("{settings}languages = ['zh']"), OFFER);
        let mut code = Document::new("a", OFFER);
        code.meta.insert("type".into(), "code".into());
        assert_eq!(testing::judge_document::<Classified<Advertisement>>(&settings, &code), Verdict::Keep);
        let filter = testing::build::<Classified<Advertisement>>(&settings);
        let document = Document::new("a", OFFER);
        assert_eq!(filter.measure(&Features::new(&document)), [Measure::at_most("advertisement_high", value, 0.5)]);
        testing::assert_sound::<Classified<Advertisement>>(&settings);
    }

    #[test]
    fn what_is_not_fluent_goes_by_the_label_that_is_named() {
        let (_dir, settings) = trained(["broken", "fine"]);
        let message = std::panic::catch_unwind(|| testing::assert_keeps::<Classified<Fluency>>(&settings, PROSE));
        assert!(message.is_err(), "the label `fluent` is unknown");
        let settings = format!("{settings}label = 'fine'\n");
        testing::assert_keeps::<Classified<Fluency>>(&settings, PROSE);
        testing::assert_drops::<Classified<Fluency>>(&settings, OFFER, "fluency_low");
        testing::assert_keeps::<Classified<Fluency>>(&format!("{settings}threshold = 0.0"), OFFER);
        testing::assert_sound::<Classified<Fluency>>(&settings);
    }
}
