//! `fluency` and `advertisement`: questions to a classifier that was trained on labelled documents
//! (`internevo data classifier train`).

use super::Keeps;
use crate::{
    classifier::{Classified, Question},
    register_filter,
};

/// Does it read like text that somebody wrote?
#[derive(Debug)]
pub struct Fluency;

impl Question for Fluency {
    const NAME: &'static str = "fluency";
    const ABOUT: &'static str = "Drops prose that a classifier trained on labelled documents finds not fluent.";
    const LABEL: &'static str = "fluent";
    const KEEPS: Keeps = Keeps::Above;
    const THRESHOLD: f64 = 0.5;
    const REASON: &'static str = "fluency_low";
    const PROSE_ONLY: bool = true;
}

/// Does it want to sell something?
#[derive(Debug)]
pub struct Advertisement;

impl Question for Advertisement {
    const NAME: &'static str = "advertisement";
    const ABOUT: &'static str = "Drops prose that a classifier trained on labelled documents takes for advertising.";
    const LABEL: &'static str = "advertisement";
    const KEEPS: Keeps = Keeps::Below;
    const THRESHOLD: f64 = 0.5;
    const REASON: &'static str = "advertisement_high";
    const PROSE_ONLY: bool = true;
}

register_filter!(Classified<Fluency>);
register_filter!(Classified<Advertisement>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Document, Features, Measure, Verdict,
        classifier::{ClassifierSettings, Labelled, TextClassifier},
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
