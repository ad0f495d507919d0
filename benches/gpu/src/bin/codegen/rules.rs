//! Whether a kernel's machine code is what its call demands.

use gpu_benches::calls::{Rules, Tensor};

use crate::toolchain::Metrics;

/// What `metrics` of `kernel` break of `rules`, each as a sentence's end.
pub fn broken(rules: &Rules, kernel: &str, metrics: &Metrics) -> Vec<String> {
    let function = function(kernel);
    let mut broken = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let Metrics { registers, spilled_bytes, stack_bytes, local, load_bits, hmma, hgmma, .. } = *metrics;
    for loss in &metrics.losses {
        demand(false, format!("ptxas: {loss}"));
    }
    demand(registers <= rules.registers, format!("{registers} registers, budget {}", rules.registers));
    demand(spilled_bytes == 0, format!("{spilled_bytes} bytes spilled"));
    demand(stack_bytes == 0, format!("{stack_bytes} bytes of stack"));
    demand(local == 0, format!("{local} accesses to local memory"));
    if rules.wide.contains(&function) {
        demand(load_bits >= 128, format!("widest load {load_bits} bits, 128 claimed"));
    }
    for (_, tensor) in rules.tensor.iter().filter(|(name, _)| *name == function) {
        let (count, name) = if *tensor == Tensor::Hmma { (hmma, "HMMA") } else { (hgmma, "HGMMA") };
        demand(count > 0, format!("no {name}, claimed"));
    }
    broken
}

/// Claims on functions that none of `kernels` is: a claim nobody checks is a mistake.
pub fn unmet<'a>(rules: &'a Rules, kernels: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    let names = rules.wide.iter().copied().chain(rules.tensor.iter().map(|(name, _)| *name));
    names.filter(|name| !kernels.iter().any(|kernel| function(kernel) == *name))
}

/// `norm::forward_kernel#2` → `forward_kernel`.
fn function(kernel: &str) -> &str {
    let path = kernel.split('#').next().unwrap_or(kernel);
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use internevo_kernels::cube::F32;

    fn fine() -> Metrics {
        Metrics { registers: 32, load_bits: 128, instructions: 100, ..Metrics::default() }
    }

    #[test]
    fn each_metric_has_a_rule_that_names_it() {
        let rules = Rules::streaming().wide("forward_kernel", F32, 4096).tensor("forward_kernel", Tensor::Hmma);
        let good = Metrics { hmma: 2, ..fine() };
        assert!(broken(&rules, "norm::forward_kernel", &good).is_empty());
        let cases = [
            (Metrics { registers: 65, ..good.clone() }, "65 registers, budget 64"),
            (Metrics { spilled_bytes: 8, ..good.clone() }, "8 bytes spilled"),
            (Metrics { stack_bytes: 16, ..good.clone() }, "16 bytes of stack"),
            (Metrics { local: 3, ..good.clone() }, "3 accesses to local memory"),
            (Metrics { load_bits: 32, ..good.clone() }, "widest load 32 bits, 128 claimed"),
            (Metrics { hmma: 0, ..good.clone() }, "no HMMA, claimed"),
            (Metrics { losses: vec!["wgmma is serialized".to_owned()], ..good.clone() }, "ptxas: wgmma is serialized"),
        ];
        for (metrics, message) in cases {
            assert_eq!(broken(&rules, "norm::forward_kernel", &metrics), [message]);
        }
    }

    #[test]
    fn wide_loads_are_not_demanded_of_odd_rows() {
        let rules = Rules::streaming().wide("forward_kernel", F32, 333);
        assert!(broken(&rules, "norm::forward_kernel", &Metrics { load_bits: 32, ..fine() }).is_empty());
    }

    #[test]
    fn a_claim_on_a_kernel_that_was_not_launched_is_found() {
        let rules = Rules::streaming().wide("forward_kernel", F32, 4);
        assert_eq!(unmet(&rules, &["norm::backward_kernel".to_owned()]).collect::<Vec<_>>(), ["forward_kernel"]);
    }
}
