//! `report.html`: one self-contained page about a run, made from `summary.json`, `metrics.jsonl` and `config.toml` of its
//! directory. `internevo report RUN_DIR` writes it; the trainer does so at the end of every launch. The page about the stages of a
//! corpus (`corpus.rs`) is made of the same parts.

mod corpus;
mod page;
mod summary;
mod svg;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use internevo_core::{metrics::StepRecord, storage};

pub use corpus::render as corpus_page;
pub use summary::{FunnelStage, Phase, RunSummary, SUMMARY_FILE, Sample, SourceCount};

/// Name of the report in a run directory.
pub const REPORT_FILE: &str = "report.html";

/// Writes the report of `run_dir` into it and returns its path.
///
/// # Errors
/// When `run_dir` is not a run directory or the page cannot be written.
pub fn write(run_dir: &Path) -> anyhow::Result<PathBuf> {
    let summary = RunSummary::read(run_dir)?;
    let records = read_metrics(&run_dir.join("metrics.jsonl"))?;
    let config = std::fs::read_to_string(run_dir.join("config.toml")).unwrap_or_default();
    let path = run_dir.join(REPORT_FILE);
    storage::write_atomic(&path, page::render(&summary, &records, &config))?;
    Ok(path)
}

/// The records of `metrics.jsonl`. A last line without an end is a record that was being written, and is left out.
///
/// # Errors
/// Names file and line of a record that cannot be read.
pub fn read_metrics(path: &Path) -> anyhow::Result<Vec<StepRecord>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = storage::read_to_string(path)?;
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}: not a step record", path.display(), i + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, loss: f64) -> String {
        let record = StepRecord { step, loss, valid_loss: (step == 2).then_some(loss + 0.5), ..StepRecord::default() };
        serde_json::to_string(&record).expect("serialises") + "\n"
    }

    #[test]
    fn a_report_holds_its_plots_and_needs_nothing_from_outside() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let summary = RunSummary {
            job_name: "tiny <script>".into(),
            samples: vec![Sample { prompt: "pub fn ".into(), text: "main() -> Vec<u8> {}".into() }],
            funnel: vec![FunnelStage {
                stage: "clean".into(),
                documents_in: 10,
                documents_kept: 7,
                ..FunnelStage::default()
            }],
            ..RunSummary::default()
        };
        summary.write(dir.path()).expect("summary");
        std::fs::write(dir.path().join("metrics.jsonl"), record(1, 8.0) + &record(2, 7.0) + "{\"step\": 3, \"lo")
            .expect("metrics");
        let html = std::fs::read_to_string(write(dir.path()).expect("report")).expect("read");
        assert!(html.matches("<svg").count() >= 5, "charts are missing");
        assert!(html.contains("Vec&lt;u8&gt;") && html.contains("tiny &lt;script&gt;"));
        for outside in ["http://", "https://", "src=", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside} would load something");
        }
    }

    #[test]
    fn a_broken_record_is_named_by_file_and_line() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, record(1, 8.0) + "not json\n").expect("metrics");
        let message = format!("{:#}", read_metrics(&path).expect_err("broken"));
        assert!(message.contains("metrics.jsonl:2"), "{message}");
    }
}
