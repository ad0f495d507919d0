//! `toxicity` and `pornography`: questions to a classifier that was trained on labelled documents of the user's own.
//!
//! No model comes with the program. Train one with `internevo data classifier train` and store it as `toxicity.classifier` or
//! `pornography.classifier` in the folder of models, or name its file; or name another classifier, such as a BERT in an ONNX file.

use crate::{
    classifier::{Classified, Question},
    quality::Keeps,
    register_filter,
};

/// Insults, threats, hate.
#[derive(Debug)]
pub struct Toxicity;

impl Question for Toxicity {
    const NAME: &'static str = "toxicity";
    const ABOUT: &'static str = "Drops documents that a classifier trained on labelled documents finds toxic.";
    const LABEL: &'static str = "toxic";
    const KEEPS: Keeps = Keeps::Below;
    const THRESHOLD: f64 = 0.9;
    const REASON: &'static str = "toxicity";
    const PROSE_ONLY: bool = false;
}

/// Pornographic texts.
#[derive(Debug)]
pub struct Pornography;

impl Question for Pornography {
    const NAME: &'static str = "pornography";
    const ABOUT: &'static str = "Drops documents that a classifier trained on labelled documents finds pornographic.";
    const LABEL: &'static str = "porn";
    const KEEPS: Keeps = Keeps::Below;
    const THRESHOLD: f64 = 0.9;
    const REASON: &'static str = "pornography";
    const PROSE_ONLY: bool = false;
}

register_filter!(Classified<Toxicity>);
register_filter!(Classified<Pornography>);

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        Document, Features, Filter as _, FilterContext, Verdict,
        classifier::{ClassifierSettings, Labelled, TextClassifier},
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
        let build = |settings: &str| Classified::<Toxicity>::new(toml::from_str(settings).expect("settings"), &context);
        let message = build("").err().expect("no model").to_string();
        assert!(message.contains("toxicity.classifier") && message.contains("train"), "{message}");
        store_model(dir.path(), "toxicity.classifier");
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
