//! The rules of the group algebra, and the error that lists every broken one.

use std::fmt;

use crate::config::ParallelConfig;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutViolation {
    /// The configuration key to change.
    pub key: &'static str,
    /// Which rule is broken, with the numbers.
    pub message: String,
}

/// Every rule that a layout breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutErrors(pub Vec<LayoutViolation>);

impl fmt::Display for LayoutErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {}", violation.key, violation.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for LayoutErrors {}

/// All broken rules; empty for a layout that exists.
pub(super) fn violations(config: &ParallelConfig, world: usize) -> Vec<LayoutViolation> {
    let mut found = Vec::new();
    let mut report = |key, message: String| found.push(LayoutViolation { key, message });
    let (pp, tp, wp) = (config.pipeline.size, config.tensor.size, config.weight.size);
    let isp = config.tensor.mode == "isp";
    if !isp && wp > 1 {
        report("parallel.weight.size", format!("weight groups of {wp} ranks need `parallel.tensor.mode = \"isp\"`"));
    }
    if world == 0 {
        report("launch.ranks", "a job needs at least one rank".to_owned());
    }
    let sizes = [("parallel.pipeline.size", pp), ("parallel.tensor.size", tp), ("parallel.weight.size", wp)];
    for (key, _) in sizes.iter().filter(|(_, size)| *size == 0) {
        report(key, "a group needs at least one rank (1 = off)".to_owned());
    }
    if !matches!(config.zero1.stage, 1..=3) {
        report("parallel.zero1.stage", format!("{} is none of 1, 2, 3", config.zero1.stage));
    }
    if isp && (config.zero1.fsdp || config.zero1.stage == 3) {
        let key = if config.zero1.fsdp { "parallel.zero1.fsdp" } else { "parallel.zero1.stage" };
        report(key, "`isp` shards the weights already, over `parallel.weight.size`; use stage 1 or 2".to_owned());
    }
    if pp > 1 && (config.zero1.fsdp || config.zero1.stage == 3) {
        let key = if config.zero1.fsdp { "parallel.zero1.fsdp" } else { "parallel.zero1.stage" };
        report(key, "sharded weights cannot be combined with pipeline stages".to_owned());
    }
    let grid = &config.sequence_2d;
    if grid.enable {
        if !isp {
            report("parallel.sequence_2D.enable", "needs `parallel.tensor.mode = \"isp\"`".to_owned());
        }
        if grid.head_size.checked_mul(grid.context_size) != Some(tp) {
            let (head, context) = (grid.head_size, grid.context_size);
            report(
                "parallel.sequence_2D.head_size",
                format!("head_size {head} times context_size {context} must be `parallel.tensor.size` = {tp}"),
            );
        }
    }
    if world == 0 || pp == 0 {
        return found;
    }
    if !world.is_multiple_of(pp) {
        report("parallel.pipeline.size", format!("{world} ranks cannot be split into {pp} stages"));
        return found;
    }
    let stage = world / pp;
    for (key, size, name) in [("parallel.tensor.size", tp, "tensor"), ("parallel.weight.size", wp, "weight")] {
        if size > 0 && !stage.is_multiple_of(size) {
            report(key, format!("the {stage} ranks of a stage cannot be split into {name} groups of {size}"));
        }
    }
    let (divisor, name) = if isp { (wp, "weight-data") } else { (tp, "data") };
    let zero1 = usize::try_from(config.zero1.size).unwrap_or(0);
    if divisor > 0 && stage.is_multiple_of(divisor) && zero1 > 0 && !(stage / divisor).is_multiple_of(zero1) {
        let group = stage / divisor;
        report(
            "parallel.zero1.size",
            format!("the {name} group of {group} cannot be split into ZeRO groups of {zero1}"),
        );
    }
    found
}
