//! What is demanded of the machine code of a call's kernels. The codegen gate checks it.

use internevo_kernels::cube::ElemType;

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
}
