//! What a kernel's machine code must be like, and whether it is.

use internevo_kernels::cube::ElemType;

use crate::toolchain::Metrics;

/// Tensor-core instructions that a kernel claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// `HMMA`: `mma.sync`.
    Hmma,
    /// `HGMMA`: `wgmma`, on Hopper.
    Hgmma,
}

/// What is demanded of the kernels of one call. All of them: no spills, no stack, no local memory.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Most registers of a unit.
    pub registers: u32,
    /// Functions that load and store 16 bytes at a time.
    pub wide: Vec<&'static str>,
    /// Functions that multiply in tensor cores.
    pub tensor: Vec<(&'static str, Tensor)>,
}

impl Rules {
    /// For kernels bound by memory: registers that let half of a multiprocessor's units be resident.
    pub fn streaming() -> Self {
        Self { registers: 64, wide: Vec::new(), tensor: Vec::new() }
    }

    /// For kernels bound by arithmetic, which hold tiles in registers: whatever does not spill.
    pub fn compute() -> Self {
        Self { registers: 255, ..Self::streaming() }
    }

    /// Another budget of registers.
    pub fn registers(self, registers: u32) -> Self {
        Self { registers, ..self }
    }

    /// Demands 16-byte loads of `kernel`, if rows of `width` elements allow them.
    pub fn wide(mut self, kernel: &'static str, elem: ElemType, width: usize) -> Self {
        if (width * elem.size()).is_multiple_of(16) {
            self.wide.push(kernel);
        }
        self
    }

    /// Demands tensor-core instructions of `kernel`.
    pub fn tensor(mut self, kernel: &'static str, instruction: Tensor) -> Self {
        self.tensor.push((kernel, instruction));
        self
    }

    /// What `metrics` of `kernel` break, each as a sentence's end.
    pub fn broken(&self, kernel: &str, metrics: &Metrics) -> Vec<String> {
        let function = function(kernel);
        let mut broken = Vec::new();
        let mut demand = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        let Metrics { registers, spilled_bytes, stack_bytes, local, load_bits, hmma, hgmma, .. } = *metrics;
        demand(registers <= self.registers, format!("{registers} registers, budget {}", self.registers));
        demand(spilled_bytes == 0, format!("{spilled_bytes} bytes spilled"));
        demand(stack_bytes == 0, format!("{stack_bytes} bytes of stack"));
        demand(local == 0, format!("{local} accesses to local memory"));
        if self.wide.contains(&function) {
            demand(load_bits >= 128, format!("widest load {load_bits} bits, 128 claimed"));
        }
        for (_, tensor) in self.tensor.iter().filter(|(name, _)| *name == function) {
            let (count, name) = if *tensor == Tensor::Hmma { (hmma, "HMMA") } else { (hgmma, "HGMMA") };
            demand(count > 0, format!("no {name}, claimed"));
        }
        broken
    }

    /// Claims on functions that none of `kernels` is: a claim nobody checks is a mistake.
    pub fn unmet<'a>(&'a self, kernels: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
        let names = self.wide.iter().copied().chain(self.tensor.iter().map(|(name, _)| *name));
        names.filter(|name| !kernels.iter().any(|kernel| function(kernel) == *name))
    }
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
        assert!(rules.broken("norm::forward_kernel", &good).is_empty());
        let cases = [
            (Metrics { registers: 65, ..good.clone() }, "65 registers, budget 64"),
            (Metrics { spilled_bytes: 8, ..good.clone() }, "8 bytes spilled"),
            (Metrics { stack_bytes: 16, ..good.clone() }, "16 bytes of stack"),
            (Metrics { local: 3, ..good.clone() }, "3 accesses to local memory"),
            (Metrics { load_bits: 32, ..good.clone() }, "widest load 32 bits, 128 claimed"),
            (Metrics { hmma: 0, ..good.clone() }, "no HMMA, claimed"),
        ];
        for (metrics, message) in cases {
            assert_eq!(rules.broken("norm::forward_kernel", &metrics), [message]);
        }
    }

    #[test]
    fn wide_loads_are_not_demanded_of_odd_rows() {
        let rules = Rules::streaming().wide("forward_kernel", F32, 333);
        assert!(rules.broken("norm::forward_kernel", &Metrics { load_bits: 32, ..fine() }).is_empty());
    }

    #[test]
    fn a_claim_on_a_kernel_that_was_not_launched_is_found() {
        let rules = Rules::streaming().wide("forward_kernel", F32, 4);
        assert_eq!(rules.unmet(&["norm::backward_kernel".to_owned()]).collect::<Vec<_>>(), ["forward_kernel"]);
    }
}
