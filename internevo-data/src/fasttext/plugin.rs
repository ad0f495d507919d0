//! `fasttext`: a fastText model as a classifier.

use internevo_core::plugin::{NoSettings, Plugin, PluginError};

use super::{FastText, dictionary::LABEL_PREFIX};
use crate::{
    classifier::{Classifier, ClassifierContext, ClassifierPlugin},
    register_classifier,
};

impl Plugin for FastText {
    const NAME: &'static str = "fasttext";
    const ABOUT: &'static str = "A classifier that fastText trained (.bin, .ftz), with fastText's probabilities.";
    type Config = NoSettings;
}

impl ClassifierPlugin for FastText {
    fn build(_: NoSettings, cx: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError> {
        Ok(Box::new(Self::load(cx.model).map_err(Self::refused)?))
    }
}

register_classifier!(FastText);

impl Classifier for FastText {
    /// Without `__label__`.
    fn labels(&self) -> Vec<&str> {
        self.labels().iter().map(|label| label.name.strip_prefix(LABEL_PREFIX).unwrap_or(&label.name)).collect()
    }

    fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        Some(self.scores(text)?.into_iter().map(f64::from).collect())
    }

    /// With or without `__label__`.
    fn label(&self, name: &str) -> Option<usize> {
        self.label(name)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint().to_owned()
    }
}
