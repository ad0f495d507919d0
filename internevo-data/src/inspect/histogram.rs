//! Numbers in bins.

use serde::Serialize;

/// Bins of equal width.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin.
    pub high: f64,
    /// Numbers in each bin. The first and the last one also count what lies beyond them.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// `values` in `bins` bins from their 1st to their 99th percentile, widened to hold `within`. Values that are no numbers are left
    /// out.
    pub fn of(values: &[f64], bins: usize, within: Option<f64>) -> Self {
        let (low, high) = Self::range(values, within);
        Self::between(values, low, high, bins)
    }

    /// As [`Self::of`], for two groups on one scale.
    pub fn pair(one: &[f64], other: &[f64], bins: usize, within: Option<f64>) -> [Self; 2] {
        let (low, high) = Self::range(&[one, other].concat(), within);
        [one, other].map(|values| Self::between(values, low, high, bins))
    }

    fn range(values: &[f64], within: Option<f64>) -> (f64, f64) {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let percentile = |share: f64| sorted.get((share * sorted.len() as f64) as usize).or(sorted.last()).copied();
        let ends = percentile(0.01).zip(percentile(0.99)).unwrap_or((0.0, 1.0));
        let within = within.filter(|within| within.is_finite());
        let (low, high) = within.map_or(ends, |within| (ends.0.min(within), ends.1.max(within)));
        if high > low { (low, high) } else { (low - 0.5, low + 0.5) }
    }

    fn between(values: &[f64], low: f64, high: f64, bins: usize) -> Self {
        let mut counts = vec![0; bins.max(1)];
        for value in values.iter().filter(|value| value.is_finite()) {
            let bin = (value - low) / (high - low) * counts.len() as f64;
            let last = counts.len() - 1;
            counts[(bin.max(0.0) as usize).min(last)] += 1;
        }
        Self { low, high, counts }
    }

    /// All numbers counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}
