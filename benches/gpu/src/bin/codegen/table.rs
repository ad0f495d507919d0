//! The table of measurements: as Markdown in `benches/CODEGEN.md`, as JSON, and against the committed one.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::toolchain::Metrics;

/// One kernel of one call on one card.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What is measured.
    #[serde(flatten)]
    pub key: Key,
    /// Units of a cube.
    pub units: u32,
    /// Bytes of dynamic shared memory of a cube.
    pub shared_bytes: usize,
    /// Most registers allowed.
    pub budget: u32,
    /// What was found.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// The public function.
    pub call: String,
    /// Type of its tensors.
    pub elem: String,
    /// Its sizes.
    pub shape: String,
    /// The kernel that it launched.
    pub kernel: String,
    /// `sm_90a`.
    pub target: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { call, elem, shape, kernel, target } = self;
        write!(f, "{call} {elem} {shape}: {kernel} on {target}")
    }
}

const HEADER: &str = "| call | type | shape | kernel | target | units | registers | budget | spilled | shared | load | store | tensor | instructions |\n\
    |---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";

/// `benches/CODEGEN.md`.
pub fn markdown(rows: &[Row], version: &str) -> String {
    let mut text = format!(
        "# Machine code of the GPU kernels\n\n\
        Written by `cargo xtask codegen --write`; `cargo xtask codegen` fails if a kernel spills, needs more registers than\n\
        here, loads or stores less per instruction, or loses its tensor-core instructions. CUDA {version}, no GPU. No kernel has a stack\n\
        or local memory. Registers are of a unit, shared memory in bytes of a cube, loads and stores in bits of the widest access of\n\
        one unit to global memory, tensor instructions `HMMA` + `HGMMA`.\n\n{HEADER}"
    );
    for row in rows {
        let Key { call, elem, shape, kernel, target } = &row.key;
        let m = &row.metrics;
        text.push_str(&format!(
            "| {call} | {elem} | {shape} | `{kernel}` | {target} | {} | {} | {} | {} | {} | {} | {} | {} + {} | {} |\n",
            row.units,
            m.registers,
            row.budget,
            m.spilled_bytes,
            row.shared_bytes,
            m.load_bits,
            m.store_bits,
            m.hmma,
            m.hgmma,
            m.instructions,
        ));
    }
    text
}

/// What the comparison needs of a committed row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Committed {
    registers: u32,
    load_bits: u32,
    store_bits: u32,
    hmma: u32,
    hgmma: u32,
}

/// Reads [`markdown`] back.
fn read(text: &str) -> anyhow::Result<BTreeMap<Key, Committed>> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| call "));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [call, elem, shape, kernel, target, _, registers, _, _, _, load, store, tensor, _] = cells[..] else {
            bail!("14 columns expected in `{line}`")
        };
        let number = |cell: &str| cell.parse::<u32>().with_context(|| format!("`{cell}` in `{line}`"));
        let (hmma, hgmma) = tensor.split_once(" + ").with_context(|| format!("`{tensor}` in `{line}`"))?;
        let [call, elem, shape, kernel, target] = [call, elem, shape, kernel, target].map(str::to_owned);
        let committed = Committed {
            registers: number(registers)?,
            load_bits: number(load)?,
            store_bits: number(store)?,
            hmma: number(hmma)?,
            hgmma: number(hgmma)?,
        };
        Ok((Key { call, elem, shape, kernel, target }, committed))
    };
    lines.map(row).collect()
}

/// Where `rows` are worse than the committed table `text`, each as a sentence. Rows that are missing on either side count.
///
/// # Errors
/// If `text` is no such table.
pub fn regressions(rows: &[Row], text: &str) -> anyhow::Result<Vec<String>> {
    let mut committed = read(text)?;
    let mut worse = Vec::new();
    for Row { key, metrics: now, .. } in rows {
        let Some(before) = committed.remove(key) else {
            worse.push(format!("{key}: not in the committed table"));
            continue;
        };
        let mut compare = |what: &str, before: u32, now: u32, is_worse: bool| {
            if is_worse {
                worse.push(format!("{key}: {what} {before} → {now}"));
            }
        };
        compare("registers", before.registers, now.registers, now.registers > before.registers);
        compare("bits of the widest load", before.load_bits, now.load_bits, now.load_bits < before.load_bits);
        compare("bits of the widest store", before.store_bits, now.store_bits, now.store_bits < before.store_bits);
        compare("HMMA", before.hmma, now.hmma, now.hmma == 0 && before.hmma > 0);
        compare("HGMMA", before.hgmma, now.hgmma, now.hgmma == 0 && before.hgmma > 0);
    }
    worse.extend(committed.keys().map(|key| format!("{key}: in the committed table, but no longer launched")));
    Ok(worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(registers: u32, load_bits: u32, hgmma: u32) -> Row {
        let [call, elem, shape, kernel, target] =
            ["attention forward", "bf16", "8192×128", "attention::forward_kernel", "sm_90a"].map(str::to_owned);
        let metrics = Metrics { registers, load_bits, store_bits: 128, hgmma, instructions: 900, ..Metrics::default() };
        Row { key: Key { call, elem, shape, kernel, target }, units: 256, shared_bytes: 1024, budget: 255, metrics }
    }

    #[test]
    fn a_table_is_no_worse_than_itself() {
        let rows = [row(168, 128, 8)];
        assert_eq!(regressions(&rows, &markdown(&rows, "13.5")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn regressions_name_kernel_target_and_metric() {
        let committed = markdown(&[row(168, 128, 8)], "13.5");
        let prefix = "attention forward bf16 8192×128: attention::forward_kernel on sm_90a: ";
        for (now, message) in [
            (row(170, 128, 8), "registers 168 → 170"),
            (row(168, 32, 8), "bits of the widest load 128 → 32"),
            (row(168, 128, 0), "HGMMA 8 → 0"),
        ] {
            assert_eq!(regressions(&[now], &committed).unwrap(), [format!("{prefix}{message}")]);
        }
    }

    #[test]
    fn better_is_no_regression() {
        let committed = markdown(&[row(168, 32, 0)], "13.5");
        assert!(regressions(&[row(100, 128, 8)], &committed).unwrap().is_empty());
    }

    #[test]
    fn rows_missing_on_either_side_are_named() {
        let rows = [row(168, 128, 8)];
        let gone = regressions(&[], &markdown(&rows, "13.5")).unwrap();
        assert!(gone.len() == 1 && gone[0].ends_with("no longer launched"), "{gone:?}");
        let new = regressions(&rows, &markdown(&[], "13.5")).unwrap();
        assert!(new.len() == 1 && new[0].ends_with("not in the committed table"), "{new:?}");
    }

    #[test]
    fn a_table_with_other_columns_is_refused() {
        assert!(regressions(&[], "| a | b |\n").is_err());
    }
}
