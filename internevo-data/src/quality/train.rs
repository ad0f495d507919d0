//! Training the classifier on a corpus: choosing examples, fitting, measuring on documents it has not seen.

use std::{collections::BTreeMap, path::PathBuf};

use internevo_core::rng::CounterRng;
use rayon::prelude::*;

use super::{
    QualityReport, QualitySettings,
    corrupt::Corruption,
    features::{PASSAGE_TOKENS, Token, features, tokens},
    is_prose,
    model::{Example, FORGOTTEN, LinearModel, QualityModel},
};
use crate::{
    DataError, classifier,
    corpus::{Part, Split},
    document::{Document, for_documents},
    stage::Progress,
};

/// Passages taken from one document at most, evenly spaced: a long book must not decide what good text is.
const PASSAGES_PER_DOCUMENT: usize = 16;
/// Shorter passages are no examples.
const MIN_PASSAGE_TOKENS: usize = 40;
/// With fewer good passages than this to train on, the classifier stays untrained and keeps everything.
const MIN_PASSAGES: usize = 300;
/// So it does when it takes more than this share of unseen real passages for bad ones.
const MAX_REAL_ERROR: f64 = 0.3;
/// Name of real passages in reports.
const REAL: &str = "real";
/// Licences are no examples: a corpus of packages holds hundreds of copies of a few, on both sides of the split.
const LICENCE: &str = "licence";

/// With fewer good passages than this, each gets several different corrupted twins …
const ENOUGH_PASSAGES: usize = 8000;
/// … up to this many: a small corpus shows too few of the ways in which words do not follow each other.
const MAX_ROUNDS: usize = 4;

/// A feature must occur in this many passages to be learnt.
const MIN_PASSAGES_PER_FEATURE: u32 = 4;

/// Share of the packages that measure the model instead of training it.
const HELD_OUT: f64 = 0.15;

/// A good passage and where it came from.
struct Passage {
    text: String,
    lang: String,
    package: String,
    /// Fixed pseudo-random order among all passages, from the document's id and the passage's place.
    order: u64,
}

/// A labelled example with its kind: `None` for a real passage.
struct Labelled {
    example: Example,
    /// Which passage it is, or is made from.
    passage: u32,
    kind: Option<Corruption>,
}

/// Trains on `files` (JSONL, or one document each). Depends on the documents and `settings` only, not on the number of
/// threads or on how the documents are spread over files.
///
/// # Errors
/// A file that cannot be read.
pub fn fit(files: &[PathBuf], settings: &QualitySettings, progress: &dyn Progress) -> Result<QualityModel, DataError> {
    let (passages, documents) = good_passages(files, settings)?;
    let split = Split::new(passages.iter().map(|p| p.package.as_str()), HELD_OUT);
    let (train, held_out): (Vec<&Passage>, Vec<&Passage>) =
        passages.iter().partition(|passage| split.of(&passage.package) == Part::Train);
    let mut report = QualityReport { documents, passages: passages.len() as u64, ..QualityReport::default() };
    if train.len() < MIN_PASSAGES || held_out.is_empty() {
        progress.message(&format!(
            "quality: {} good passages are too few to train a classifier; every document stays",
            passages.len()
        ));
        let model = LinearModel::fit(&[], settings.bits, 0, 0.0, settings.seed);
        return Ok(QualityModel { model, settings: settings.clone(), report });
    }
    let rounds = (ENOUGH_PASSAGES / train.len()).clamp(1, MAX_ROUNDS) as u64;
    let mut labelled = label(&train, rounds, settings);
    forget_rare_features(&mut labelled, settings.bits);
    let examples: Vec<Example> = labelled.into_iter().map(|labelled| labelled.example).collect();
    let model = LinearModel::fit(&examples, settings.bits, settings.epochs, settings.learning_rate, settings.seed);
    measure(&model, &label(&held_out, 1, settings), &mut report);
    report.held_out = held_out.len() as u64;
    for passage in &train {
        *report.languages.entry(passage.lang.clone()).or_default() += 1;
    }
    report.trained = report.accuracy_by_kind[REAL] >= 1.0 - MAX_REAL_ERROR;
    progress.message(&format!(
        "quality: classifier trained on {} passages; on {} held-out ones accuracy {:.3}, AUC {:.4}{}",
        train.len(),
        held_out.len(),
        report.accuracy,
        report.auc,
        if report.trained { "" } else { "; not good enough to be used, every document stays" }
    ));
    Ok(QualityModel { model, settings: settings.clone(), report })
}

/// Good passages and one corrupted twin of each, with their labels.
pub fn contrast(files: &[PathBuf], settings: &QualitySettings) -> Result<Vec<classifier::Labelled>, DataError> {
    let (passages, _) = good_passages(files, settings)?;
    let [fluent, noise] = super::CONTRAST_LABELS;
    let pair = |passage: &Passage| {
        let (_, twin) = twin(&tokens(&passage.text), &twin_rng(passage, settings), 0);
        [classifier::Labelled::new(passage.text.as_str(), fluent), classifier::Labelled::new(twin, noise)]
    };
    Ok(passages.par_iter().flat_map_iter(pair).collect())
}

/// The randomness of a passage's twins.
fn twin_rng(passage: &Passage, settings: &QualitySettings) -> CounterRng {
    CounterRng::new(settings.seed ^ passage.order, "twins")
}

/// Twin number `round` of a passage, and how it was made.
fn twin(passage: &[Token<'_>], rng: &CounterRng, round: u64) -> (Corruption, String) {
    let kind = Corruption::ALL[rng.below(round, Corruption::ALL.len() as u64) as usize];
    (kind, kind.apply(passage, rng.word64(round)))
}

/// The good passages of all prose documents, capped to those that come first in the fixed order, and the number of
/// documents they come from.
fn good_passages(files: &[PathBuf], settings: &QualitySettings) -> Result<(Vec<Passage>, u64), DataError> {
    let mut passages = Vec::new();
    let mut documents = 0;
    for_documents(files, |document| {
        let before = passages.len();
        if is_prose(&document) && document.field("type") != Some(LICENCE) {
            push_passages(&document, &mut passages);
        }
        documents += u64::from(passages.len() > before);
        if passages.len() >= 2 * settings.max_passages {
            keep_first(&mut passages, settings.max_passages);
        }
        Ok(())
    })?;
    keep_first(&mut passages, settings.max_passages);
    Ok((passages, documents))
}

fn keep_first(passages: &mut Vec<Passage>, limit: usize) {
    passages.sort_by(|a, b| (a.order, &a.text).cmp(&(b.order, &b.text)));
    passages.truncate(limit);
}

fn push_passages(document: &Document, passages: &mut Vec<Passage>) {
    let all = tokens(&document.text);
    let pieces: Vec<&[Token<'_>]> = all.chunks(PASSAGE_TOKENS).filter(|piece| is_good(piece)).collect();
    let step = pieces.len().div_ceil(PASSAGES_PER_DOCUMENT).max(1);
    let package = document.field("package").unwrap_or(&document.id);
    for (place, piece) in pieces.into_iter().enumerate().step_by(step) {
        passages.push(Passage {
            text: super::corrupt::join(piece.iter().copied()),
            lang: document.lang().unwrap_or_default().to_owned(),
            package: package.to_owned(),
            order: xxhash_rust::xxh3::xxh3_64_with_seed(document.id.as_bytes(), place as u64),
        });
    }
}

/// The rule that seeds the good class: words of ordinary length, not repeating themselves (Gopher's rules on the scale
/// of a passage, without its English stop words, so that every language is represented). It is loose on purpose:
/// documentation has lists, links and examples between its sentences, and a good class of sentences only would condemn
/// them.
fn is_good(passage: &[Token<'_>]) -> bool {
    if passage.len() < MIN_PASSAGE_TOKENS {
        return false;
    }
    let (mut words, mut letters, mut alphabetic) = (0usize, 0usize, 0usize);
    let mut distinct = std::collections::BTreeSet::new();
    for token in passage {
        let (is_word, length, has_letter) = match token {
            Token::Word(word) => (true, word.chars().count(), word.chars().any(char::is_alphabetic)),
            Token::Mark(mark) => (mark.is_alphabetic(), 1, mark.is_alphabetic()),
        };
        if is_word {
            words += 1;
            letters += length;
            alphabetic += usize::from(has_letter);
            distinct.insert(match token {
                Token::Word(word) => word.to_lowercase(),
                Token::Mark(mark) => mark.to_string(),
            });
        }
    }
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    share(words, passage.len()) >= 0.45
        && share(alphabetic, words) >= 0.7
        && (1.0..=10.0).contains(&share(letters, words))
        && share(distinct.len(), words) >= 0.2
}

/// Each passage, and one corrupted twin, `rounds` times with another twin each. Kind and randomness of a twin follow
/// from the passage's place in the fixed order and the round.
fn label(passages: &[&Passage], rounds: u64, settings: &QualitySettings) -> Vec<Labelled> {
    let twins = |(passage_index, passage): (usize, &&Passage)| {
        let passage_index = passage_index as u32;
        let pieces = tokens(&passage.text);
        let rng = twin_rng(passage, settings);
        let good = features(&pieces, settings.bits);
        let round = |round| {
            let (kind, twin) = twin(&pieces, &rng, round);
            let bad = features(&tokens(&twin), settings.bits);
            let good = Example { features: good.clone(), good: true };
            let bad = Example { features: bad, good: false };
            [
                Labelled { example: good, passage: passage_index, kind: None },
                Labelled { example: bad, passage: passage_index, kind: Some(kind) },
            ]
        };
        (0..rounds).flat_map(round).collect::<Vec<_>>()
    };
    passages.par_iter().enumerate().map(twins).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Removes features that fewer than [`MIN_PASSAGES_PER_FEATURE`] passages (with their twins) have. A rare n-gram says
/// which passage this is; a model that learns it by heart takes every n-gram it has never met for a bad sign.
fn forget_rare_features(examples: &mut [Labelled], bits: u32) {
    let mut passages = vec![0u32; 1 << bits];
    let mut last = vec![u32::MAX; 1 << bits];
    for labelled in examples.iter() {
        for &feature in &labelled.example.features {
            if last[feature as usize] != labelled.passage {
                last[feature as usize] = labelled.passage;
                passages[feature as usize] += 1;
            }
        }
    }
    for labelled in examples {
        labelled.example.features.iter_mut().for_each(|feature| {
            if passages[*feature as usize] < MIN_PASSAGES_PER_FEATURE {
                *feature = FORGOTTEN;
            }
        });
    }
}

fn measure(model: &LinearModel, examples: &[Labelled], report: &mut QualityReport) {
    let scores: Vec<(f32, bool)> =
        examples.par_iter().map(|l| (model.probability(&l.example.features), l.example.good)).collect();
    let right = scores.iter().filter(|(score, good)| (*score >= 0.5) == *good).count();
    report.accuracy = right as f64 / scores.len() as f64;
    let scored: Vec<(f64, bool)> = scores.iter().map(|(score, good)| (f64::from(*score), *good)).collect();
    report.auc = classifier::roc_auc(&scored).unwrap_or(f64::NAN);
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (labelled, (score, good)) in examples.iter().zip(&scores) {
        let name = match labelled.kind {
            None => REAL.to_owned(),
            Some(kind) => kind.name().to_owned(),
        };
        let counts = kinds.entry(name).or_default();
        counts.0 += usize::from((*score >= 0.5) == *good);
        counts.1 += 1;
    }
    report.accuracy_by_kind = kinds.into_iter().map(|(kind, (right, all))| (kind, right as f64 / all as f64)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_no_good_passage_and_prose_in_any_language_is() {
        let good = |text: &str| is_good(&tokens(&text.repeat(3)));
        let english = "The compiler checks that every reference is valid for as long as it is used, and it \
                       rejects programs in which a value could be freed while something still points at it; ";
        assert!(good(english));
        assert!(good(
            "编译器会检查每个引用在使用期间是否有效，如果某个值可能在仍被指向时被释放，则拒绝该程序。这是所有权规则的一部分"
        ));
        assert!(!good(
            "| 12 | 0x3f | -- | 99.5 | 17 | 0x00 | ++ | 3 |\n| 1 | 0x3e | -- | 91.5 | 18 | 0x01 | ++ | 4 |\n"
        ));
        assert!(!good(&"Home | About | ".repeat(20)));
    }
}
