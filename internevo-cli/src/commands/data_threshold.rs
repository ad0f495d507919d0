//! `internevo data score|sample|threshold`: from what filters measure, over labelled documents near the threshold, to a threshold.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use internevo_core::storage::AtomicFile;
use internevo_data::{
    quality::{
        Borderline, BorderlineSettings, Keeps, Target, ThresholdPoint, ThresholdReport, ThresholdSettings,
        choose_threshold, read_labelled_values,
    },
    stage,
};
use serde_json::json;

use super::data::StageArgs;
use crate::{
    context::Context,
    corpus::{MODELS, StageProgress, texts},
    error::OrUser as _,
    interrupt::Interrupt,
    terminal, user_bail,
};

/// Rows of the printed curve.
const ROWS: usize = 20;
/// Interrupted scoring begins anew.
const HINT: &str = "nothing is kept of a scoring that does not end";

/// Writes what filters measure of each document.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo data score --input cleaned --output scored.jsonl --filter perplexity --config corpus.toml\n\nEach document gets a field `values`, such as {\"perplexity_high\": 412.7}. Nothing is dropped."
)]
pub struct Score {
    /// Documents, as for a stage
    #[arg(long, value_name = "DIR")]
    pub input: PathBuf,
    /// The documents with their values (JSONL)
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Filters to ask, instead of `pipeline.quality`
    #[arg(long = "filter", value_name = "NAME")]
    pub filters: Vec<String>,
    /// As for a stage; the default folder of trained filters is beside OUTPUT
    #[command(flatten)]
    pub args: StageArgs,
}

/// Draws documents near a threshold.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo data sample --input scored.jsonl --value perplexity_high --threshold 800 --by source,lang --output to-label.jsonl\n\nWrite `keep` or `drop` into the empty `label` of each line, then run `internevo data threshold`."
)]
pub struct Sample {
    /// Documents with values, from `internevo data score`
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Name of the value: the reason that the rule gives
    #[arg(long, value_name = "REASON")]
    pub value: String,
    /// The threshold as it is
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub threshold: f64,
    /// Documents on each side of it
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub count: usize,
    /// Fields that divide the documents into strata, each drawn from alike
    #[arg(long, value_delimiter = ',', value_name = "FIELD,…")]
    pub by: Vec<String>,
    /// The drawn documents (JSONL)
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Chooses a threshold.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data threshold --input labelled.jsonl --value perplexity_high --keep below --setting pipeline.filter.perplexity.en.high\n  internevo data threshold --input labelled.jsonl --value fluency_low --min-precision 0.95\n\nPrints a table, the choice with its 95 % interval, and TOML for the configuration."
)]
pub struct Threshold {
    /// JSONL with `label` (`keep` or `drop`) and the value: labelled samples, or labels of `data review`
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Name of the value: the reason that the rule gives
    #[arg(long, value_name = "REASON")]
    pub value: String,
    /// Which values the filter keeps
    #[arg(long, value_enum, default_value_t = Side::Above)]
    pub keep: Side,
    /// Take the greatest recall with this precision or more, instead of the greatest F
    #[arg(long, value_name = "SHARE", conflicts_with = "min_kept")]
    pub min_precision: Option<f64>,
    /// Take the greatest F that keeps this share of the bytes or more
    #[arg(long, value_name = "SHARE")]
    pub min_kept: Option<f64>,
    /// Weight of recall in F
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub beta: f64,
    /// Resamples for the intervals
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub resamples: usize,
    /// Seed of the resamples
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Key of the configuration that the TOML sets, such as `pipeline.filter.fluency.threshold`
    #[arg(long, value_name = "KEY")]
    pub setting: Option<String>,
}

/// Which values a filter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Those of the threshold and more
    Above,
    /// Those of the threshold and less
    Below,
}

impl Score {
    pub(super) fn run(self, cx: &Context) -> anyhow::Result<()> {
        let mut config = self.args.config.load()?.config;
        if !self.filters.is_empty() {
            config.pipeline.quality = self.filters;
        }
        let (output, models) = (self.output.clone(), self.output.with_file_name(MODELS));
        let request = self.args.request("quality", self.input, output, models, &config.pipeline)?;
        let interrupt = Interrupt::install(&cx.console, HINT);
        let _polling = interrupt.polling();
        let report = stage::measure(&request, &self.output, &StageProgress::new(&cx.console, &interrupt)).or_user()?;
        cx.emit(&json!({ "output": self.output, "report": report }), || {
            let head = ["value", "documents", "least", "greatest"].map(str::to_owned);
            let rows = report.values.iter().map(|(name, (count, least, greatest))| {
                [name.clone(), terminal::count(*count), format!("{least:.4}"), format!("{greatest:.4}")]
            });
            let table = terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
            format!("{} documents\n\n{table}\n{}\n", terminal::count(report.documents), self.output.display())
        })
    }
}

impl Sample {
    pub(super) fn run(self, cx: &Context) -> anyhow::Result<()> {
        let files = texts::files(&self.input)?;
        let mut borderline = Borderline::new(BorderlineSettings {
            value: self.value.clone(),
            threshold: self.threshold,
            per_side: self.count,
            strata: self.by,
        });
        for document in texts::documents(&files) {
            borderline.add(document?);
        }
        let drawn = borderline.draw();
        if drawn.is_empty() {
            user_bail!("no document has a value `{}`; `internevo data score` writes them", self.value);
        }
        let mut file = AtomicFile::create(&self.output)?;
        let mut line = Vec::new();
        for document in &drawn {
            line.clear();
            document.write_line(&mut line);
            file.write_all(&line)?;
        }
        file.commit()?;
        let above = drawn.iter().filter(|document| document.field("side") == Some("above")).count();
        let below = drawn.len() - above;
        cx.emit(&json!({ "output": self.output, "above": above, "below": below }), || {
            format!(
                "{above} documents from the threshold on, {below} below, to be labelled in {}\n",
                self.output.display()
            )
        })
    }
}

impl Threshold {
    pub(super) fn run(self, cx: &Context) -> anyhow::Result<()> {
        let documents = read_labelled_values(&texts::files(&self.input)?, &self.value).or_user()?;
        let settings = ThresholdSettings {
            keeps: match self.keep {
                Side::Above => Keeps::Above,
                Side::Below => Keeps::Below,
            },
            target: match (self.min_precision, self.min_kept) {
                (Some(share), _) => Target::Precision(share),
                (_, Some(share)) => Target::KeptBytes(share),
                _ => Target::FBeta,
            },
            beta: self.beta,
            resamples: self.resamples,
            seed: self.seed,
        };
        let report = choose_threshold(&documents, &settings).or_user()?;
        let toml = toml(&report, self.setting.as_deref());
        cx.emit(&json!({ "value": self.value, "report": report, "toml": toml }), || text(&report, &toml))
    }
}

/// What to paste into the configuration.
fn toml(report: &ThresholdReport, setting: Option<&str>) -> String {
    let (chosen, interval) = (&report.chosen, report.threshold_interval);
    let facts = format!(
        "# precision {:.3}, recall {:.3} on {} labelled documents; 95 % of resamples choose {:.6} to {:.6}",
        chosen.precision, chosen.recall, report.documents, interval.low, interval.high
    );
    let (section, key) =
        setting.and_then(|setting| setting.rsplit_once('.')).unwrap_or(("", setting.unwrap_or("threshold")));
    let section = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    format!("{section}{facts}\n{key} = {:?}\n", chosen.threshold)
}

fn text(report: &ThresholdReport, toml: &str) -> String {
    let head = ["threshold", "precision", "recall", "F", "kept", "kept bytes"].map(str::to_owned);
    let row = |point: &ThresholdPoint| {
        let share = |x: f64| format!("{x:.4}");
        let mark = if point == &report.chosen { "  <" } else { "" };
        [
            format!("{:.6}", point.threshold),
            share(point.precision),
            share(point.recall),
            share(point.f_beta),
            share(point.kept_documents),
            share(point.kept_bytes) + mark,
        ]
    };
    // The chosen row and others at even distances.
    let step = report.curve.len().div_ceil(ROWS).max(1);
    let shown = report.curve.iter().enumerate().filter(|(at, point)| at % step == 0 || **point == report.chosen);
    let rows: Vec<_> = std::iter::once(head).chain(shown.map(|(_, point)| row(point))).collect();
    let range = |interval: internevo_data::quality::Interval| format!("{:.4} to {:.4}", interval.low, interval.high);
    format!(
        "{} labelled documents, {} to keep\n\n{}\nin 95 % of {} resamples: threshold {}, precision {}, recall {}, F {}\n\n{toml}",
        report.documents,
        report.to_keep,
        terminal::table(&rows),
        report.resamples,
        range(report.threshold_interval),
        range(report.precision_interval),
        range(report.recall_interval),
        range(report.f_beta_interval),
    )
}
