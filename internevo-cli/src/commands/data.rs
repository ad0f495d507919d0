//! `internevo data run|format|clean|dedup|safe|quality|code`, and the list of all `internevo data …`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use internevo_core::config::PipelineConfig;
use internevo_data::stage::{StageReport, StageRequest};
use serde_json::json;

use super::{
    data_classifier::ClassifierCommand,
    data_inspect::Inspect,
    data_lm::LmCommand,
    data_report::DataReport,
    data_review::Review,
    data_threshold::{Sample, Score, Threshold},
};
use crate::{
    config_args::ConfigArgs,
    context::Context,
    corpus::{self, Shard, StageProgress},
    interrupt::Interrupt,
    phases::Phases,
    terminal, user_bail,
};

/// How an interrupted stage goes on.
const HINT: &str = "the same command continues where it stopped";

/// What the help of a stage of filters says below its options.
macro_rules! filter_help {
    ($examples:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "\n\nFilters are plugins: `internevo plugins` lists them, with their settings under --json. OUT holds kept/, rejected/ (each document with its reason) and report.json; `internevo data report OUT` shows it."
        )
    };
}

const CLEAN_HELP: &str = filter_help!(
    "  internevo data clean --input formatted --output cleaned\n  internevo data clean --input formatted --output cleaned --filter gopher_quality --filter c4 --lang en\n  internevo data clean --input formatted --output cleaned --set pipeline.filter.gopher_quality.min_words=30"
);
const SAFE_HELP: &str = filter_help!(
    "  internevo data safe --input unique --output safe --config corpus.toml\n  internevo data safe --input unique --output safe --filter personal_data"
);
const QUALITY_HELP: &str = filter_help!(
    "  internevo data quality --input safe --output good\n  internevo data quality --input safe --output good --filter perplexity --filter classifier --config corpus.toml"
);
const CODE_HELP: &str = filter_help!(
    "  internevo data code --input formatted --output code --threads 8\n  internevo data code --input formatted --output code --set pipeline.filter.code_quality.max_line=2000"
);

/// Corpus pipeline: all of it, one stage, or a look at documents.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Collect raw text and run every stage of the configuration
    Run(RunPipeline),
    /// Count documents, show a few, and list why documents were rejected
    Inspect(Inspect),
    /// Write an HTML page about finished stages: funnel, thresholds, samples on both sides of each
    Report(DataReport),
    /// Label the documents nearest to the thresholds of a finished stage, in the terminal
    Review(Review),
    /// Files of any kind to JSONL documents: text extraction, language
    Format(Format),
    /// Heuristic filters
    #[command(after_help = CLEAN_HELP)]
    Clean(FilterStage),
    /// Exact and near duplicates, repeated lines, paragraphs, sentences or substrings
    Dedup(Dedup),
    /// Word lists, URLs, personal data, classifiers of what is unsafe
    #[command(after_help = SAFE_HELP)]
    Safe(FilterStage),
    /// Trained classifiers, language models
    #[command(after_help = QUALITY_HELP)]
    Quality(FilterStage),
    /// Rules for source code
    #[command(after_help = CODE_HELP)]
    Code(Stage),
    /// n-gram language models: train, score, convert
    #[command(subcommand)]
    Lm(LmCommand),
    /// Text classifiers: make examples, train, evaluate
    #[command(subcommand)]
    Classifier(ClassifierCommand),
    /// What filters measure of each document, without dropping any
    Score(Score),
    /// Documents just above and just below a threshold, to be labelled
    Sample(Sample),
    /// Choose a threshold from labelled documents
    Threshold(Threshold),
}

/// Runs the pipeline.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data run --input pages --output corpus --memory 2GiB\n  internevo data run --config corpus.toml\n  internevo data run --config corpus.toml --shard $SLURM_ARRAY_TASK_ID --of 16\n\nWith --shard each call processes its part of the raw files into its own folder; near duplicates are then found inside\neach part, so finish with `internevo data dedup` over all of them. With --input the stages read it as it is; without, the\ntext that the configuration names is collected first, up to `corpus.max_bytes`."
)]
pub struct RunPipeline {
    /// Your own documents: JSONL(.gz/.zst), WARC(.gz/.zst), or files and folders of HTML, Markdown, text and sources
    #[arg(long, requires = "output", conflicts_with = "shard", value_name = "DIR")]
    pub input: Option<PathBuf>,
    /// Folder for the stages' folders; with --input
    #[arg(long, requires = "input", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Language of all documents, instead of looking at each; with --input
    #[arg(long, requires = "input", value_name = "CODE")]
    pub lang: Option<String>,
    /// CPU threads; 0 = all (`launch.threads`)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory, such as 2GiB; what does not fit is sorted on disk (`pipeline.dedup.memory`)
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Process only this part of the raw files, from 0
    #[arg(long, requires = "of", value_name = "I")]
    pub shard: Option<usize>,
    /// Number of parts
    #[arg(long, requires = "shard", value_name = "N")]
    pub of: Option<usize>,
}

/// One stage.
#[derive(Args, Debug)]
pub struct Stage {
    /// Documents: JSONL(.gz/.zst), WARC(.gz/.zst), or files and folders of HTML, Markdown, text and sources
    #[arg(long, value_name = "DIR")]
    pub input: PathBuf,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// How it runs
    #[command(flatten)]
    pub args: StageArgs,
}

/// What every run of filters over documents takes, beside its input and output.
#[derive(Args, Debug)]
pub struct StageArgs {
    /// Language of all documents, instead of looking at each
    #[arg(long, value_name = "CODE")]
    pub lang: Option<String>,
    /// CPU threads; 0 = all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Folder of trained filters, such as the quality classifier; default `models` in the output folder (of `score`: beside its output)
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Settings (`pipeline.*`)
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl StageArgs {
    /// The request for a stage; trained filters are in `models`, unless the user names their folder.
    ///
    /// # Errors
    /// When the input does not exist.
    pub(super) fn request<'a>(
        &'a self,
        stage: &'a str,
        input: PathBuf,
        output: PathBuf,
        models: PathBuf,
        pipeline: &'a PipelineConfig,
    ) -> anyhow::Result<StageRequest<'a>> {
        demand_input(&input)?;
        let artifacts = self.models.clone().unwrap_or(models);
        let (lang, threads) = (self.lang.as_deref(), self.threads);
        Ok(StageRequest { stage, input, output, lang, threads, artifacts, pipeline })
    }
}

/// A stage of filters: what every stage takes, and which filters.
#[derive(Args, Debug)]
pub struct FilterStage {
    /// As for every stage
    #[command(flatten)]
    pub stage: Stage,
    /// Filters to ask, in this order, instead of the configuration's
    #[arg(long = "filter", value_name = "NAME")]
    pub filters: Vec<String>,
}

impl FilterStage {
    fn run(self, cx: &Context, stage: &str, own: fn(&mut PipelineConfig) -> &mut Vec<String>) -> anyhow::Result<()> {
        self.stage.run(cx, stage, |pipeline| {
            if !self.filters.is_empty() {
                *own(pipeline) = self.filters;
            }
        })
    }
}

/// The stage `format`: what every stage takes, and which extractor.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data format --input crawl.warc.gz --output formatted\n  internevo data format --input pages --output formatted --extractor main_content --set pipeline.format.settings.main_content.max_link_share=0.3\n\nExtractors are plugins: `internevo plugins` lists them. OUT holds kept/, rejected/ and report.json."
)]
pub struct Format {
    /// As for every stage
    #[command(flatten)]
    pub stage: Stage,
    /// What finds the text of an HTML page (`pipeline.format.extractor`)
    #[arg(long, value_name = "NAME")]
    pub extractor: Option<String>,
}

/// The stage `dedup`: what every stage takes, and shorter names for its own settings.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data dedup --input cleaned --output unique --memory 2GiB\n  internevo data dedup --input new --output new-unique --index seen\n  internevo data dedup --input unique --output shorter --method substrings\n\nThe output does not depend on --threads and --memory. OUT holds kept/, rejected/, report.json and duplicates.json."
)]
pub struct Dedup {
    /// As for every stage
    #[command(flatten)]
    pub stage: Stage,
    /// What is compared: minhash, exact, bloom, lines, paragraphs, sentences or substrings (`pipeline.dedup.method`)
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,
    /// Which copy stays: newest, longest, best_score or first (`pipeline.dedup.keep`)
    #[arg(long, value_name = "RULE")]
    pub keep: Option<String>,
    /// Memory, such as 2GiB; what does not fit is sorted on disk (`pipeline.dedup.memory`)
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Folder of an index of what earlier runs kept; this run adds to it (`pipeline.dedup.index`)
    #[arg(long, value_name = "DIR")]
    pub index: Option<PathBuf>,
}

impl Dedup {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let Self { stage, method, keep, memory, index } = self;
        stage.run(cx, "dedup", |pipeline| {
            let dedup = &mut pipeline.dedup;
            let index = index.map(|folder| folder.display().to_string());
            for (setting, flag) in [
                (&mut dedup.method, method),
                (&mut dedup.keep, keep),
                (&mut dedup.memory, memory),
                (&mut dedup.index, index),
            ] {
                if let Some(value) = flag {
                    *setting = value;
                }
            }
        })
    }
}

impl DataCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When input or settings are wrong, or a file cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Run(c) => c.run(cx),
            Self::Inspect(c) => c.run(cx),
            Self::Report(c) => c.run(cx),
            Self::Review(c) => c.run(cx),
            Self::Format(Format { stage, extractor }) => stage.run(cx, "format", |pipeline| {
                extractor.into_iter().for_each(|name| pipeline.format.extractor = name);
            }),
            Self::Clean(c) => c.run(cx, "clean", |pipeline| &mut pipeline.clean),
            Self::Dedup(c) => c.run(cx),
            Self::Safe(c) => c.run(cx, "safe", |pipeline| &mut pipeline.safe),
            Self::Quality(c) => c.run(cx, "quality", |pipeline| &mut pipeline.quality),
            Self::Code(c) => c.run(cx, "code", |_| ()),
            Self::Lm(c) => c.run(cx),
            Self::Classifier(c) => c.run(cx),
            Self::Score(c) => c.run(cx),
            Self::Sample(c) => c.run(cx),
            Self::Threshold(c) => c.run(cx),
        }
    }
}

impl RunPipeline {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let mut config = self.config.load_or_default_preset()?.config;
        if let Some(threads) = self.threads {
            config.launch.threads = threads;
        }
        if let Some(memory) = self.memory {
            config.pipeline.dedup.memory = memory;
        }
        let shard = match (self.shard, self.of) {
            (Some(index), Some(of)) if index < of => Some(Shard { index, of }),
            (Some(index), Some(of)) => user_bail!("--shard {index} is not below --of {of}; shards count from 0"),
            _ => None,
        };
        let interrupt = Interrupt::install(&cx.console, HINT);
        let (document, output, reports) = match (self.input, self.output) {
            (Some(input), Some(folder)) => {
                demand_input(&input)?;
                let (output, reports) =
                    corpus::process_own(cx, &config, self.lang.as_deref(), (input, &folder), &interrupt)?;
                (json!({ "folder": folder, "output": output, "stages": reports }), output, reports)
            }
            _ => {
                let text = corpus::process(cx, &config, &interrupt, &mut Phases::new(&cx.console), shard)?;
                let document = json!({
                    "folder": text.folder, "output": text.output, "documents": text.manifest.documents,
                    "bytes": text.manifest.bytes, "missing": text.manifest.missing, "stages": text.reports,
                });
                (document, text.output, text.reports)
            }
        };
        cx.emit(&document, || funnel(&reports) + &format!("\n{}\n", output.display()))
    }
}

fn demand_input(input: &Path) -> anyhow::Result<()> {
    if !input.exists() {
        user_bail!("--input {} does not exist", input.display());
    }
    Ok(())
}

impl Stage {
    fn run(self, cx: &Context, stage: &str, adjust: impl FnOnce(&mut PipelineConfig)) -> anyhow::Result<()> {
        let mut config = self.args.config.load()?.config;
        adjust(&mut config.pipeline);
        let models = self.output.join(corpus::MODELS);
        let request = self.args.request(stage, self.input, self.output, models, &config.pipeline)?;
        let interrupt = Interrupt::install(&cx.console, HINT);
        let _polling = interrupt.polling();
        let progress = StageProgress::new(&cx.console, &interrupt);
        let report = Phases::new(&cx.console).run(stage, || corpus::run_one(&request, &progress))?;
        let output = request.output.display();
        cx.emit(&report, || {
            format!("{}{}\n{output}\n", funnel(std::slice::from_ref(&report)), reasons(&report.reasons))
        })
    }
}

fn funnel(reports: &[StageReport]) -> String {
    let head = ["stage", "documents in", "kept", "bytes in", "kept", "seconds"].map(str::to_owned);
    let rows = reports.iter().map(|r| {
        [
            r.stage.clone(),
            r.documents_in.to_string(),
            r.documents_kept.to_string(),
            terminal::bytes(r.bytes_in),
            terminal::bytes(r.bytes_kept),
            format!("{:.1}", r.wall_seconds),
        ]
    });
    terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

pub(super) fn reasons(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = reasons.iter().collect();
    sorted.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), *reason));
    let rows: Vec<[String; 2]> =
        sorted.into_iter().map(|(reason, count)| [reason.clone(), count.to_string()]).collect();
    if rows.is_empty() { String::new() } else { format!("\nrejected because\n{}", terminal::table(&rows)) }
}
