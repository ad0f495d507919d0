//! `internevo data review DIR`: a person labels the documents nearest to the thresholds of a finished stage.
//!
//! The labels are JSON lines `{"id", "label", "reason", "value", "kept"}`; the file is complete after every key, and a review that is
//! started again goes on behind it.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    io::{BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use internevo_core::storage;
use internevo_data::inspect::{BorderlineOptions, RuleView, Sample, borderline};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::data_report::{Filters, read_report};
use crate::{config_args::ConfigArgs, context::Context, error::OrUser as _, terminal, user_bail};

/// Characters of a document that are shown.
const SHOWN_CHARS: usize = 1500;
/// What the keys do.
const KEYS: &str = "[k]eep  [d]rop  [s]kip  [b]ack  [q]uit";

/// Labels documents.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo data review cleaned --labels labels.jsonl --config corpus.toml\n\nGive the configuration that the stage ran with. Keys: k keep, d drop, s skip, b back, q quit; the same command goes on later."
)]
pub struct Review {
    /// The output folder of a stage
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The labels, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub labels: PathBuf,
    /// Only this rule, by the reason of its rejections
    #[arg(long, value_name = "REASON")]
    pub rule: Option<String>,
    /// Documents on each side of each threshold
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub samples: usize,
    /// Folder of trained filters; default `models` in the stage's folder or beside it
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Settings that the stage ran with (`pipeline.*`)
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What a person says about a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It belongs into the corpus.
    Keep,
    /// It does not.
    Drop,
}

/// A line of the labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The document.
    pub id: String,
    /// What the person says.
    pub label: Verdict,
    /// The rule that it was near to.
    pub reason: String,
    /// What that rule measured.
    pub value: f64,
    /// What the stage did.
    pub kept: bool,
}

/// A document to label.
struct Question<'a> {
    rule: &'a RuleView,
    sample: &'a Sample,
    kept: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Label(Verdict),
    Skip,
    Back,
    Quit,
}

impl Key {
    fn of(letter: char) -> Option<Self> {
        Some(match letter.to_ascii_lowercase() {
            'k' => Self::Label(Verdict::Keep),
            'd' => Self::Label(Verdict::Drop),
            's' => Self::Skip,
            'b' => Self::Back,
            'q' => Self::Quit,
            _ => return None,
        })
    }
}

impl Review {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder is no finished stage, a rule is unknown, or a file cannot be read or written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let Some(report) = read_report(&self.folder)? else {
            user_bail!("{} is no output folder of a finished stage", self.folder.display());
        };
        let pipeline = self.config.load()?.config.pipeline;
        let filters = Filters { stage: &report.stage, folder: &self.folder, models: self.models.as_deref() };
        let options = BorderlineOptions { samples: self.samples, excerpt_chars: SHOWN_CHARS, ..Default::default() };
        let mut rules = borderline(&self.folder, &filters.build(&pipeline)?, &options)?.rules;
        if let Some(rule) = &self.rule {
            let known: Vec<String> = rules.iter().map(|rule| rule.reason.clone()).collect();
            rules.retain(|view| view.reason == *rule);
            if rules.is_empty() {
                user_bail!("no rule `{rule}` measured anything in {}: {}", self.folder.display(), known.join(", "));
            }
        }
        let labels = read_labels(&self.labels)?;
        let mut session = Session { queue: questions(&rules, &labels), at: 0, labels, path: self.labels };
        session.run(cx)?;
        cx.emit(&session.summary(), || session.text())
    }
}

/// The documents that have no label yet: the nearest of every rule first, both sides in turns.
fn questions<'a>(rules: &'a [RuleView], labels: &[Label]) -> Vec<Question<'a>> {
    let labelled: HashSet<(&str, &str)> = labels.iter().map(|label| (&*label.id, &*label.reason)).collect();
    let mut all = Vec::new();
    for rule in rules {
        let side = |samples: &'a [Sample], kept| {
            samples.iter().enumerate().map(move |(place, sample)| (place, Question { rule, sample, kept }))
        };
        all.extend(side(&rule.just_rejected, false).chain(side(&rule.just_kept, true)));
    }
    // Stable: at equal distance in the order of the rules.
    all.sort_by_key(|(place, _)| *place);
    let questions = all.into_iter().map(|(_, question)| question);
    questions.filter(|question| !labelled.contains(&(&*question.sample.id, &*question.rule.reason))).collect()
}

fn read_labels(path: &Path) -> anyhow::Result<Vec<Label>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = storage::read_to_string(path)?;
    let label = |(line, number): (&str, usize)| {
        serde_json::from_str(line).with_context(|| format!("{}:{number}: not a label", path.display())).or_user()
    };
    text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()).map(label).collect()
}

/// A review in progress.
struct Session<'a> {
    queue: Vec<Question<'a>>,
    at: usize,
    labels: Vec<Label>,
    path: PathBuf,
}

impl Session<'_> {
    /// Asks until all is labelled, the person leaves or the input ends.
    fn run(&mut self, cx: &Context) -> anyhow::Result<()> {
        let mut keys = Keys::open();
        while let Some(question) = self.queue.get(self.at) {
            cx.console.note(&question.text(self.at + 1, self.queue.len()));
            let key = loop {
                match keys.next()? {
                    None => return Ok(()),
                    Some(letter) => match Key::of(letter) {
                        Some(key) => break key,
                        None => cx.console.note(KEYS),
                    },
                }
            };
            if key == Key::Quit {
                return Ok(());
            }
            self.answer(key)?;
        }
        Ok(())
    }

    fn answer(&mut self, key: Key) -> anyhow::Result<()> {
        match key {
            Key::Label(label) => {
                let Question { rule, sample, kept } = &self.queue[self.at];
                let (id, reason) = (sample.id.clone(), rule.reason.clone());
                self.labels.push(Label { id, label, reason, value: sample.value, kept: *kept });
                self.at += 1;
                self.save()
            }
            Key::Skip => {
                self.at += 1;
                Ok(())
            }
            Key::Back => {
                self.at = self.at.saturating_sub(1);
                let Question { rule, sample, .. } = &self.queue[self.at];
                let before = self.labels.len();
                self.labels.retain(|label| label.id != sample.id || label.reason != rule.reason);
                if self.labels.len() < before { self.save() } else { Ok(()) }
            }
            Key::Quit => Ok(()),
        }
    }

    /// All labels, whole or not at all.
    fn save(&self) -> anyhow::Result<()> {
        let mut lines = String::new();
        for label in &self.labels {
            lines.push_str(&serde_json::to_string(label)?);
            lines.push('\n');
        }
        Ok(storage::write_atomic(&self.path, lines)?)
    }

    /// Labels by rule: how many documents, and in how many of them the person disagrees with the rule, by what the rule did.
    fn by_rule(&self) -> BTreeMap<&str, [u64; 3]> {
        let mut rules: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        for label in &self.labels {
            let [labels, wrongly_kept, wrongly_dropped] = rules.entry(&label.reason).or_default();
            *labels += 1;
            *wrongly_kept += u64::from(label.kept && label.label == Verdict::Drop);
            *wrongly_dropped += u64::from(!label.kept && label.label == Verdict::Keep);
        }
        rules
    }

    fn left(&self) -> usize {
        self.queue.len() - self.at
    }

    fn summary(&self) -> serde_json::Value {
        let rule = |(reason, [labels, kept, dropped]): (&str, [u64; 3])| json!({ "reason": reason, "labels": labels, "wrongly_kept": kept, "wrongly_dropped": dropped });
        let rules: Vec<_> = self.by_rule().into_iter().map(rule).collect();
        json!({ "labels": self.path, "labelled": self.labels.len(), "left": self.left(), "rules": rules })
    }

    fn text(&self) -> String {
        let head = ["rule", "labels", "wrongly kept", "wrongly dropped"].map(str::to_owned);
        let row = |(reason, counts): (&str, [u64; 3])| {
            let [labels, kept, dropped] = counts.map(|count| count.to_string());
            [reason.to_owned(), labels, kept, dropped]
        };
        let rows: Vec<[String; 4]> = std::iter::once(head).chain(self.by_rule().into_iter().map(row)).collect();
        let (labelled, left, path) = (self.labels.len(), self.left(), self.path.display());
        format!("{}{labelled} labels in {path}, {left} documents left\n", terminal::table(&rows))
    }
}

impl Question<'_> {
    fn text(&self, number: usize, of: usize) -> String {
        let Self { rule, sample, kept } = self;
        let mut text =
            format!("\n─── {number} of {of} · {} · {}", rule.reason, if *kept { "kept" } else { "rejected" });
        let _ = write!(text, " at {:.4}", sample.value);
        if let Some(threshold) = sample.threshold {
            let _ = write!(text, " (threshold {threshold})");
        }
        let _ = write!(text, "\n{} · {} · {}\n\n{}\n\n{KEYS}", sample.id, sample.lang, sample.source, sample.excerpt);
        text
    }
}

/// The keys that a person presses, or that a program writes.
enum Keys {
    Terminal(console::Term),
    Piped(std::io::StdinLock<'static>),
}

impl Keys {
    fn open() -> Self {
        let stdin = std::io::stdin();
        if stdin.is_terminal() { Self::Terminal(console::Term::stderr()) } else { Self::Piped(stdin.lock()) }
    }

    /// The next letter; `None` at the end of the input.
    fn next(&mut self) -> anyhow::Result<Option<char>> {
        match self {
            Self::Terminal(terminal) => Ok(Some(terminal.read_char().context("cannot read a key")?)),
            Self::Piped(input) => loop {
                let Some(byte) = input.fill_buf().context("cannot read the keys")?.first().copied() else {
                    return Ok(None);
                };
                input.consume(1);
                if !byte.is_ascii_whitespace() {
                    return Ok(Some(char::from(byte)));
                }
            },
        }
    }
}
