//! `internevo data lm train|score|convert`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use internevo_data::{
    dedup,
    ngram_lm::{LmReport, LmSettings, LmTokens, NgramModel, convert, train},
};
use serde_json::json;

use crate::{
    context::Context,
    corpus::{StageProgress, texts},
    error::OrUser as _,
    interrupt::Interrupt,
    terminal, user_bail,
};

/// Interrupted training begins anew.
const HINT: &str = "nothing is kept of a training that does not end";

/// n-gram language models, which the filter `perplexity` asks.
#[derive(Debug, Subcommand)]
pub enum LmCommand {
    /// Train a model on documents (modified Kneser-Ney, as KenLM's lmplz)
    Train(LmTrain),
    /// Perplexity of each document
    Score(LmScore),
    /// An ARPA file to KenLM's binary form
    Convert(LmConvert),
}

/// Trains a model.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo data lm train --input wikipedia --output en.binary --memory 4GiB\n  internevo data lm train --input books --output zh.arpa --order 4 --prune 0,0,1\n\nOUTPUT.json says how it was trained. KenLM reads the model, and the filter reads KenLM's."
)]
pub struct LmTrain {
    /// JSONL(.gz/.zst) documents, or folders of them; a line of text is a sentence
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// The model: text if the name ends in .arpa, else binary
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Words of the longest n-gram, 1 to 5
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub order: usize,
    /// Tokens: `words`, `spaces` or a tokenizer.json
    #[arg(long, default_value = "words", value_name = "HOW")]
    pub tokens: String,
    /// Drop n-grams of 1, 2, … words that occur this often or less; the last number counts for all longer ones
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    pub prune: Vec<u64>,
    /// Fixed discounts where the corpus is too small to estimate them
    #[arg(long)]
    pub discount_fallback: bool,
    /// Memory for n-grams; what does not fit is sorted on disk
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub memory: String,
}

/// Scores documents.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo data lm score --model en.binary --input cleaned")]
pub struct LmScore {
    /// An ARPA file or a binary file of KenLM's
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// JSONL(.gz/.zst) documents, or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Tokens: `words`, `spaces` or a tokenizer.json; default as the model was trained, else `words`
    #[arg(long, value_name = "HOW")]
    pub tokens: Option<String>,
}

/// Converts a model.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo data lm convert en.arpa.gz en.binary")]
pub struct LmConvert {
    /// The ARPA file (also .gz, .zst)
    #[arg(value_name = "ARPA")]
    pub from: PathBuf,
    /// The binary file
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    /// Buckets per entry of the hash tables: more is faster, less is smaller
    #[arg(long, default_value_t = 1.5, value_name = "N")]
    pub multiplier: f32,
}

impl LmCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When input or settings are wrong, or a file cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Train(c) => c.run(cx),
            Self::Score(c) => c.run(cx),
            Self::Convert(c) => c.run(cx),
        }
    }
}

fn tokens(setting: &str) -> anyhow::Result<LmTokens> {
    LmTokens::parse(setting).map_err(anyhow::Error::msg).or_user()
}

impl LmTrain {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let memory = dedup::bytes(&self.memory).map_err(anyhow::Error::msg).or_user()?;
        let settings = LmSettings {
            order: self.order,
            tokens: tokens(&self.tokens)?,
            prune: self.prune,
            discount_fallback: self.discount_fallback,
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
        };
        let files = texts::files(&self.input)?;
        let interrupt = Interrupt::install(&cx.console, HINT);
        let _polling = interrupt.polling();
        let report = train(&files, &self.output, &settings, &StageProgress::new(&cx.console, &interrupt)).or_user()?;
        cx.emit(&json!({ "model": self.output, "report": report }), || {
            let head = ["words", "n-grams", "discounts 1, 2, 3+"].map(str::to_owned);
            let rows = report.ngrams.iter().zip(&report.discounts).enumerate().map(|(at, (count, discounts))| {
                let discounts: Vec<String> = discounts.discount.iter().map(|d| format!("{d:.4}")).collect();
                [(at + 1).to_string(), terminal::count(*count), discounts.join(", ")]
            });
            let table = terminal::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
            let tokens = terminal::count(report.token_count);
            format!("{tokens} tokens of {} documents\n\n{table}\n{}\n", report.documents, self.output.display())
        })
    }
}

impl LmScore {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let model = NgramModel::load(&self.model).or_user()?;
        let trained = LmReport::of(&self.model).map(|report| report.tokens);
        let tokens = tokens(&self.tokens.or(trained).unwrap_or_else(|| LmTokens::Words.to_string()))?;
        let files = texts::files(&self.input)?;
        let (mut rows, mut all) = (Vec::new(), internevo_data::ngram_lm::Score::default());
        for document in texts::documents(&files) {
            let document = document?;
            let score = model.score(&document.text, &tokens);
            all.log10 += score.log10;
            all.tokens += score.tokens;
            rows.push((document.id, score));
        }
        if all.tokens == 0 {
            user_bail!("the documents hold no text");
        }
        let document = json!({
            "order": model.order(), "tokens": all.tokens, "perplexity": all.perplexity(),
            "documents": rows.iter().map(|(id, score)| json!({
                "id": id, "tokens": score.tokens, "log10": score.log10, "perplexity": score.perplexity(),
            })).collect::<Vec<_>>(),
        });
        cx.emit(&document, || {
            let shown = |score: &internevo_data::ngram_lm::Score| {
                score.perplexity().map_or_else(|| "-".to_owned(), |perplexity| format!("{perplexity:.2}"))
            };
            let rows: Vec<[String; 2]> = rows.iter().map(|(id, score)| [shown(score), id.clone()]).collect();
            format!("{}\n{} over all\n", terminal::table(&rows), shown(&all))
        })
    }
}

impl LmConvert {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let model = convert(&self.from, &self.to, self.multiplier).or_user()?;
        let document = json!({ "model": self.to, "order": model.order(), "bytes": model.bytes() });
        cx.emit(&document, || format!("{}, {}\n", self.to.display(), terminal::bytes(model.bytes() as u64)))
    }
}
