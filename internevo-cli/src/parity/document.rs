//! The composability matrix: for each pair of features, whether a layout with both was measured and passed, or is refused and why.

use std::collections::BTreeMap;

use super::{CaseError, Deviation};

/// A feature of a layout and the parts of names that show it.
struct Feature {
    title: &'static str,
    shown_by: fn(&str) -> bool,
}

const FEATURES: [Feature; 15] = [
    Feature { title: "dp", shown_by: |p| p.starts_with("dp") && p != "dp1" },
    Feature { title: "ZeRO-1", shown_by: |p| p == "zero1" || p.starts_with("zero1:") && p != "zero1:1" },
    Feature { title: "ZeRO-2", shown_by: |p| p.starts_with("zero2") },
    Feature { title: "ZeRO-3", shown_by: |p| p.starts_with("zero3") },
    Feature { title: "hybrid ZeRO", shown_by: |p| p.starts_with("zero") && p.contains(':') && !p.ends_with(":1") },
    Feature { title: "mtp", shown_by: |p| p.starts_with("mtp") },
    Feature { title: "msp", shown_by: |p| p.starts_with("msp") },
    Feature { title: "fsp", shown_by: |p| p.starts_with("fsp") },
    Feature { title: "isp heads", shown_by: |p| p.starts_with("isp") && !p.starts_with("isp1") },
    Feature { title: "isp ring", shown_by: |p| p.starts_with("isp") && p.contains('x') },
    Feature { title: "weight", shown_by: |p| p.starts_with("wp") },
    Feature { title: "recompute", shown_by: |p| p.starts_with("recompute") },
    Feature { title: "selective", shown_by: |p| p == "selective" },
    Feature { title: "embedding by columns", shown_by: |p| p == "hidden" },
    Feature { title: "pipeline", shown_by: |p| p.starts_with("pp") },
];

/// What a pair of features comes to.
#[derive(Default)]
struct Cell<'a> {
    passed: usize,
    failed: usize,
    refused: Vec<&'a str>,
}

/// The matrix as Markdown.
pub fn markdown(results: &[Deviation], refused: &[CaseError]) -> String {
    let mut cells: BTreeMap<(usize, usize), Cell<'_>> = BTreeMap::new();
    for result in results {
        for pair in pairs(&result.name) {
            let cell = cells.entry(pair).or_default();
            *(if result.passed { &mut cell.passed } else { &mut cell.failed }) += 1;
        }
    }
    for error in refused {
        if let CaseError::Refused { name, .. } = error {
            pairs(name).for_each(|pair| cells.entry(pair).or_default().refused.push(name));
        }
    }
    let mut text = String::from(HEAD);
    let title = |f: &Feature| format!(" {} |", f.title);
    text.push_str(&format!("| |{}\n", FEATURES.iter().map(title).collect::<String>()));
    text.push_str(&format!("|---|{}\n", "---|".repeat(FEATURES.len())));
    for (row, feature) in FEATURES.iter().enumerate() {
        text.push_str(&format!("| **{}** |", feature.title));
        for column in 0..FEATURES.len() {
            let cell = cells.get(&(row.min(column), row.max(column)));
            text.push_str(&format!(" {} |", cell.map_or_else(|| "·".to_owned(), Cell::symbol)));
        }
        text.push('\n');
    }
    text.push_str("\n## Layouts that passed\n\n| layout | ranks | rule |\n|---|---|---|\n");
    for result in results.iter().filter(|r| r.passed) {
        let rule = match result.rule {
            super::Rule::Bitwise => "same bits".to_owned(),
            super::Rule::Within(bound) => format!("≤ {bound:.0e}"),
        };
        text.push_str(&format!("| `{}` | {} | {rule} |\n", result.name, result.world));
    }
    text.push_str("\n## Combinations that are refused\n\n| layout | rules it breaks |\n|---|---|\n");
    for error in refused {
        if let CaseError::Refused { name, rules } = error {
            text.push_str(&format!("| `{name}` | {} |\n", rules.join("<br>")));
        }
    }
    text
}

const HEAD: &str = "# What combines with what\n\n\
    Written by `internevo parity --markdown internevo-parallel/COMPOSABILITY.md`, which trains a small model on every layout and \
    compares losses and all gradients with one rank. ✓ = layouts with both features were measured and keep their rule \
    (how many), ✗ = such a layout deviates, – = refused (see the end), · = no layout of the matrix has both.\n\n";

/// The pairs of features that a layout shows; a feature with itself where it is there at all.
fn pairs(name: &str) -> impl Iterator<Item = (usize, usize)> {
    let shown: Vec<usize> = (0..FEATURES.len()).filter(|i| name.split('+').any(FEATURES[*i].shown_by)).collect();
    let all: Vec<_> = shown.iter().enumerate().flat_map(|(at, a)| shown[at..].iter().map(move |b| (*a, *b))).collect();
    all.into_iter()
}

impl Cell<'_> {
    fn symbol(&self) -> String {
        match self {
            Self { failed: 1.., .. } => format!("✗ {}", self.failed),
            Self { passed: 1.., .. } => format!("✓ {}", self.passed),
            _ => "–".to_owned(),
        }
    }
}
