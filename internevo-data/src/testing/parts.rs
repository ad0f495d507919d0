//! For authors of extractors, classifiers and tokenizers.

use std::path::Path;

use rayon::prelude::*;

use super::{AWKWARD, assert_defaults, parsed};
use crate::{
    classifier::{Classifier, ClassifierContext, ClassifierPlugin},
    format::{Extractor, ExtractorContext, ExtractorPlugin},
    tokenizer::{TextEncoder, TokenizerContext, TokenizerPlugin},
};

/// Pages on which careless extractors fail.
const AWKWARD_PAGES: [&str; 8] = [
    "<html></html>",
    "<p>a<p>b<div><b>c",
    "</p></div></html>",
    "<script>x</script><style>y</style>",
    "<table><tr><td>a<td>b</table>",
    "<title>\n a \n b </title><body>\u{0}\u{a0}",
    "<!-- <p>x</p>",
    "<ul><li><ul><li><pre> a\n  b</pre>",
];

/// Builds extractor `P` from its TOML settings; its folder of models does not exist.
///
/// # Panics
/// If the settings are no TOML, or `P` refuses them.
pub fn build_extractor<P: ExtractorPlugin>(settings: &str) -> Box<dyn Extractor> {
    let context = ExtractorContext { artifacts: Path::new("no-artifacts") };
    P::build(parsed::<P>(settings), &context).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts what every extractor owes the stage `format`: any text is taken for a page without a panic and gives twice the same; the
/// text is empty or ends its last line, the title is one line, the language is in lower case.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_sound_extractor<P: ExtractorPlugin>(settings: &str) {
    assert_defaults::<P>();
    let (extractor, other) = (build_extractor::<P>(settings), build_extractor::<P>(settings));
    let deep = "<div>".repeat(10_000) + "x";
    for html in AWKWARD.into_iter().chain(AWKWARD_PAGES).chain([deep.as_str()]) {
        let page = extractor.extract(html, None);
        assert_eq!(page, other.extract(html, None), "{html:.200?}");
        assert!(page.text.is_empty() || page.text.ends_with('\n'), "{:?}: {html:.200?}", page.text);
        assert!(!page.title.contains('\n') && page.lang == page.lang.to_lowercase(), "{page:?}: {html:.200?}");
    }
}

/// Asserts what an extractor with some settings finds in pages, and that it is sound.
#[macro_export]
macro_rules! assert_extractor {
    ($plugin:ty, $settings:expr $(, $html:expr => $text:expr)+ $(,)?) => {{
        $crate::testing::assert_sound_extractor::<$plugin>($settings);
        let extractor = $crate::testing::build_extractor::<$plugin>($settings);
        $(assert_eq!(extractor.extract($html, None).text, $text);)+
    }};
}

/// Builds classifier `P` with the model at `model` from its TOML settings.
///
/// # Panics
/// If the settings are no TOML, or `P` refuses them or the model.
pub fn build_classifier<P: ClassifierPlugin>(model: &Path, settings: &str) -> Box<dyn Classifier> {
    P::build(parsed::<P>(settings), &ClassifierContext { model }).unwrap_or_else(|error| panic!("{error}"))
}

/// The most probable label of a text; `None` where the classifier knows nothing of it.
pub fn most_probable(classifier: &dyn Classifier, text: &str) -> Option<String> {
    let probabilities = classifier.probabilities(text)?;
    let most = (0..probabilities.len()).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]))?;
    Some(classifier.labels()[most].to_owned())
}

/// Asserts what every classifier owes the filters that ask it: its labels are found by name; any text gets no answer or a probability
/// for each label, twice the same and the same by another instance with the same fingerprint.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_sound_classifier<P: ClassifierPlugin>(model: &Path, settings: &str) {
    assert_defaults::<P>();
    let (classifier, other) = (build_classifier::<P>(model, settings), build_classifier::<P>(model, settings));
    assert_eq!(classifier.fingerprint(), other.fingerprint());
    let labels = classifier.labels();
    labels.iter().enumerate().for_each(|(at, label)| assert_eq!(classifier.label(label), Some(at), "{label}"));
    for text in AWKWARD {
        let found = classifier.probabilities(text);
        assert_eq!(found, classifier.probabilities(text), "{text:?}");
        assert_eq!(found, other.probabilities(text), "{text:?}");
        if let Some(probabilities) = found {
            assert_eq!(probabilities.len(), labels.len(), "{text:?}");
            // fastText's carry a constant of 1e-5.
            assert!(probabilities.iter().all(|p| (0.0..=1.0001).contains(p)), "{probabilities:?}: {text:?}");
        }
    }
    assert_eq!(classifier.failure(), None);
}

/// Asserts the most probable label of texts under a classifier, and that it is sound: plugin, model, settings, then texts and labels.
#[macro_export]
macro_rules! assert_classifier {
    ($plugin:ty, $model:expr, $settings:expr $(, $text:expr => $label:expr)+ $(,)?) => {{
        $crate::testing::assert_sound_classifier::<$plugin>($model, $settings);
        let classifier = $crate::testing::build_classifier::<$plugin>($model, $settings);
        $(assert_eq!($crate::testing::most_probable(&*classifier, $text).as_deref(), Some($label));)+
    }};
}

/// Builds tokenizer `P` with its file, if it has one, from its TOML settings.
///
/// # Panics
/// If the settings are no TOML, or `P` refuses them or the file.
pub fn build_tokenizer<P: TokenizerPlugin>(file: Option<&Path>, settings: &str) -> Box<dyn TextEncoder> {
    P::build(parsed::<P>(settings), &TokenizerContext { file }).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts what every tokenizer owes a token store: any text is encoded without a panic, alone and from many threads alike, and the same by
/// another instance with the same fingerprint; all tokens are in the vocabulary.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_sound_tokenizer<P: TokenizerPlugin>(file: Option<&Path>, settings: &str) {
    assert_defaults::<P>();
    let (tokenizer, other) = (build_tokenizer::<P>(file, settings), build_tokenizer::<P>(file, settings));
    assert_eq!(tokenizer.fingerprint(), other.fingerprint());
    assert!((tokenizer.eos_id() as usize) < tokenizer.vocab_size(), "the end of a document is no token");
    let encode = |text: &&str| tokenizer.encode(text).unwrap_or_else(|error| panic!("{error}"));
    let together: Vec<Vec<u32>> = AWKWARD.par_iter().map(encode).collect();
    for (text, tokens) in AWKWARD.into_iter().zip(together) {
        for tokenizer in [&tokenizer, &other] {
            assert_eq!(tokenizer.encode(text).unwrap_or_else(|error| panic!("{error}")), tokens, "{text:?}");
        }
        assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.vocab_size()), "{tokens:?}: {text:?}");
    }
}

/// Asserts the tokens of texts under a tokenizer, and that it is sound: plugin, file if any, settings, then texts and tokens.
#[macro_export]
macro_rules! assert_tokenizer {
    ($plugin:ty, $file:expr, $settings:expr $(, $text:expr => $tokens:expr)+ $(,)?) => {{
        $crate::testing::assert_sound_tokenizer::<$plugin>($file, $settings);
        let tokenizer = $crate::testing::build_tokenizer::<$plugin>($file, $settings);
        $(assert_eq!(tokenizer.encode($text).expect("encoded"), $tokens);)+
    }};
}
