//! What a text classifier is, how a crate offers one by name, and how a filter asks one. Not here: the classifiers (`linear` in this
//! folder, `fasttext/`, `onnx/`), what their answers lead to (`filter/`).

use std::path::Path;

use internevo_core::{
    plugin::{NoSettings, Plugin, PluginError, Registry},
    plugin_kind,
};

use super::TextClassifier;
use crate::Features;

/// Gives texts probabilities of labels. Called from many threads; the same text always gets the same answer.
pub trait Classifier: Send + Sync {
    /// The labels, in the order of the probabilities.
    fn labels(&self) -> Vec<&str>;

    /// Probability of each label; `None` of a text of which it knows nothing.
    fn probabilities(&self, text: &str) -> Option<Vec<f64>>;

    /// The place of a label among [`Classifier::labels`].
    fn label(&self, name: &str) -> Option<usize> {
        self.labels().iter().position(|own| *own == name)
    }

    /// Hash of all that a probability depends on.
    fn fingerprint(&self) -> String;

    /// Why the probabilities given since the last call cannot be trusted; as of a filter
    /// ([`Filter::failure`](crate::Filter::failure)).
    fn failure(&self) -> Option<String> {
        None
    }
}

/// What a classifier is told when it is built.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierContext<'a> {
    /// File of its model. A classifier without one pays no attention.
    pub model: &'a Path,
}

/// A classifier that can be named in the settings of the filters `classifier`, `fluency`, `advertisement`, `toxicity`, `pornography` and
/// `safety_policy`, and in `internevo data classifier evaluate`.
pub trait ClassifierPlugin: Plugin {
    /// Reads the model.
    ///
    /// # Errors
    /// [`PluginError::Build`] when a setting makes no sense, or a file is missing or damaged.
    fn build(config: Self::Config, cx: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError>;
}

plugin_kind! {
    /// A registered classifier.
    pub struct ClassifierEntry("classifier"):
        ClassifierPlugin::build(&ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError>;
    /// All classifiers linked into this binary, by name.
    pub fn classifiers;
}

/// Registers a [`ClassifierPlugin`].
#[macro_export]
macro_rules! register_classifier {
    ($plugin:ty) => {
        $crate::__submit!($crate::classifier::ClassifierEntry, $plugin);
    };
}

/// Builds the classifier called `name` with its settings.
///
/// # Errors
/// An unknown name, settings that do not fit, a model that is missing or damaged.
pub fn load(
    name: &str,
    settings: &toml::Table,
    cx: &ClassifierContext<'_>,
) -> Result<Box<dyn Classifier>, PluginError> {
    Registry::<ClassifierEntry>::collect()?.get(name)?.build(settings, cx)
}

impl Plugin for TextClassifier {
    const NAME: &'static str = "linear";
    const ABOUT: &'static str =
        "Logistic regression over hashed n-grams, trained by `internevo data classifier train`.";
    type Config = NoSettings;
}

impl ClassifierPlugin for TextClassifier {
    fn build(_: NoSettings, cx: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError> {
        if !cx.model.is_file() {
            let path = cx.model.display();
            return Err(Self::refused(format!(
                "there is no classifier at {path}; `internevo data classifier train` makes one"
            )));
        }
        Ok(Box::new(Self::load(cx.model).map_err(Self::refused)?))
    }
}

crate::register_classifier!(TextClassifier);

impl Classifier for TextClassifier {
    fn labels(&self) -> Vec<&str> {
        self.labels().iter().map(String::as_str).collect()
    }

    fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        self.probabilities(text)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

/// Does a language belong to those that are judged? None named: all do.
pub(super) fn is_asked(languages: &[String], named: Option<&str>, document: &Features<'_>) -> bool {
    let lang = named.or(document.lang()).unwrap_or_default();
    languages.is_empty() || languages.iter().any(|own| own == lang)
}
