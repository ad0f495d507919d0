//! `internevo data inspect PATH`: what a file or folder of documents holds, as text, JSON or (for finished stages) an HTML page.

use std::path::PathBuf;

use clap::Args;
use internevo_data::{
    inspect::{Count, Survey, survey},
    stage::StageReport,
};
use serde::Serialize;

use super::{
    data::reasons,
    data_report::{DataReport, read_report},
};
use crate::{context::Context, error::OrUser as _, terminal, user_bail};

/// Rows of a table of languages, sources or values.
const SHOWN_ROWS: usize = 12;
/// Characters of the longest bar of the lengths.
const BAR: u64 = 40;

/// Looks at documents.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data inspect runs/corpus/1f0c/quality\n  internevo data inspect crawl.warc.gz --json\n  internevo data inspect runs/corpus/1f0c --html corpus.html"
)]
pub struct Inspect {
    /// A file of documents (JSONL, WARC, Parquet, HTML, …), a folder of them, or the output folder of a stage
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Write a page about the finished stages in PATH, as `internevo data report` does
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What the command prints.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    survey: Survey,
    /// The stage's own report, where PATH is a stage's output.
    report: Option<StageReport>,
}

impl Inspect {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is nothing to read or a file cannot be read.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        if !self.path.exists() {
            user_bail!("{} does not exist", self.path.display());
        }
        if let Some(html) = self.html {
            return DataReport::of(self.path, html).run(cx);
        }
        let progress = cx.console.progress("inspect", None, "documents");
        let survey = survey(&self.path, &|documents| progress.set(documents)).or_user()?;
        progress.finish();
        let answer = Answer { survey, report: read_report(&self.path)? };
        cx.emit(&answer, || answer.text())
    }
}

impl Answer {
    fn text(&self) -> String {
        let survey = &self.survey;
        let mut text = format!(
            "{} documents, {} of text in {} files ({} stored)\n",
            terminal::count(survey.documents),
            terminal::bytes(survey.bytes),
            survey.files,
            terminal::bytes(survey.stored_bytes)
        );
        for (reason, records) in &survey.broken {
            text.push_str(&format!("{records} records are no documents: {reason}\n"));
        }
        text.push_str(&table("languages", survey.languages.iter()));
        text.push_str(&table("sources", survey.sources.iter()));
        text.push_str(&self.lengths());
        text.push_str(&self.fields());
        for sample in &survey.samples {
            text.push_str(&format!("\n--- {}\n{}\n", sample.id, sample.excerpt));
        }
        text + &self.report.as_ref().map(|report| reasons(&report.reasons)).unwrap_or_default()
    }

    fn lengths(&self) -> String {
        if self.survey.lengths.is_empty() {
            return String::new();
        }
        let most = self.survey.lengths.iter().map(|(_, documents)| *documents).max().unwrap_or(1);
        let row = |(bytes, documents): &(u64, u64)| {
            let bar = "#".repeat((documents * BAR).div_ceil(most) as usize);
            [format!("{} and more", terminal::bytes(*bytes)), documents.to_string(), bar]
        };
        format!("\nlengths\n{}", terminal::table(&self.survey.lengths.iter().map(row).collect::<Vec<_>>()))
    }

    fn fields(&self) -> String {
        let row = |field: &internevo_data::inspect::FieldSurvey| {
            let types: Vec<&str> = field.types.keys().copied().collect();
            let values: Vec<&str> = field.values.keys().map(String::as_str).take(SHOWN_ROWS).collect();
            [field.name.clone(), types.join(" or "), format!("in {}", field.documents), values.join(", ")]
        };
        let rows: Vec<[String; 4]> = self.survey.fields.iter().map(row).collect();
        if rows.is_empty() {
            String::new()
        } else {
            format!("\nfields besides id and text\n{}", terminal::table(&rows))
        }
    }
}

/// The largest entries.
fn table<'a>(title: &str, counts: impl Iterator<Item = (&'a String, &'a Count)>) -> String {
    let mut counts: Vec<_> = counts.collect();
    if counts.is_empty() {
        return String::new();
    }
    counts.sort_by_key(|(name, count)| (std::cmp::Reverse(count.documents), *name));
    let more = counts.len().saturating_sub(SHOWN_ROWS);
    let row = |(name, count): &(&String, &Count)| {
        [(*name).clone(), count.documents.to_string(), terminal::bytes(count.bytes)]
    };
    let rows: Vec<[String; 3]> = counts.iter().take(SHOWN_ROWS).map(row).collect();
    let rest = if more == 0 { String::new() } else { format!("and {more} more\n") };
    format!("\n{title}\n{}{rest}", terminal::table(&rows))
}
