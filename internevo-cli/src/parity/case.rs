//! A layout by its name, and the configuration that the name means.
//!
//! A name is a list of parts joined by `+`, in any order:
//!
//! | part | means |
//! |---|---|
//! | `dp4` | four ranks of a data-parallel group |
//! | `mtp2`, `msp2`, `fsp2`, `isp2` | `parallel.tensor.size` and `mode` |
//! | `isp2x4` | `isp` with `sequence_2D`: head groups of 2, context groups of 4 |
//! | `wp4` | `parallel.weight.size` |
//! | `zero1`, `zero2`, `zero3` | `parallel.zero1.stage` over the whole group; `zero2:4` in subgroups of 4; `zero1:1` off |
//! | `pp2` | `parallel.pipeline.size` |
//! | `recompute`, `recompute:0.5`, `selective` | `model.checkpoint` |
//! | `hidden` | `model.embed_split_hidden` |
//! | `gathered` | `model.parallel_output = false` |
//! | `noahead` | `parallel.weight.overlap = false` |
//! | `module` | `parallel.weight.forward_overlap_per = "module"` |
//! | `ahead:w1` | `parallel.weight.launch_allgather_before` |
//! | `contextfirst` | `parallel.sequence_2D.device_placement_strategy.head_first = false` |
//! | `late` | `hybrid_zero_optimizer.overlap_sync_grad = false` |
//! | `reference` | `model.kernels` |
//! | `kv2` | `model.num_kv_attention_heads` |

use std::fmt;

use internevo_core::config::{Config, Recompute, validate};

use super::problem::{self, MICRO_BATCHES};

/// A layout to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What the name means.
    pub config: Config,
}

/// Why a name means no layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseError {
    /// A part that is none.
    Unknown {
        /// The name.
        name: String,
        /// The part.
        part: String,
    },
    /// A layout that cannot work.
    Refused {
        /// The name.
        name: String,
        /// Every broken rule, with the keys it reads.
        rules: Vec<String>,
    },
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, part } => {
                write!(f, "layout `{name}`: `{part}` is no part of a name (`internevo parity --help` lists them)")
            }
            Self::Refused { name, rules } => write!(f, "layout `{name}` cannot work:\n  {}", rules.join("\n  ")),
        }
    }
}

impl std::error::Error for CaseError {}

impl Case {
    /// The layout called `name`.
    ///
    /// # Errors
    /// A part that is none, or every rule that the layout breaks.
    pub fn parse(name: &str) -> Result<Self, CaseError> {
        let mut config = problem::config();
        let mut data = 1;
        for part in name.split('+') {
            set(&mut config, &mut data, part)
                .ok_or_else(|| CaseError::Unknown { name: name.to_owned(), part: part.to_owned() })?;
        }
        config.launch.ranks = data * config.parallel.tensor.size * config.parallel.pipeline.size;
        let mut rules: Vec<String> =
            validate(&config).into_iter().map(|v| format!("{}: {}", v.keys.join(", "), v.message)).collect();
        if !MICRO_BATCHES.is_multiple_of(data) {
            rules.push(format!("dp{data}: the problem's {MICRO_BATCHES} micro-batches cannot be divided by it"));
        }
        if !rules.is_empty() {
            return Err(CaseError::Refused { name: name.to_owned(), rules });
        }
        config.data.micro_num = MICRO_BATCHES / data;
        Ok(Self { name: name.to_owned(), config })
    }

    /// Its ranks.
    pub fn world(&self) -> usize {
        self.config.launch.ranks
    }

    /// The parts of its name.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.name.split('+')
    }
}

/// Applies one part of a name; `None` if it is none.
fn set(config: &mut Config, data: &mut usize, part: &str) -> Option<()> {
    let parallel = &mut config.parallel;
    let (word, option) = part.split_once(':').map_or((part, None), |(word, option)| (word, Some(option)));
    let (name, number) = word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len()));
    match (name, number, option) {
        ("dp", n, None) => *data = n.parse().ok()?,
        ("pp", n, None) => parallel.pipeline.size = n.parse().ok()?,
        ("wp", n, None) => parallel.weight.size = n.parse().ok()?,
        ("kv", n, None) => config.model.num_kv_attention_heads = n.parse().ok()?,
        ("mtp" | "msp" | "fsp" | "isp", n, None) => {
            parallel.tensor.mode = name.to_owned();
            match n.split_once('x') {
                Some((head, context)) => {
                    let grid = &mut parallel.sequence_2d;
                    (grid.enable, grid.head_size, grid.context_size) =
                        (true, head.parse().ok()?, context.parse().ok()?);
                    parallel.tensor.size = grid.head_size * grid.context_size;
                }
                None => parallel.tensor.size = n.parse().ok()?,
            }
        }
        ("zero", stage, size) => {
            parallel.zero1.stage = stage.parse().ok()?;
            parallel.zero1.size = size.map_or(Some(-1), |s| s.parse().ok())?;
        }
        ("recompute", "", None) => config.model.checkpoint = Recompute::Full,
        ("recompute", "", Some(share)) => config.model.checkpoint = Recompute::Fraction(share.parse().ok()?),
        ("selective", "", None) => config.model.checkpoint = Recompute::Selective,
        ("hidden", "", None) => config.model.embed_split_hidden = true,
        ("gathered", "", None) => config.model.parallel_output = false,
        ("noahead", "", None) => parallel.weight.overlap = false,
        ("ahead", "", Some(place)) => parallel.weight.launch_allgather_before = place.to_owned(),
        ("contextfirst", "", None) => parallel.sequence_2d.device_placement_strategy.head_first = false,
        ("late", "", None) => config.hybrid_zero_optimizer.overlap_sync_grad = false,
        ("reference", "", None) => config.model.kernels = "reference".to_owned(),
        ("module", "", None) => parallel.weight.forward_overlap_per = "module".to_owned(),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_its_layout() {
        let case = Case::parse("isp2x2+wp4+dp2+zero2:1+selective").expect("a layout");
        let parallel = &case.config.parallel;
        assert_eq!((case.world(), parallel.tensor.size, parallel.weight.size), (8, 4, 4));
        assert_eq!((parallel.sequence_2d.head_size, parallel.sequence_2d.context_size), (2, 2));
        assert_eq!((parallel.zero1.stage, parallel.zero1.size, case.config.data.micro_num), (2, 1, 4));
        assert_eq!(case.config.model.checkpoint, Recompute::Selective);
    }

    #[test]
    fn a_layout_that_cannot_work_is_refused_with_every_broken_rule_at_once() {
        let error = Case::parse("mtp8+wp2+zero3+pp2").expect_err("nothing of it works").to_string();
        for rule in ["key/value heads", "parallel.weight.size", "parallel.pipeline.size", "parallel.zero1.stage"] {
            assert!(error.contains(rule), "{rule}: {error}");
        }
        assert!(matches!(Case::parse("dp2+what"), Err(CaseError::Unknown { part, .. }) if part == "what"));
        assert!(Case::parse("dp3").expect_err("8 micro-batches").to_string().contains("micro-batches"));
    }
}
