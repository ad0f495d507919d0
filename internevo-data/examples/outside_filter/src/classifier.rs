//! A classifier outside the workspace: how much of a text is questions. It has no model.

use internevo_data::{
    classifier::{Classifier, ClassifierContext, ClassifierPlugin},
    plugin::{Plugin, PluginError},
    register_classifier,
};

/// Counts marks.
struct Questions {
    config: Config,
}

#[derive(schemars::JsonSchema, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What ends a question.
    mark: char,
}

impl Default for Config {
    fn default() -> Self {
        Self { mark: '?' }
    }
}

impl Plugin for Questions {
    const NAME: &'static str = "questions";
    const ABOUT: &'static str = "Share of a text's sentences that ask.";
    type Config = Config;
}

impl ClassifierPlugin for Questions {
    fn build(config: Config, _: &ClassifierContext<'_>) -> Result<Box<dyn Classifier>, PluginError> {
        Ok(Box::new(Self { config }))
    }
}

register_classifier!(Questions);

impl Classifier for Questions {
    fn labels(&self) -> Vec<&str> {
        vec!["question", "statement"]
    }

    fn probabilities(&self, text: &str) -> Option<Vec<f64>> {
        let count = |mark: char| text.matches(mark).count() as f64;
        let (asked, said) = (count(self.config.mark), count('.'));
        let share = asked / (asked + said);
        (!share.is_nan()).then(|| vec![share, 1.0 - share])
    }

    fn fingerprint(&self) -> String {
        "1".into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use internevo_data::assert_classifier;

    use super::Questions;

    #[test]
    fn marks_decide() {
        assert_classifier!(Questions, Path::new(""), "mark = '!'", "No! No! Yes." => "question", "No. Yes." => "statement");
    }
}
