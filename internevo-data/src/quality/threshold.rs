//! Choosing a filter's threshold from labelled documents: what every threshold would keep, which one meets a target, and how sure
//! that is.
//!
//! Not here: measuring documents ([`Filter::measure`](crate::Filter::measure)), drawing those that a person should label
//! (`borderline.rs`).

use std::path::PathBuf;

use internevo_core::rng::CounterRng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    DataError,
    format::{RawRecord, open_records},
};

/// Field of a line that holds measured values by name, as `internevo data score` writes it.
pub const VALUES: &str = "values";

/// Share of the resamples outside the interval, on each side.
const TAIL: f64 = 0.025;

/// A labelled document.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledValue {
    /// What the filter measured.
    pub value: f64,
    /// Did the labeller want it kept?
    pub keep: bool,
    /// Bytes of its text; 1 for each document where the texts are not there.
    pub bytes: u64,
}

/// Which documents a threshold keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeps {
    /// Values of the threshold and more: scores of quality.
    Above,
    /// Values of the threshold and less: perplexities, probabilities of something bad.
    Below,
}

impl Keeps {
    /// Does a threshold keep a document with this value?
    pub fn keeps(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value >= threshold,
            Self::Below => value <= threshold,
        }
    }
}

/// What a threshold is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The greatest F-beta.
    FBeta,
    /// The greatest recall with this precision or more.
    Precision(f64),
    /// The greatest F-beta among the thresholds that keep this share of the bytes or more.
    KeptBytes(f64),
}

/// What a threshold does to the labelled documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdPoint {
    /// The threshold: a value that occurs.
    pub threshold: f64,
    /// Share of the kept documents that are to be kept.
    pub precision: f64,
    /// Share of the documents to be kept that are kept.
    pub recall: f64,
    /// (1 + beta²) · precision · recall / (beta² · precision + recall).
    pub f_beta: f64,
    /// Share of the documents that are kept.
    pub kept_documents: f64,
    /// Share of the bytes that are kept.
    pub kept_bytes: f64,
}

/// A number and the range in which 95 % of the resamples find it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

/// The chosen threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdReport {
    /// Which side is kept.
    pub keeps: Keeps,
    /// What it was chosen for.
    pub target: Target,
    /// Weight of recall in F-beta.
    pub beta: f64,
    /// Labelled documents, and how many of them are to be kept.
    pub documents: u64,
    /// Documents labelled `keep`.
    pub to_keep: u64,
    /// The choice.
    pub chosen: ThresholdPoint,
    /// Where the choice would fall with other documents of the same kind (bootstrap); the resamples in which no threshold meets the
    /// target are left out.
    pub threshold_interval: Interval,
    /// Precision, recall and F-beta of the chosen threshold on the resamples.
    pub precision_interval: Interval,
    /// See [`ThresholdReport::precision_interval`].
    pub recall_interval: Interval,
    /// See [`ThresholdReport::precision_interval`].
    pub f_beta_interval: Interval,
    /// Resamples, and how many of them met the target.
    pub resamples: u64,
    /// Resamples in which some threshold meets the target.
    pub resamples_met: u64,
    /// What every threshold does, from the one that keeps most.
    pub curve: Vec<ThresholdPoint>,
}

/// How a threshold is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdSettings {
    /// Which side is kept.
    pub keeps: Keeps,
    /// What for.
    pub target: Target,
    /// Weight of recall in F-beta.
    pub beta: f64,
    /// Resamples of the interval.
    pub resamples: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

/// Chooses a threshold. The same documents in any order and the same settings give the same report.
///
/// # Errors
/// Labels of one kind only, a value that is not finite, a target that no threshold meets (the error names the nearest), a setting out
/// of range.
pub fn choose_threshold(
    documents: &[LabelledValue],
    settings: &ThresholdSettings,
) -> Result<ThresholdReport, DataError> {
    check(documents, settings)?;
    let sorted = Sorted::new(documents, settings);
    let ones = vec![1; documents.len()];
    let curve = sorted.curve(&ones);
    let chosen = best(&curve, settings.target).ok_or_else(|| unmet(&curve, settings.target))?;
    let resampled: Vec<(Option<f64>, ThresholdPoint)> = (0..settings.resamples as u64)
        .into_par_iter()
        .map(|resample| {
            let weights = resample_weights(documents.len(), settings.seed, resample);
            let curve = sorted.curve(&weights);
            (best(&curve, settings.target).map(|point| point.threshold), sorted.at(chosen.threshold, &weights))
        })
        .collect();
    let of = |number: fn(&ThresholdPoint) -> f64| {
        interval(resampled.iter().map(|(_, point)| number(point)), &chosen, number)
    };
    let met: Vec<f64> = resampled.iter().filter_map(|(threshold, _)| *threshold).collect();
    Ok(ThresholdReport {
        keeps: settings.keeps,
        target: settings.target,
        beta: settings.beta,
        documents: documents.len() as u64,
        to_keep: documents.iter().filter(|document| document.keep).count() as u64,
        chosen,
        threshold_interval: interval(met.iter().copied(), &chosen, |point| point.threshold),
        precision_interval: of(|point| point.precision),
        recall_interval: of(|point| point.recall),
        f_beta_interval: of(|point| point.f_beta),
        resamples: settings.resamples as u64,
        resamples_met: met.len() as u64,
        curve,
    })
}

fn check(documents: &[LabelledValue], settings: &ThresholdSettings) -> Result<(), DataError> {
    let wrong = |key: &str, reason: String| Err(DataError::Setting { key: key.into(), reason });
    let to_keep = documents.iter().filter(|document| document.keep).count();
    if to_keep == 0 || to_keep == documents.len() {
        return wrong(
            "labels",
            format!("{to_keep} of {} documents are labelled `keep`; both labels are needed", documents.len()),
        );
    }
    if let Some(document) = documents.iter().find(|document| !document.value.is_finite()) {
        return wrong("value", format!("{} is not a finite number", document.value));
    }
    if !(settings.beta > 0.0 && settings.beta.is_finite()) {
        return wrong("beta", format!("{} is no positive number", settings.beta));
    }
    match settings.target {
        Target::Precision(share) | Target::KeptBytes(share) if !(0.0..=1.0).contains(&share) => {
            wrong("target", format!("{share} is no share"))
        }
        _ => Ok(()),
    }
}

fn unmet(curve: &[ThresholdPoint], target: Target) -> DataError {
    let nearest = curve.iter().copied().max_by(|a, b| a.precision.total_cmp(&b.precision)).unwrap_or_default();
    let reason = match target {
        Target::Precision(wanted) => format!(
            "no threshold reaches a precision of {wanted}; the greatest is {:.4}, at {}",
            nearest.precision, nearest.threshold
        ),
        _ => "no threshold keeps so much".to_owned(),
    };
    DataError::Setting { key: "target".into(), reason }
}

/// How often each of `documents` is drawn when as many are drawn with replacement.
fn resample_weights(documents: usize, seed: u64, resample: u64) -> Vec<u32> {
    let rng = CounterRng::new(seed, &format!("threshold/{resample}"));
    let mut weights = vec![0; documents];
    (0..documents as u64).for_each(|draw| weights[rng.below(draw, documents as u64) as usize] += 1);
    weights
}

fn best(curve: &[ThresholdPoint], target: Target) -> Option<ThresholdPoint> {
    let meets = |point: &&ThresholdPoint| match target {
        Target::FBeta => true,
        Target::Precision(wanted) => point.precision >= wanted,
        Target::KeptBytes(wanted) => point.kept_bytes >= wanted,
    };
    let gain = |point: &ThresholdPoint| match target {
        Target::Precision(_) => point.recall,
        Target::FBeta | Target::KeptBytes(_) => point.f_beta,
    };
    // Among equals the one that keeps most, which comes first.
    curve.iter().filter(meets).copied().reduce(|a, b| if gain(&b) > gain(&a) { b } else { a })
}

fn interval(values: impl Iterator<Item = f64>, chosen: &ThresholdPoint, of: fn(&ThresholdPoint) -> f64) -> Interval {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return Interval { low: of(chosen), high: of(chosen) } };
    let at = |share: f64| values[(share * last as f64).round() as usize];
    Interval { low: at(TAIL), high: at(1.0 - TAIL) }
}

/// Documents from the one that every threshold keeps longest.
struct Sorted<'a> {
    documents: &'a [LabelledValue],
    order: Vec<u32>,
    keeps: Keeps,
    beta: f64,
}

/// Sums over documents.
#[derive(Clone, Copy, Default)]
struct Sums {
    documents: f64,
    to_keep: f64,
    bytes: f64,
}

impl Sums {
    fn add(&mut self, document: &LabelledValue, weight: u32) {
        let weight = f64::from(weight);
        self.documents += weight;
        self.to_keep += if document.keep { weight } else { 0.0 };
        self.bytes += weight * document.bytes as f64;
    }
}

impl<'a> Sorted<'a> {
    fn new(documents: &'a [LabelledValue], settings: &ThresholdSettings) -> Self {
        let mut order: Vec<u32> = (0..documents.len() as u32).collect();
        let value = |index: &u32| documents[*index as usize].value;
        order.sort_by(|a, b| match settings.keeps {
            Keeps::Above => value(b).total_cmp(&value(a)),
            Keeps::Below => value(a).total_cmp(&value(b)),
        });
        Self { documents, order, keeps: settings.keeps, beta: settings.beta }
    }

    fn all(&self, weights: &[u32]) -> Sums {
        let mut all = Sums::default();
        self.documents.iter().zip(weights).for_each(|(document, weight)| all.add(document, *weight));
        all
    }

    /// What each value would do as a threshold, from the one that keeps most.
    fn curve(&self, weights: &[u32]) -> Vec<ThresholdPoint> {
        let all = self.all(weights);
        let (mut kept, mut curve) = (Sums::default(), Vec::new());
        let value = |index: &u32| self.documents[*index as usize].value;
        for tied in self.order.chunk_by(|a, b| value(a) == value(b)) {
            tied.iter().for_each(|index| kept.add(&self.documents[*index as usize], weights[*index as usize]));
            if tied.iter().any(|index| weights[*index as usize] > 0) {
                curve.push(self.point(value(&tied[0]), kept, all));
            }
        }
        curve.reverse();
        curve
    }

    fn at(&self, threshold: f64, weights: &[u32]) -> ThresholdPoint {
        let mut kept = Sums::default();
        let keeps = |value: f64| self.keeps.keeps(value, threshold);
        let of = self.documents.iter().zip(weights).filter(|(document, _)| keeps(document.value));
        of.for_each(|(document, weight)| kept.add(document, *weight));
        self.point(threshold, kept, self.all(weights))
    }

    fn point(&self, threshold: f64, kept: Sums, all: Sums) -> ThresholdPoint {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let (precision, recall) = (share(kept.to_keep, kept.documents), share(kept.to_keep, all.to_keep));
        let beta = self.beta * self.beta;
        ThresholdPoint {
            threshold,
            precision,
            recall,
            f_beta: share((1.0 + beta) * precision * recall, beta * precision + recall),
            kept_documents: share(kept.documents, all.documents),
            kept_bytes: share(kept.bytes, all.bytes),
        }
    }
}

/// The labelled values of JSONL files: `label` is `keep` or `drop` (or `true` or `false`), the number stands in `values` under `name`,
/// in the field `name`, or, as `internevo data review` writes it, in `value` where `reason` is `name`. Lines without a label yet and
/// labels of other rules are passed over.
///
/// # Errors
/// A file that cannot be read, and [`DataError::Invalid`] for a line without the number or with another label.
pub fn read_labelled_values(files: &[PathBuf], name: &str) -> Result<Vec<LabelledValue>, DataError> {
    let mut found = Vec::new();
    for path in files {
        let mut reader = open_records(path)?;
        let mut line = Vec::new();
        loop {
            match reader.next_record(&mut line)? {
                RawRecord::End => break,
                RawRecord::Damaged(fault) => {
                    return Err(DataError::invalid(path, reader.record(), fault.to_string()));
                }
                RawRecord::Record => {
                    let read = labelled_value(&line, name);
                    found.extend(read.map_err(|reason| DataError::invalid(path, reader.record(), reason))?);
                }
            }
        }
    }
    Ok(found)
}

fn labelled_value(line: &[u8], name: &str) -> Result<Option<LabelledValue>, String> {
    let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let keep = match object.get("label") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(keep)) => *keep,
        Some(Value::String(label)) => match label.as_str() {
            "" => return Ok(None),
            "keep" => true,
            "drop" => false,
            other => return Err(format!("label `{other}` is neither `keep` nor `drop`")),
        },
        Some(other) => return Err(format!("label {other} is neither `keep` nor `drop`")),
    };
    // A review's label belongs to one rule.
    let reviewed = object.get("reason").and_then(Value::as_str);
    if reviewed.is_some_and(|reason| reason != name) && !object.contains_key(VALUES) {
        return Ok(None);
    }
    let beside = object.get(if reviewed.is_some() { "value" } else { name });
    let value = object.get(VALUES).and_then(|values| values.get(name)).or(beside).and_then(Value::as_f64);
    let value = value.ok_or_else(|| format!("no number `{name}`, neither in `{VALUES}` nor beside it"))?;
    let length = object.get("text").and_then(Value::as_str).map(|text| text.len() as u64);
    let bytes = length.or(object.get("bytes").and_then(Value::as_u64)).unwrap_or(1).max(1);
    Ok(Some(LabelledValue { value, keep, bytes }))
}
