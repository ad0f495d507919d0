//! From CUDA C++ to the facts of its machine code: NVRTC, `ptxas -v`, `nvdisasm`. No GPU and no driver take part.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use internevo_kernels::cube::recorder::Code;
use serde::{Deserialize, Serialize};

use crate::nvrtc::Nvrtc;

/// What is known of a compiled kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Registers of a unit.
    pub registers: u32,
    /// Bytes stored to and loaded from memory for want of registers.
    pub spilled_bytes: u32,
    /// Bytes of stack of a unit: arrays that are indexed by what is not known at compile time.
    pub stack_bytes: u32,
    /// `LDL` and `STL` instructions.
    pub local: u32,
    /// Bits of the widest load from global memory by one instruction of one unit; copies to shared memory count.
    pub load_bits: u32,
    /// Bits of the widest store to global memory.
    pub store_bits: u32,
    /// `HMMA` instructions: tensor cores, a warp at a time.
    pub hmma: u32,
    /// `HGMMA` instructions: tensor cores, a warp group at a time.
    pub hgmma: u32,
    /// All instructions.
    pub instructions: u32,
    /// What `ptxas` calls a potential loss: products of warpgroups that wait for each other, registers not handed over.
    pub losses: Vec<String>,
}

/// An installed toolkit and a folder of earlier results.
pub struct Toolchain {
    nvrtc: Nvrtc,
    bin: PathBuf,
    cache: PathBuf,
}

impl Toolchain {
    /// The toolkit under `toolkit` (`bin/ptxas`, `bin/nvdisasm`, `lib/libnvrtc.so.13`, `include`); results are kept in `cache`.
    pub fn open(toolkit: &Path, cache: &Path) -> anyhow::Result<Self> {
        let bin = toolkit.join("bin");
        for tool in ["ptxas", "nvdisasm"] {
            if !bin.join(tool).exists() {
                bail!("no {tool} in {}", bin.display());
            }
        }
        std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        Ok(Self { nvrtc: Nvrtc::open(toolkit)?, bin, cache: cache.to_owned() })
    }

    /// `13.5`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.nvrtc.version.0, self.nvrtc.version.1)
    }

    /// The facts of `code` compiled for `target` (`sm_90a`), from the cache if it has them.
    pub fn measure(&self, code: &Code, target: &str) -> anyhow::Result<Metrics> {
        // The entry's name carries a hash of types, the code does not depend on it.
        let source = code.source.replace(&code.entry, "kernel");
        let key = blake3::hash(format!("2 {} {target}\n{source}", self.version()).as_bytes()).to_hex();
        let known = self.cache.join(format!("{key}.json"));
        if let Some(metrics) = std::fs::read(&known).ok().and_then(|json| serde_json::from_slice(&json).ok()) {
            return Ok(metrics);
        }
        let metrics = self.compile(&source, target, &self.cache.join(key.as_str()))?;
        std::fs::write(&known, serde_json::to_vec(&metrics)?)?;
        Ok(metrics)
    }

    fn compile(&self, source: &str, target: &str, stem: &Path) -> anyhow::Result<Metrics> {
        let [cu, ptx, cubin] = ["cu", "ptx", "cubin"].map(|extension| stem.with_extension(extension));
        std::fs::write(&cu, source)?;
        std::fs::write(&ptx, self.nvrtc.ptx(source, target)?)?;
        let mut ptxas = Command::new(self.bin.join("ptxas"));
        let report = output(ptxas.args(["-v", "-O3", "-arch", target]).arg(&ptx).arg("-o").arg(&cubin))?;
        let listing = output(Command::new(self.bin.join("nvdisasm")).arg("-c").arg(&cubin))?;
        let mut metrics = Metrics::default();
        metrics.read_report(&report);
        metrics.read_listing(&listing);
        if metrics.registers == 0 || metrics.instructions == 0 {
            bail!("ptxas says nothing of {}:\n{report}", ptx.display());
        }
        Ok(metrics)
    }
}

/// Both output streams of a program that must succeed.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{:?} failed ({}):\n{text}", command.get_program(), output.status);
    }
    Ok(text)
}

impl Metrics {
    /// Reads what `ptxas -v` prints.
    fn read_report(&mut self, report: &str) {
        let words: Vec<&str> =
            report.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
        let before = |name: &[&str]| -> u32 {
            let places = words.windows(name.len() + 1).filter(|window| window[1..] == *name);
            places.filter_map(|window| window[0].parse::<u32>().ok()).sum()
        };
        self.registers = before(&["registers"]);
        self.stack_bytes = before(&["bytes", "stack", "frame"]);
        self.spilled_bytes = before(&["bytes", "spill", "stores"]) + before(&["bytes", "spill", "loads"]);
        let losses = report.lines().filter_map(|line| line.split_once("Potential Performance Loss: "));
        self.losses = losses.map(|(_, loss)| loss.trim().to_owned()).collect();
    }

    /// Counts the instructions that `nvdisasm -c` lists.
    fn read_listing(&mut self, listing: &str) {
        for instruction in listing.lines().filter_map(instruction) {
            self.instructions += 1;
            let mut parts = instruction.split('.');
            match parts.next().unwrap_or_default() {
                "LDL" | "STL" => self.local += 1,
                "LDG" | "LDGSTS" => self.load_bits = self.load_bits.max(bits(parts)),
                "UTMALDG" | "UBLKCP" => self.load_bits = self.load_bits.max(128),
                "STG" => self.store_bits = self.store_bits.max(bits(parts)),
                "UTMASTG" => self.store_bits = self.store_bits.max(128),
                "HMMA" => self.hmma += 1,
                "HGMMA" => self.hgmma += 1,
                _ => {}
            }
        }
    }
}

/// The mnemonic of a line `/*00a0*/ @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;`; `None` of any other line.
fn instruction(line: &str) -> Option<&str> {
    let (offset, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    let address = offset.len() >= 4 && offset.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = rest.split_whitespace().skip_while(|word| word.starts_with('@') || word.starts_with('{'));
    let word = words.next()?.trim_end_matches(';');
    (address && word.starts_with(|c: char| c.is_ascii_uppercase())).then_some(word)
}

/// Width of an access by the modifiers of its mnemonic: 32 where none says otherwise.
fn bits<'a>(mut modifiers: impl Iterator<Item = &'a str>) -> u32 {
    let width = |modifier: &str| match modifier {
        "U8" | "S8" => Some(8),
        "U16" | "S16" => Some(16),
        "64" => Some(64),
        "128" => Some(128),
        "256" => Some(256),
        _ => None,
    };
    modifiers.find_map(width).unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_ptxas_is_read() {
        let report = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'kernel' for 'sm_90a'\n\
            ptxas info    : Function properties for kernel\n\
            \x20   24 bytes stack frame, 20 bytes spill stores, 28 bytes spill loads\n\
            ptxas info    : Used 168 registers, used 1 barriers, 24 bytes cumulative stack size\n";
        let mut metrics = Metrics::default();
        metrics.read_report(report);
        assert_eq!((metrics.registers, metrics.stack_bytes, metrics.spilled_bytes), (168, 24, 48));
    }

    #[test]
    fn losses_that_ptxas_names_are_kept() {
        let report = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
            insufficient register resources for the wgmma pipeline in the function 'kernel'\n\
            ptxas info    : Used 168 registers, used 4 barriers\n";
        let mut metrics = Metrics::default();
        metrics.read_report(report);
        assert_eq!(metrics.registers, 168);
        assert!(
            matches!(&metrics.losses[..], [loss] if loss.starts_with("wgmma.mma_async instructions are serialized"))
        );
    }

    #[test]
    fn accesses_and_tensor_instructions_are_counted() {
        let listing = "\t.headerflags @\"EF_CUDA_SM90\"\n.text.kernel:\n\
            \x20       /*0000*/                   LDC R1, c[0x0][0x28] ;\n\
            \x20       /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;\n\
            \x20       /*0020*/                   LDG.E.U16 R4, desc[UR4][R2.64] ;\n\
            \x20       /*0030*/               @P1 STG.E.64 desc[UR4][R2.64], R4 ;\n\
            \x20       /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R10, R4 ;\n\
            \x20       /*0050*/                   STL [R1], R4 ;\n\
            \x20       /*0060*/                   EXIT ;\n\
            .L_x_0:\n";
        let mut metrics = Metrics::default();
        metrics.read_listing(listing);
        let expected =
            Metrics { instructions: 7, load_bits: 128, store_bits: 64, hmma: 1, local: 1, ..Metrics::default() };
        assert_eq!(metrics, expected);
    }
}
