//! `internevo data report DIR`: one HTML page about the finished stages of a folder.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use internevo_core::{config::PipelineConfig, storage};
use internevo_data::{
    Bound, FilterContext,
    inspect::{Borderline, BorderlineOptions, StageView, borderline, stage_folders, view_stage},
    stage::{REPORT, StageReport, Strategies},
};
use serde::Serialize;

use crate::{config_args::ConfigArgs, context::Context, corpus, error::OrUser as _, report, user_bail};

/// Writes a page about finished stages.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data report runs/corpus/1f0c\n  internevo data report cleaned --config corpus.toml --output cleaned.html\n\nGive the configuration that the stages ran with: thresholds are those of its filters."
)]
pub struct DataReport {
    /// The output folder of a stage, or a folder of them
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The page; default DIR/report.html
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Documents shown on each side of each threshold
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub samples: usize,
    /// Folder of trained filters; default `models` in the stage's folder or beside it
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Settings that the stages ran with (`pipeline.*`)
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A stage as the page and the JSON show it.
#[derive(Debug, Serialize)]
pub struct StageSection {
    /// Its folder and counts.
    #[serde(flatten)]
    pub view: StageView,
    /// Its rules.
    pub borderline: Borderline,
}

impl DataReport {
    /// The report of `folder` as `output`, with default settings.
    pub fn of(folder: PathBuf, output: PathBuf) -> Self {
        let samples = BorderlineOptions::default().samples;
        Self { folder, output: Some(output), samples, models: None, config: ConfigArgs::default() }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When there is no finished stage, or a file cannot be read or written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let pipeline = self.config.load()?.config.pipeline;
        let folders = stage_folders(&self.folder).or_user()?;
        if folders.is_empty() {
            user_bail!("{} holds no finished stage: no {REPORT} in it or in the folders in it", self.folder.display());
        }
        let similarity = ("near_duplicate".to_owned(), Bound::Max(pipeline.dedup.threshold));
        let options =
            BorderlineOptions { samples: self.samples, bounds: [similarity].into(), ..BorderlineOptions::default() };
        let mut sections = Vec::new();
        for folder in folders {
            let Some(view) = view_stage(&folder)? else { continue };
            let filters = Filters { stage: &view.report.stage, folder: &folder, models: self.models.as_deref() };
            let strategies = filters.build_or_warn(cx, &pipeline);
            let borderline = borderline(&folder, &strategies, &options)?;
            sections.push(StageSection { view, borderline });
        }
        let path = self.output.unwrap_or_else(|| self.folder.join(report::REPORT_FILE));
        storage::write_atomic(&path, report::corpus_page(&self.folder, &sections))?;
        cx.emit(&serde_json::json!({ "report": path, "stages": sections }), || path.display().to_string())
    }
}

/// The filters that a finished stage ran.
pub struct Filters<'a> {
    /// The stage.
    pub stage: &'a str,
    /// Its output folder.
    pub folder: &'a Path,
    /// Folder of trained filters, where the user names it.
    pub models: Option<&'a Path>,
}

impl Filters<'_> {
    /// Builds them from the settings; stages without filters have none.
    ///
    /// # Errors
    /// A filter that is unknown, or whose settings or model are wrong.
    pub fn build(&self, pipeline: &PipelineConfig) -> anyhow::Result<Strategies> {
        let code = ["code_quality".to_owned()];
        let names = match self.stage {
            "code" => &code[..],
            stage => pipeline.filters(stage).unwrap_or_default(),
        };
        let own = self.folder.join(corpus::MODELS);
        let beside = self.folder.with_file_name(corpus::MODELS);
        let artifacts = self.models.unwrap_or(if own.is_dir() { &own } else { &beside });
        Ok(Strategies::build(self.stage, names, pipeline, &FilterContext { lang: None, artifacts })?)
    }

    /// Likewise; without them a page has no thresholds, but all the rest.
    fn build_or_warn(&self, cx: &Context, pipeline: &PipelineConfig) -> Strategies {
        self.build(pipeline).unwrap_or_else(|error| {
            cx.console.warn(&format!("{}: no thresholds are shown: {error:#}", self.folder.display()));
            Strategies::default()
        })
    }
}

/// The report of a stage's output folder; `None` for any other folder.
///
/// # Errors
/// When there is one that cannot be read.
pub fn read_report(folder: &Path) -> anyhow::Result<Option<StageReport>> {
    let path = folder.join(REPORT);
    if !path.is_file() {
        return Ok(None);
    }
    let value: serde_json::Value = serde_json::from_slice(&storage::read(&path)?)
        .with_context(|| format!("{} is not JSON", path.display()))
        .or_user()?;
    // Another tool's report of the same name says nothing about a stage.
    Ok(serde_json::from_value(value).ok())
}
