//! Training and validation: which package's documents go where.
//!
//! A whole package is on one side, so a validation document never has a sibling (a translated page, a shared header) in
//! the training data. The side depends on the package's name alone: the same package stays on its side when the corpus
//! grows.

use std::collections::BTreeMap;

/// A side of the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Training data.
    Train,
    /// Held out.
    Valid,
}

/// The split of a known list of packages.
#[derive(Clone, Debug)]
pub struct Split {
    fraction: f64,
    /// Packages that the at-least-one rule moved to the other side.
    moved: BTreeMap<String, Part>,
}

impl Split {
    /// Splits `packages`, holding out about `fraction` of them. Names may repeat.
    ///
    /// With a positive fraction and at least two packages, both sides get at least one: the package with the smallest
    /// (for validation) or largest (for training) hash moves if need be.
    pub fn new<'a>(packages: impl IntoIterator<Item = &'a str>, fraction: f64) -> Self {
        let mut split = Self { fraction, moved: BTreeMap::new() };
        let mut places: Vec<(f64, &str)> = packages.into_iter().map(|name| (place(name), name)).collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
        places.dedup();
        if let ([first, .., last], true) = (places.as_slice(), fraction > 0.0) {
            if split.of(first.1) == Part::Train {
                split.moved.insert(first.1.to_owned(), Part::Valid);
            }
            if split.of(last.1) == Part::Valid {
                split.moved.insert(last.1.to_owned(), Part::Train);
            }
        }
        split
    }

    /// The side of `package`.
    pub fn of(&self, package: &str) -> Part {
        match self.moved.get(package) {
            Some(part) => *part,
            None if place(package) < self.fraction => Part::Valid,
            None => Part::Train,
        }
    }
}

/// Where a name falls in `[0, 1)`, evenly spread.
fn place(package: &str) -> f64 {
    let digest = blake3::hash(package.as_bytes());
    let word = u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("eight bytes"));
    (word >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_sides_have_a_package_whatever_the_names(
            names in proptest::collection::btree_set("[a-z]{1,8}", 2..40), fraction in 0.001f64..0.5,
        ) {
            let split = Split::new(names.iter().map(String::as_str), fraction);
            let valid = names.iter().filter(|name| split.of(name) == Part::Valid).count();
            prop_assert!(valid >= 1 && valid < names.len());
        }
    }

    #[test]
    fn about_the_asked_fraction_is_held_out_and_nothing_at_zero() {
        let names: Vec<String> = (0..4000).map(|i| format!("package-{i}")).collect();
        let count = |fraction| {
            let split = Split::new(names.iter().map(String::as_str), fraction);
            names.iter().filter(|name| split.of(name) == Part::Valid).count()
        };
        assert!((count(0.05) as f64 - 200.0).abs() < 4.0 * 13.8, "{}", count(0.05));
        assert_eq!(count(0.0), 0);
    }
}
