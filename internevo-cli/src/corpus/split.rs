//! Which packages are held out for validation.
//!
//! Whole packages, so that no validation document has a sibling (a translated page, a shared header) in the training data; and a
//! share of the *text*, not of the number of packages: sizes differ a thousandfold, and a twentieth of the packages may hold
//! almost nothing to measure a loss on.

use std::collections::{BTreeMap, BTreeSet};

use internevo_core::rng::CounterRng;

/// A package may carry the held-out text this far beyond the wanted share; a larger one stays in the training data.
const OVERSHOOT: f64 = 1.5;

/// The packages to hold out: about `fraction` of the bytes of `packages` (name → bytes). They are taken in an order that depends
/// on nothing but their names. With a positive fraction and at least two packages, both sides get at least one.
pub fn held_out(packages: &BTreeMap<String, u64>, fraction: f64) -> BTreeSet<&str> {
    let mut out = BTreeSet::new();
    if fraction <= 0.0 || packages.len() < 2 {
        return out;
    }
    let total: u64 = packages.values().sum();
    let wanted = total as f64 * fraction;
    let mut order: Vec<(&str, u64)> = packages.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    order.sort_by_cached_key(|(name, _)| CounterRng::new(0, name).word64(0));
    let mut bytes = 0.0;
    for (name, size) in &order {
        let fits = bytes + *size as f64 <= wanted * OVERSHOOT;
        if bytes < wanted && fits && out.len() + 1 < order.len() {
            out.insert(*name);
            bytes += *size as f64;
        }
    }
    if out.is_empty() {
        // Every package is larger than the share: the smallest one comes closest to it.
        out.extend(order.iter().min_by_key(|(_, size)| *size).map(|(name, _)| *name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(seed: u64) -> BTreeMap<String, u64> {
        let rng = CounterRng::new(seed, "packages");
        // Sizes from 1 kB to 1 MB, evenly spread in the exponent.
        (0..60).map(|i| (format!("package-{i}"), (1e3 * 1e3_f64.powf(rng.uniform(i))) as u64)).collect()
    }

    #[test]
    fn the_held_out_text_is_near_the_wanted_share_whatever_the_sizes() {
        for seed in 0..50 {
            let packages = packages(seed);
            let total: u64 = packages.values().sum();
            let bytes: u64 = held_out(&packages, 0.05).iter().map(|name| packages[*name]).sum();
            let share = bytes as f64 / total as f64;
            assert!((0.025..=0.075).contains(&share), "seed {seed}: {share}");
        }
    }

    #[test]
    fn both_sides_have_a_package_and_nothing_is_held_out_at_zero() {
        let two = BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 1_000_000)]);
        assert_eq!(held_out(&two, 0.05).len(), 1);
        assert_eq!(held_out(&two, 0.5).len(), 1);
        let alike = BTreeMap::from([("a".to_owned(), 500), ("b".to_owned(), 500)]);
        assert_eq!(held_out(&alike, 0.05).len(), 1);
        assert!(held_out(&packages(1), 0.0).is_empty());
        assert!(held_out(&BTreeMap::from([("a".to_owned(), 10)]), 0.2).is_empty());
    }
}
