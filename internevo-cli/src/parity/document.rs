//! The composability matrix: for each pair of features, whether a layout with both was measured and passed, or is refused and why.

use std::collections::BTreeMap;

use internevo_core::layout::{GroupKind, ParallelLayout, ZeroStage};

use super::{Case, CaseError, Deviation};

/// A feature of a layout.
struct Feature {
    title: &'static str,
    shown_by: fn(&Shown<'_>) -> bool,
}

/// What features are read from: the parts of a name, and what a layout that works comes to.
struct Shown<'a> {
    parts: Vec<&'a str>,
    layout: Option<ParallelLayout>,
}

impl<'a> Shown<'a> {
    fn new(name: &'a str) -> Self {
        let case = Case::parse(name).ok();
        let layout = case.and_then(|c| ParallelLayout::new(&c.config.parallel, c.world()).ok());
        Self { parts: name.split('+').collect(), layout }
    }

    fn part(&self, rule: impl Fn(&str) -> bool) -> bool {
        self.parts.iter().any(|part| rule(part))
    }

    /// Whether a group has several ranks; of a layout that does not work, what its name says.
    fn size(&self, kind: GroupKind, prefix: &str) -> bool {
        match &self.layout {
            Some(layout) => layout.size(kind) > 1,
            None => self.part(|p| p.starts_with(prefix) && !p.ends_with('1')),
        }
    }

    fn zero(&self, stage: ZeroStage, prefix: &str) -> bool {
        match &self.layout {
            Some(layout) => layout.zero_stage() == stage && layout.size(GroupKind::Zero1) > 1,
            None => self.part(|p| p.starts_with(prefix)),
        }
    }
}

const FEATURES: [Feature; 15] = [
    Feature { title: "data", shown_by: |s| s.size(GroupKind::Data, "dp") },
    Feature { title: "ZeRO-1", shown_by: |s| s.zero(ZeroStage::Optimizer, "zero1") },
    Feature { title: "ZeRO-2", shown_by: |s| s.zero(ZeroStage::Gradients, "zero2") },
    Feature { title: "ZeRO-3", shown_by: |s| s.zero(ZeroStage::Weights, "zero3") },
    Feature {
        title: "hybrid ZeRO",
        shown_by: |s| {
            s.layout.as_ref().is_some_and(|l| l.size(GroupKind::Zero1) > 1 && l.size(GroupKind::Zero1Replica) > 1)
        },
    },
    Feature { title: "mtp", shown_by: |s| s.part(|p| p.starts_with("mtp")) },
    Feature { title: "msp", shown_by: |s| s.part(|p| p.starts_with("msp")) },
    Feature { title: "fsp", shown_by: |s| s.part(|p| p.starts_with("fsp")) },
    Feature { title: "isp heads", shown_by: |s| s.size(GroupKind::SequenceHead, "isp") },
    Feature { title: "isp ring", shown_by: |s| s.size(GroupKind::SequenceContext, "isp1x") },
    Feature { title: "weight", shown_by: |s| s.size(GroupKind::Weight, "wp") },
    Feature { title: "recompute", shown_by: |s| s.part(|p| p.starts_with("recompute")) },
    Feature { title: "selective", shown_by: |s| s.part(|p| p == "selective") },
    Feature { title: "embedding by columns", shown_by: |s| s.part(|p| p == "hidden") },
    Feature { title: "pipeline", shown_by: |s| s.part(|p| p.starts_with("pp")) },
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
        // Only where these two features are all that the layout shows: otherwise another may be the reason.
        if let CaseError::Refused { name, .. } = error
            && pairs(name).count() <= 3
        {
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
    let of = Shown::new(name);
    let shown: Vec<usize> = (0..FEATURES.len()).filter(|i| (FEATURES[*i].shown_by)(&of)).collect();
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
