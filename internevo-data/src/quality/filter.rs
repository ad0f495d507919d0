//! `quality_classifier`: the filter around a trained model.

use internevo_core::plugin::{Plugin, PluginError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    MODEL_FILE, QualitySettings,
    features::{PASSAGE_TOKENS, features, tokens},
    is_prose,
    model::{BITS, QualityModel},
};
use crate::{Features, Filter, FilterContext, FilterPlugin, Measure, Verdict, register_filter};

/// Passages with fewer tokens give no stable score; they count only where they are the whole document's best evidence.
const MIN_TOKENS: usize = 20;

/// Passages of a language that the model must have been trained on to judge it.
const MIN_LANGUAGE_PASSAGES: u64 = 200;

/// Settings of `quality_classifier`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QualityClassifierConfig {
    /// Drop documents whose mean score is below this. Scores are probabilities; an unremarkable text has more than 0.9.
    pub threshold: f64,
    /// How the model is trained when there is none yet.
    pub train: QualitySettings,
}

impl Default for QualityClassifierConfig {
    fn default() -> Self {
        Self { threshold: 0.3, train: QualitySettings::default() }
    }
}

/// The filter.
pub struct QualityClassifier {
    threshold: f64,
    /// Language of all documents where the user names one.
    lang: Option<String>,
    model: QualityModel,
    fingerprint: String,
}

impl QualityClassifier {
    /// A filter around a model that is already there; `lang` is the language of all documents where that is known.
    pub fn new(model: QualityModel, threshold: f64, lang: Option<&str>) -> Self {
        let fingerprint = model.fingerprint();
        Self { threshold, lang: lang.map(str::to_owned), model, fingerprint }
    }

    /// Has the model seen enough of the document's language?
    fn knows_language(&self, document: &Features<'_>) -> bool {
        let lang = self.lang.as_deref().or(document.lang()).unwrap_or_default();
        self.model.report.languages.get(lang).is_some_and(|passages| *passages >= MIN_LANGUAGE_PASSAGES)
    }

    /// [`QualityClassifier::score`] of a document that the model can judge.
    fn score_of(&self, document: &Features<'_>) -> Option<f64> {
        let is_judged = self.model.report.trained && is_prose(document.document()) && self.knows_language(document);
        is_judged.then(|| self.score(document.text())).flatten()
    }

    /// Mean score of the passages of `text`, weighted by their length; `None` where there is too little text to judge.
    pub fn score(&self, text: &str) -> Option<f64> {
        let all = tokens(text);
        let (mut sum, mut weight) = (0.0f64, 0.0f64);
        for passage in all.chunks(PASSAGE_TOKENS).filter(|passage| passage.len() >= MIN_TOKENS) {
            let score = self.model.model.probability(&features(passage, self.model.settings.bits));
            sum += f64::from(score) * passage.len() as f64;
            weight += passage.len() as f64;
        }
        (weight > 0.0).then(|| sum / weight)
    }
}

impl Plugin for QualityClassifier {
    const NAME: &'static str = "quality_classifier";
    const ABOUT: &'static str =
        "Drops prose that a linear n-gram classifier, trained on the corpus against noise, finds not fluent.";
    type Config = QualityClassifierConfig;
}

impl FilterPlugin for QualityClassifier {
    fn build(config: Self::Config, cx: &FilterContext<'_>) -> Result<Box<dyn Filter>, PluginError> {
        config.train.check().map_err(Self::refused)?;
        let path = cx.artifacts.join(MODEL_FILE);
        if !path.is_file() {
            return Err(Self::refused(format!(
                "there is no model at {}; train one on the corpus first",
                path.display()
            )));
        }
        let model = QualityModel::load(&path).map_err(|e| Self::refused(e.to_string()))?;
        Ok(Box::new(Self::new(model, config.threshold, cx.lang)))
    }
}

register_filter!(QualityClassifier);

impl Filter for QualityClassifier {
    fn judge(&self, document: &Features<'_>) -> Verdict {
        Measure::verdict(self.measure(document))
    }

    fn measure(&self, document: &Features<'_>) -> Vec<Measure> {
        let score = self.score_of(document);
        score.map(|score| Measure::at_least("low_quality", score, self.threshold)).into_iter().collect()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

impl QualitySettings {
    /// What is wrong with the settings, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if !BITS.contains(&self.bits) {
            return Err(format!("`train.bits` is {}, expected {} to {}", self.bits, BITS.start(), BITS.end()));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(format!("`train.learning_rate` is {}, expected a positive number", self.learning_rate));
        }
        Ok(())
    }
}
