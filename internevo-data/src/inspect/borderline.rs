//! What each rule measured on both sides of its threshold, and the documents that were closest to it. The stage wrote what it rejected
//! with reason and value; what a rule measures in kept documents is measured here once more, with the filters of the same settings.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::{Histogram, excerpt, for_documents, inputs_or_none};
use crate::{DataError, Document, Features, Measure, filter::Bound, least::Least, stage::Strategies};

/// Bins of a rule's histograms.
const BINS: usize = 40;

/// How much is looked at and remembered.
#[derive(Clone, Debug)]
pub struct BorderlineOptions {
    /// Documents remembered on each side of each threshold.
    pub samples: usize,
    /// Characters of their texts.
    pub excerpt_chars: usize,
    /// Kept documents that are measured; of more, a part that depends on their ids alone.
    pub measured: u64,
    /// Thresholds of rules that belong to no filter, by reason.
    pub bounds: BTreeMap<String, Bound>,
}

impl Default for BorderlineOptions {
    fn default() -> Self {
        Self { samples: 3, excerpt_chars: 400, measured: 20_000, bounds: BTreeMap::new() }
    }
}

/// A document that is near a threshold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Its id.
    pub id: String,
    /// Its language.
    pub lang: String,
    /// Where it comes from.
    pub source: String,
    /// What the rule measured.
    pub value: f64,
    /// The threshold that counts for it; rules may have others for other languages.
    pub threshold: Option<f64>,
    /// The beginning of its text.
    pub excerpt: String,
}

/// One rule of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleView {
    /// Its reason.
    pub reason: String,
    /// Its filter.
    pub filter: String,
    /// Documents that it rejected.
    pub rejected: u64,
    /// The threshold, where the rule tells it and it is the same for all documents.
    pub threshold: Option<f64>,
    /// Do documents below the threshold go? Unknown where the rule does not tell.
    pub is_minimum: Option<bool>,
    /// What it measured in rejected documents.
    pub rejected_values: Histogram,
    /// What it measures in kept documents, in the same bins.
    pub kept_values: Histogram,
    /// Rejected documents, nearest to the threshold first (the first ones, where it is unknown).
    pub just_rejected: Vec<Sample>,
    /// Kept documents, nearest to the threshold first.
    pub just_kept: Vec<Sample>,
}

/// The rules of a stage that measured anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Borderline {
    /// By number of rejections, most first, then by name.
    pub rules: Vec<RuleView>,
    /// Kept documents that were measured.
    pub measured: u64,
}

/// One rule while documents pass by.
#[derive(Default)]
struct Collected {
    filter: String,
    rejected: Side,
    kept: Side,
    bounds: Vec<Bound>,
}

/// One side of a threshold.
#[derive(Default)]
struct Side {
    values: Vec<f64>,
    /// By their distance.
    nearest: Least<f64, Sample>,
}

impl Side {
    fn add(&mut self, sample: impl FnOnce() -> Sample, value: f64, bound: Option<Bound>, room: usize) {
        self.values.push(value);
        self.nearest.add(room, bound.map_or(f64::MAX, |bound| distance(value, bound)), sample);
    }
}

/// How far a value is from its threshold, in relation to the threshold.
fn distance(value: f64, bound: Bound) -> f64 {
    let distance = (value - bound.threshold()).abs() / bound.threshold().abs().max(1e-9);
    if distance.is_nan() { f64::MAX } else { distance }
}

/// Looks at the output `folder` of a stage that ran the filters of `strategies`.
///
/// # Errors
/// When a file cannot be read.
pub fn borderline(
    folder: &Path,
    strategies: &Strategies,
    options: &BorderlineOptions,
) -> Result<Borderline, DataError> {
    let mut rules: BTreeMap<String, Collected> = BTreeMap::new();
    let measured = |document: &Document| {
        strategies.of(document).measure(&Features::new(document)).into_iter().map(owned).collect()
    };
    let rejected = |line: Result<Document, _>| {
        let rejection = Rejected::of(line.ok()?)?;
        let measures: Vec<(String, Measure)> = measured(&rejection.document);
        let own = measures.into_iter().find(|(_, measure)| measure.reason == rejection.reason);
        let bound = own.map(|(_, measure)| measure.bound).or(options.bounds.get(&rejection.reason).copied());
        Some((rejection, bound))
    };
    for_documents(&inputs_or_none(&folder.join("rejected"))?, rejected, |found| {
        let Some((rejection, bound)) = found else { return };
        let rule = rules.entry(rejection.reason).or_default();
        rule.filter = rejection.filter;
        rule.bounds.extend(bound);
        let sample = || sample(&rejection.document, rejection.value, bound, options);
        rule.rejected.add(sample, rejection.value, bound, options.samples);
    })?;
    let kept = inputs_or_none(&folder.join("kept"))?;
    let mut documents = 0u64;
    for_documents(&kept, |_| (), |()| documents += 1)?;
    let looked_at = |id: &str| xxh3_64(id.as_bytes()) % documents.max(1) < options.measured;
    let kept_measures = |document: Result<Document, _>| {
        let document = document.ok().filter(|document| looked_at(&document.id))?;
        let measures: Vec<(String, Measure)> = measured(&document);
        Some((document, measures))
    };
    let mut seen = 0;
    for_documents(&kept, kept_measures, |found| {
        let Some((document, measures)) = found else { return };
        seen += 1;
        for (filter, measure) in measures.into_iter().filter(|(_, measure)| measure.bound.threshold().is_finite()) {
            let rule = rules.entry(measure.reason.into_owned()).or_default();
            rule.filter = filter;
            rule.bounds.push(measure.bound);
            let bound = Some(measure.bound);
            let sample = || sample(&document, measure.value, bound, options);
            rule.kept.add(sample, measure.value, bound, options.samples);
        }
    })?;
    let mut rules: Vec<RuleView> = rules.into_iter().map(|(reason, rule)| rule.view(reason)).collect();
    rules.sort_by(|a, b| b.rejected.cmp(&a.rejected).then_with(|| a.reason.cmp(&b.reason)));
    Ok(Borderline { rules, measured: seen })
}

fn owned((filter, measure): (&str, Measure)) -> (String, Measure) {
    (filter.to_owned(), measure)
}

impl Collected {
    fn view(self, reason: String) -> RuleView {
        let bound = self.bounds.first().copied().filter(|first| self.bounds.iter().all(|bound| bound == first));
        let threshold = bound.map(Bound::threshold);
        let [rejected_values, kept_values] = Histogram::pair(&self.rejected.values, &self.kept.values, BINS, threshold);
        let samples = |side: Side| side.nearest.into_values().collect();
        RuleView {
            reason,
            filter: self.filter,
            rejected: self.rejected.values.len() as u64,
            threshold,
            is_minimum: self.bounds.first().map(|bound| matches!(bound, Bound::Min(_))),
            rejected_values,
            kept_values,
            just_rejected: samples(self.rejected),
            just_kept: samples(self.kept),
        }
    }
}

/// A line of `rejected/`.
struct Rejected {
    document: Document,
    reason: String,
    filter: String,
    value: f64,
}

impl Rejected {
    /// `None` for a line that was no document.
    fn of(mut line: Document) -> Option<Self> {
        let text = |key: &str| line.meta.get(key).and_then(Value::as_str).map(str::to_owned);
        let (reason, filter) = (text("reason")?, text("filter")?);
        let value = line.meta.get("value").and_then(Value::as_f64).unwrap_or(f64::NAN);
        let meta = line.meta.remove("meta");
        line.meta =
            meta.and_then(|meta| if let Value::Object(meta) = meta { Some(meta) } else { None }).unwrap_or_default();
        Some(Self { document: line, reason, filter, value })
    }
}

fn sample(document: &Document, value: f64, bound: Option<Bound>, options: &BorderlineOptions) -> Sample {
    Sample {
        id: document.id.clone(),
        lang: document.lang().unwrap_or_default().to_owned(),
        source: document.field("source").unwrap_or_default().to_owned(),
        value,
        threshold: bound.map(Bound::threshold),
        excerpt: excerpt(&document.text, options.excerpt_chars),
    }
}
