//! What a stage counted: the content of `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::filter::Change;

/// Example rejections kept per reason.
const EXAMPLES: usize = 5;

/// A finished stage. Bytes are UTF-8 bytes of text (of the line, where a line is no document).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Name of the stage.
    pub stage: String,
    /// Documents read, broken lines included.
    pub documents_in: u64,
    /// Documents in `kept/`.
    pub documents_kept: u64,
    /// Bytes of all documents read.
    pub bytes_in: u64,
    /// Bytes of the documents in `kept/`, as they came in.
    pub bytes_kept: u64,
    /// Rejected documents by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Documents in `kept/` whose text is not the one that came in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub documents_edited: u64,
    /// Bytes of the documents in `kept/`, as they are there.
    #[serde(default)]
    pub bytes_written: u64,
    /// What was changed in the documents of `kept/`, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub edits: BTreeMap<String, EditTotal>,
    /// What each rule rejected, by reason: more than the number that `reasons` has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RuleTotal>,
    /// CPU time of the process during the stage, seconds.
    pub cpu_seconds: f64,
    /// Time from start to end, seconds; interrupted attempts included.
    pub wall_seconds: f64,
    /// Largest resident memory of the process so far, bytes; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Hash of what was asked for: stage, settings, inputs. A request with the same hash reuses the folder.
    pub request: String,
    /// Each filter's share, in the order of the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_filter: Vec<FilterTotal>,
    /// The first rejections of each reason.
    #[serde(default)]
    pub examples: BTreeMap<String, Vec<Example>>,
    /// Size of each file of `kept/`, bytes: a folder whose files have other sizes is not reused.
    #[serde(default)]
    pub kept_files: Vec<u64>,
    /// Was a finished folder reused? Not stored.
    #[serde(skip)]
    pub reused: bool,
}

/// What one filter did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilterTotal {
    /// Its name.
    pub filter: String,
    /// Documents it saw.
    pub documents: u64,
    /// Documents it dropped.
    pub dropped: u64,
    /// Documents it edited, those that a later filter dropped among them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edited: u64,
    /// Time in it, seconds over all threads; work that filters share is charged to the first that asks.
    pub seconds: f64,
}

/// What was changed for one reason. Bytes of text as it came in = bytes as written + removed − added, over all reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditTotal {
    /// Documents.
    pub documents: u64,
    /// Places in them.
    pub places: u64,
    /// Bytes that were cut out or replaced.
    pub bytes_removed: u64,
    /// Bytes that came in their place.
    pub bytes_added: u64,
}

impl EditTotal {
    /// One document's changes.
    pub(super) fn of(change: &Change) -> Self {
        let Change { places, bytes_removed, bytes_added } = *change;
        Self { documents: 1, places, bytes_removed, bytes_added }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.places += other.places;
        self.bytes_removed += other.bytes_removed;
        self.bytes_added += other.bytes_added;
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What one rule rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleTotal {
    /// Documents.
    pub documents: u64,
    /// Their bytes of text.
    pub bytes: u64,
    /// Histogram of what the rule measured in them: lower bound (0, or 1, 2 or 5 times a power of ten) and number of documents,
    /// ascending.
    pub values: Vec<(f64, u64)>,
}

impl RuleTotal {
    /// Counts a rejected document.
    pub(super) fn count(&mut self, bytes: u64, value: f64) {
        self.add(&Self { documents: 1, bytes, values: vec![(lower_bound(value), 1)] });
    }

    fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        for &(bound, count) in &other.values {
            match self.values.binary_search_by(|(own, _)| own.total_cmp(&bound)) {
                Ok(at) => self.values[at].1 += count,
                Err(at) => self.values.insert(at, (bound, count)),
            }
        }
    }
}

/// The bound of [`RuleTotal::values`] at or below `value`; 0 for what is not positive, not finite or below a millionth.
fn lower_bound(value: f64) -> f64 {
    const SMALLEST: i32 = -6;
    const LARGEST: i32 = 12;
    let bounds = (SMALLEST..=LARGEST).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)));
    // Divided, not multiplied, below 1: so 0.2 is the number that is written 0.2.
    let number = |(digit, power): (f64, i32)| {
        if power < 0 { digit / 10f64.powi(-power) } else { digit * 10f64.powi(power) }
    };
    bounds.map(number).take_while(|bound| value.is_finite() && *bound <= value).last().unwrap_or(0.0)
}

/// A rejected document, for a reader of the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its id; empty when a line has none.
    pub id: String,
    /// `file:line`.
    pub place: String,
    /// What the rule measured.
    pub value: f64,
    /// The beginning of its text.
    pub excerpt: String,
}

impl StageReport {
    /// Nothing counted yet.
    pub fn new(stage: &str, request: &str) -> Self {
        Self { stage: stage.to_owned(), request: request.to_owned(), ..Self::default() }
    }

    /// Adds another part's counts. Order matters for the examples only: the earlier ones stay.
    pub fn add(&mut self, other: &Self) {
        self.documents_in += other.documents_in;
        self.documents_kept += other.documents_kept;
        self.bytes_in += other.bytes_in;
        self.bytes_kept += other.bytes_kept;
        self.bytes_written += other.bytes_written;
        self.documents_edited += other.documents_edited;
        for (reason, total) in &other.edits {
            self.edits.entry(reason.clone()).or_default().add(total);
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        for (reason, total) in &other.rules {
            self.rules.entry(reason.clone()).or_default().add(total);
        }
        for total in &other.per_filter {
            match self.per_filter.iter_mut().find(|own| own.filter == total.filter) {
                None => self.per_filter.push(total.clone()),
                Some(own) => {
                    own.documents += total.documents;
                    own.dropped += total.dropped;
                    own.edited += total.edited;
                    own.seconds += total.seconds;
                }
            }
        }
        for (reason, examples) in &other.examples {
            let own = self.examples.entry(reason.clone()).or_default();
            own.extend(examples.iter().take(EXAMPLES - own.len()).cloned());
        }
    }

    /// Remembers a rejection if its reason has room for another example.
    pub(super) fn add_example(&mut self, reason: &str, example: impl FnOnce() -> Example) {
        let own = self.examples.entry(reason.to_owned()).or_default();
        if own.len() < EXAMPLES {
            own.push(example());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_the_bound_below_them_whatever_the_order_of_the_parts() {
        let total = |values: &[f64]| {
            let mut total = RuleTotal::default();
            values.iter().for_each(|value| total.count(10, *value));
            total
        };
        let mut one = total(&[0.2, 0.31, 7.0]);
        let other = total(&[0.0, 0.25, f64::NAN, 49.9]);
        let mut back = other.clone();
        one.add(&other);
        back.add(&total(&[7.0, 0.2, 0.31]));
        assert_eq!(one, back);
        assert_eq!(one.values, [(0.0, 2), (0.2, 3), (5.0, 1), (20.0, 1)]);
        assert_eq!((one.documents, one.bytes), (7, 70));
    }
}
