//! Drawing the documents that say most about a threshold: those just above and just below it, from every stratum.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::threshold::VALUES;
use crate::{Document, least::Least};

/// How documents are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct BorderlineSettings {
    /// Name of the value.
    pub value: String,
    /// The threshold as it is.
    pub threshold: f64,
    /// Documents on each side, over all strata.
    pub per_side: usize,
    /// Fields whose values make a stratum, such as `source` and `lang`. None: all documents are one stratum.
    pub strata: Vec<String>,
}

/// Collects the documents nearest to a threshold.
#[derive(Debug)]
pub struct Borderline {
    settings: BorderlineSettings,
    /// By stratum: documents below the threshold and at or above it, the nearest first.
    strata: BTreeMap<Vec<String>, [Nearest; 2]>,
}

/// Documents by their distance; of equally distant ones the id decides, so that their order does not.
type Nearest = Least<(f64, String), Document>;

impl Borderline {
    /// Nothing is collected yet.
    pub fn new(settings: BorderlineSettings) -> Self {
        Self { settings, strata: BTreeMap::new() }
    }

    /// Looks at a document that carries its values; one without the value is passed over.
    pub fn add(&mut self, document: Document) {
        let value =
            document.meta.get(VALUES).and_then(|values| values.get(&self.settings.value)).and_then(Value::as_f64);
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let field = |name: &String| match document.meta.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let stratum = self.settings.strata.iter().map(field).collect();
        let sides = self.strata.entry(stratum).or_default();
        let side = &mut sides[usize::from(value >= self.settings.threshold)];
        let key = ((value - self.settings.threshold).abs(), document.id.clone());
        side.add(self.settings.per_side, key, || document);
    }

    /// The drawn documents, each with `side` (`above` or `below`) and an empty `label`. Every stratum gives the same number as far as
    /// it has them; what others lack is filled with the nearest that are left. Ordered by stratum, side and distance.
    pub fn draw(self) -> Vec<Document> {
        let mut drawn = Vec::new();
        let (strata, sides): (Vec<_>, Vec<_>) = self.strata.into_iter().unzip();
        let mut by_side: [Vec<Nearest>; 2] = Default::default();
        for [below, above] in sides {
            by_side[0].push(below);
            by_side[1].push(above);
        }
        for (side, candidates) in by_side.into_iter().enumerate() {
            let shares = shares(&candidates.iter().map(Nearest::len).collect::<Vec<_>>(), self.settings.per_side);
            for ((stratum, candidates), share) in candidates.into_iter().enumerate().zip(shares) {
                drawn.extend(candidates.into_values().take(share).map(|document| (stratum, side, document)));
            }
        }
        drawn.sort_by_key(|(stratum, side, _)| (*stratum, *side));
        let mut finished = Vec::with_capacity(drawn.len());
        for (stratum, side, mut document) in drawn {
            let names = self.settings.strata.iter().cloned().zip(strata[stratum].iter().map(|value| json!(value)));
            document.meta.insert("stratum".into(), Value::Object(names.collect()));
            document.meta.insert("side".into(), ["below", "above"][side].into());
            document.meta.insert("label".into(), "".into());
            finished.push(document);
        }
        finished
    }
}

/// Divides `wanted` among strata that have so many: equally, and what one lacks goes to the others.
fn shares(available: &[usize], wanted: usize) -> Vec<usize> {
    let mut shares = vec![0; available.len()];
    let mut left = wanted.min(available.iter().sum());
    while left > 0 {
        let open: Vec<usize> = (0..shares.len()).filter(|at| shares[*at] < available[*at]).collect();
        let each = (left / open.len()).max(1);
        for at in open {
            let more = each.min(available[at] - shares[at]).min(left);
            shares[at] += more;
            left -= more;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(id: &str, value: f64, source: &str) -> Document {
        let mut document = Document::new(id, "text");
        document.meta.insert(VALUES.into(), json!({ "perplexity": value }));
        document.meta.insert("source".into(), source.into());
        document
    }

    fn draw(documents: &[Document], per_side: usize) -> Vec<(String, String)> {
        let settings = BorderlineSettings {
            value: "perplexity".into(),
            threshold: 100.0,
            per_side,
            strata: vec!["source".into()],
        };
        let mut borderline = Borderline::new(settings);
        documents.iter().cloned().for_each(|document| borderline.add(document));
        let field = |document: &Document, name: &str| document.field(name).expect("a field").to_owned();
        borderline.draw().iter().map(|document| (document.id.clone(), field(document, "side"))).collect()
    }

    #[test]
    fn the_nearest_of_every_stratum_and_side_are_drawn_in_any_order_of_input() {
        let mut documents: Vec<Document> =
            (0..40).map(|i| scored(&format!("web-{i}"), 61.0 + 2.0 * f64::from(i), "web")).collect();
        documents.extend([("a", 99.0), ("b", 100.0), ("c", 20.0)].map(|(id, value)| scored(id, value, "book")));
        documents.push(Document::new("without a value", "text"));
        let found = draw(&documents, 4);
        let expected = [
            ("a", "below"),
            ("c", "below"),
            ("b", "above"),
            ("web-19", "below"),
            ("web-18", "below"),
            ("web-20", "above"),
            ("web-21", "above"),
            ("web-22", "above"),
        ];
        assert_eq!(found, expected.map(|(id, side)| (id.to_owned(), side.to_owned())));
        documents.reverse();
        assert_eq!(draw(&documents, 4), found);
    }

    #[test]
    fn what_a_stratum_lacks_goes_to_the_others() {
        assert_eq!(shares(&[1, 10, 10], 9), [1, 4, 4]);
        assert_eq!(shares(&[2, 0, 1], 9), [2, 0, 1]);
        assert_eq!(shares(&[5, 5, 5], 4).iter().sum::<usize>(), 4);
        assert_eq!(shares(&[], 4), [0; 0]);
    }
}
