//! The filter for one question: `fluency` and `advertisement` (`quality/classified.rs`), `toxicity` and `pornography`
//! (`safety/trained.rs`).

use std::{marker::PhantomData, path::PathBuf};

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::plugin::{Classifier, ClassifierContext, is_asked, load};
use crate::{
    Features, Filter, FilterContext, FilterPlugin, Measure, Verdict,
    quality::{Keeps, is_prose},
};

/// What a filter asks its classifier.
pub trait Question: Send + Sync + 'static {
    /// Name of the filter; its model is `NAME.classifier` in the folder of models.
    const NAME: &'static str;
    /// One sentence.
    const ABOUT: &'static str;
    /// The label whose probability counts, unless the settings name another.
    const LABEL: &'static str;
    /// Which probabilities keep a document.
    const KEEPS: Keeps;
    /// The probability up to (or from) which it stays, unless the settings say otherwise.
    const THRESHOLD: f64;
    /// Why a document goes.
    const REASON: &'static str;
    /// Is only prose judged, and source code left alone?
    const PROSE_ONLY: bool;
}

/// Settings of a filter around a classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifiedConfig {
    /// Which classifier is asked: `linear`, `fasttext`, `onnx` (feature), or one of another crate.
    pub classifier: String,
    /// File of its model. Empty: the filter's name with `.classifier`, in the folder of models.
    pub model: String,
    /// The classifier's own settings.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
    /// The label whose probability counts. Empty: `fluent`, `advertisement`, `toxic`, `porn`.
    pub label: String,
    /// The probability up to which (`fluency`: from which) a document stays. Unset: 0.5, for `toxicity` and `pornography` 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Languages that are judged (`lang`); empty: all. A classifier knows no language that it was not trained on.
    pub languages: Vec<String>,
}

impl Default for ClassifiedConfig {
    fn default() -> Self {
        Self {
            classifier: "linear".into(),
            model: String::new(),
            settings: toml::Table::new(),
            label: String::new(),
            threshold: None,
            languages: Vec::new(),
        }
    }
}

/// The filter for a question. It keeps texts of which the classifier knows nothing.
pub struct Classified<Q> {
    classifier: Box<dyn Classifier>,
    label: usize,
    config: ClassifiedConfig,
    /// Language of all documents where the user names one.
    lang: Option<String>,
    question: PhantomData<Q>,
}

impl<Q: Question> Classified<Q> {
    /// Builds the classifier.
    ///
    /// # Errors
    /// A classifier that is unknown or cannot be built, or does not know the label.
    pub fn new(config: ClassifiedConfig, cx: &FilterContext<'_>) -> Result<Self, PluginError> {
        let path = match config.model.as_str() {
            "" => cx.artifacts.join(format!("{}.classifier", Q::NAME)),
            named => PathBuf::from(named),
        };
        let classifier =
            load(&config.classifier, &config.settings, &ClassifierContext { model: &path }).map_err(Self::refused)?;
        let label = if config.label.is_empty() { Q::LABEL } else { &config.label };
        let label = classifier.label(label).ok_or_else(|| {
            let (path, known) = (path.display(), classifier.labels().join(", "));
            Self::refused(format!("the classifier {path} knows no `{label}`; it knows {known}"))
        })?;
        Ok(Self { classifier, label, config, lang: cx.lang.map(str::to_owned), question: PhantomData })
    }

    /// Probability of the label; `None` for what is not judged and for texts of which the classifier knows nothing.
    pub fn probability(&self, document: &Features<'_>) -> Option<f64> {
        let is_judged = is_asked(&self.config.languages, self.lang.as_deref(), document)
            && (!Q::PROSE_ONLY || is_prose(document.document()));
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
        Ok(Box::new(Self::new(config, cx)?))
    }
}

impl<Q: Question> Filter for Classified<Q> {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let threshold = self.config.threshold.unwrap_or(Q::THRESHOLD);
        let measure = |value| match Q::KEEPS {
            Keeps::Above => Measure::at_least(Q::REASON, value, threshold),
            Keeps::Below => Measure::at_most(Q::REASON, value, threshold),
        };
        self.probability(document).map(measure).into_iter().collect()
    }

    fn fingerprint(&self) -> String {
        self.classifier.fingerprint()
    }

    fn failure(&self) -> Option<String> {
        self.classifier.failure()
    }
}
