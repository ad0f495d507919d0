//! Which layouts are tried, and which must be refused.

use super::Case;

/// Every layout of the matrix: each strategy with each size that fits 1, 2, 4 and 8 ranks, alone and combined.
pub fn cases() -> Vec<Case> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| names.push(name.to_owned());
    for world in [2, 4, 8] {
        for zero in ["zero1:1", "zero1", "zero2", "zero3"] {
            add(&format!("dp{world}+{zero}"));
        }
    }
    for hybrid in ["dp4+zero1:2", "dp8+zero1:4", "dp4+zero2:2", "dp8+zero2:4", "dp4+zero3:2", "dp8+zero3:2"] {
        add(hybrid);
    }
    for mode in ["mtp", "msp", "fsp"] {
        for part in ["2", "4", "2+dp2+zero1:1", "2+dp2", "2+dp4+zero1:2", "4+dp2+zero2", "2+dp2+zero3", "2+dp4+zero3:2"]
        {
            add(&format!("{mode}{part}"));
        }
        for part in
            ["2+hidden", "4+gathered", "2+hidden+gathered+dp2+zero3", "2+dp2+recompute", "2+dp2+zero3+recompute"]
        {
            add(&format!("{mode}{part}"));
        }
        add(&format!("{mode}2+selective"));
    }
    for sequence in ["isp2", "isp4", "isp8", "isp1x2", "isp1x4", "isp2x2", "isp4x2", "isp2x4", "isp1x8", "isp8+kv2"] {
        add(sequence);
    }
    for weight in [
        "dp2+isp1+wp2",
        "dp4+isp1+wp4",
        "dp4+isp1+wp2+zero1:2",
        "isp2+wp2",
        "isp2+wp4+dp2",
        "isp4+wp2+dp2+zero1:2",
        "isp2+wp8+dp4",
        "isp8+wp8+kv2",
        "isp2x2+wp4+dp2",
        "isp1x4+wp4",
        "isp1x2+wp2+dp4+zero2",
        "isp4x2+wp4+zero2",
        "dp4+isp1+wp2+zero2",
        "dp2+isp1+zero2",
        "dp8+isp1+wp2+zero2:2",
        "isp2x2+wp2+contextfirst",
        "isp4x2+contextfirst",
    ] {
        add(weight);
    }
    for recompute in [
        "dp1+recompute",
        "dp1+recompute:0.5",
        "dp1+selective",
        "dp2+zero3+recompute",
        "dp4+zero3:2+recompute:0.5",
        "dp4+zero3+selective",
        "isp2+wp2+recompute",
        "isp2x2+wp4+dp2+recompute:0.5",
        "isp1x2+wp2+dp2+selective",
        "isp2+wp4+dp2+noahead",
        "dp4+zero3+module",
        "isp2+wp2+module+recompute",
        "dp2+late",
        "msp2+dp2+zero2+late",
        "mtp2+reference",
        "isp2+wp2+reference+recompute",
        "msp2+hidden+gathered+selective",
        "isp2+wp4+dp2+ahead:wqkv",
        "dp4+zero3+ahead:w1+recompute",
    ] {
        add(recompute);
    }
    names.iter().map(|name| Case::parse(name).unwrap_or_else(|error| panic!("of the matrix: {error}"))).collect()
}

/// Combinations that cannot work; each must be refused, with its reasons.
pub fn refusals() -> [&'static str; 16] {
    [
        "dp2+pp2",
        "mtp8",
        "msp4+kv2",
        "mtp2+wp2",
        "dp4+zero1:3",
        "dp2+zero4",
        "isp2+wp2+zero3",
        "isp2+wp3",
        "msp2x2",
        "isp3+dp1",
        "isp8+kv3",
        "isp1x64",
        "mtp16+wp2",
        "isp2+hidden",
        "isp2+gathered",
        "pp2+dp2+zero3",
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::CaseError, *};

    #[test]
    fn the_matrix_holds_at_least_forty_different_layouts_of_up_to_eight_ranks() {
        let cases = cases();
        let names: std::collections::BTreeSet<_> = cases.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), cases.len(), "a layout is tried twice");
        assert!(cases.len() >= 40 && cases.iter().all(|c| c.world() <= 8), "{}", cases.len());
        let three_at_once = cases.iter().filter(|c| c.parts().count() >= 3).count();
        assert!(three_at_once >= 10, "{three_at_once}");
    }

    #[test]
    fn every_refusal_is_refused() {
        for name in refusals() {
            assert!(matches!(Case::parse(name), Err(CaseError::Refused { .. })), "{name}");
        }
    }
}
