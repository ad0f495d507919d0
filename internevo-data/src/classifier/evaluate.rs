//! How good a classifier is, on documents with known labels.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Classifier, Labelled};

/// Steps of the table of thresholds.
const THRESHOLDS: usize = 20;

/// Measures of a classifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Documents that were judged.
    pub documents: u64,
    /// Documents without a word or mark, which have no probability and are not in the other numbers.
    pub empty: u64,
    /// Share whose most probable label is theirs.
    pub accuracy: f64,
    /// Mean of −ln(probability of the true label), nats.
    pub log_loss: f64,
    /// Per label.
    pub classes: BTreeMap<String, ClassEvaluation>,
}

/// One label against all others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassEvaluation {
    /// Documents of the label.
    pub documents: u64,
    /// Area under the ROC curve; `None` where all documents or none are of the label.
    pub auc: Option<f64>,
    /// Mean squared difference of probability and truth (Brier); a calibrated classifier has a small one.
    pub brier: f64,
    /// The row with the greatest F1.
    pub best: ThresholdRow,
    /// Thresholds 0.05, 0.10 … 0.95.
    pub thresholds: Vec<ThresholdRow>,
}

/// What happens if documents of at least this probability count as the label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdRow {
    /// The probability.
    pub threshold: f64,
    /// Documents that reach it.
    pub flagged: u64,
    /// Share of them that are of the label; 1 where there are none.
    pub precision: f64,
    /// Share of the label's documents that are among them.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// Measures a classifier on labelled documents. Labels that it does not know count as wrong.
pub fn evaluate(classifier: &dyn Classifier, documents: &[&Labelled]) -> Evaluation {
    let judged: Vec<(Vec<f64>, &str)> = documents
        .par_iter()
        .filter_map(|document| Some((classifier.probabilities(&document.text)?, document.label.as_str())))
        .collect();
    let count = judged.len().max(1) as f64;
    let mut evaluation = Evaluation {
        documents: documents.len() as u64,
        empty: (documents.len() - judged.len()) as u64,
        ..Evaluation::default()
    };
    for (probabilities, label) in &judged {
        let own = classifier.label(label);
        let first = (0..probabilities.len()).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
        evaluation.accuracy += f64::from(u8::from(own == first)) / count;
        let probability = own.map_or(0.0, |at| probabilities[at]);
        evaluation.log_loss -= probability.max(f64::MIN_POSITIVE).ln() / count;
    }
    for (at, label) in classifier.labels().iter().enumerate() {
        let scored: Vec<(f64, bool)> = judged.iter().map(|(p, own)| (p[at], own == label)).collect();
        evaluation.classes.insert((*label).to_owned(), ClassEvaluation::of(&scored));
    }
    evaluation
}

impl ClassEvaluation {
    /// Of probabilities with the truth about them.
    pub fn of(scored: &[(f64, bool)]) -> Self {
        let square = |(p, truth): &(f64, bool)| (p - f64::from(u8::from(*truth))).powi(2);
        let row = |step: usize| ThresholdRow::of(scored, step as f64 / THRESHOLDS as f64);
        let thresholds: Vec<ThresholdRow> = (1..THRESHOLDS).map(row).collect();
        Self {
            documents: scored.iter().filter(|(_, truth)| *truth).count() as u64,
            auc: roc_auc(scored),
            brier: scored.iter().map(square).sum::<f64>() / scored.len().max(1) as f64,
            best: thresholds.iter().copied().reduce(|a, b| if b.f1 > a.f1 { b } else { a }).unwrap_or_default(),
            thresholds,
        }
    }
}

impl ThresholdRow {
    fn of(scored: &[(f64, bool)], threshold: f64) -> Self {
        let flagged = scored.iter().filter(|(p, _)| *p >= threshold);
        let (all, right) = flagged.fold((0u64, 0u64), |(all, right), (_, t)| (all + 1, right + u64::from(*t)));
        let wanted = scored.iter().filter(|(_, truth)| *truth).count() as f64;
        let precision = if all == 0 { 1.0 } else { right as f64 / all as f64 };
        let recall = right as f64 / wanted.max(1.0);
        let f1 = if right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
        Self { threshold, flagged: all, precision, recall, f1 }
    }
}

/// Area under the ROC curve: probability that a random example of the class scores higher than a random other one (Mann and
/// Whitney; ties count half). `None` where there is no such pair.
pub fn roc_auc(scored: &[(f64, bool)]) -> Option<f64> {
    let mut sorted: Vec<&(f64, bool)> = scored.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut others_below, mut wins) = (0.0f64, 0.0f64);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let own = tied.iter().filter(|s| s.1).count() as f64;
        let others = tied.len() as f64 - own;
        wins += own * (others_below + others / 2.0);
        others_below += others;
    }
    let own = scored.len() as f64 - others_below;
    (own * others_below > 0.0).then(|| wins / (own * others_below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_area_is_the_share_of_pairs_in_order(raw in proptest::collection::vec((0u8..6, any::<bool>()), 2..40)) {
            let scored: Vec<(f64, bool)> = raw.into_iter().map(|(s, own)| (f64::from(s), own)).collect();
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (a, _) in scored.iter().filter(|s| s.1) {
                for (b, _) in scored.iter().filter(|s| !s.1) {
                    wins += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                    pairs += 1.0;
                }
            }
            match roc_auc(&scored) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(auc) => prop_assert!((auc - wins / pairs).abs() < 1e-12),
            }
        }
    }

    #[test]
    fn a_table_of_thresholds_can_be_counted_by_hand() {
        let found = ClassEvaluation::of(&[(0.9, true), (0.6, false), (0.4, true), (0.1, false)]);
        let at = |threshold: f64| *found.thresholds.iter().find(|row| row.threshold == threshold).expect("a row");
        let half = ThresholdRow { threshold: 0.5, flagged: 2, precision: 0.5, recall: 0.5, f1: 0.5 };
        assert_eq!(at(0.5), half);
        assert_eq!((at(0.95).precision, at(0.95).recall, at(0.95).f1), (1.0, 0.0, 0.0));
        assert_eq!((found.best.threshold, found.best.recall), (0.15, 1.0));
        assert_eq!((found.auc, found.documents), (Some(0.75), 2));
        assert!((found.brier - (0.01 + 0.36 + 0.36 + 0.01) / 4.0).abs() < 1e-12);
    }
}
