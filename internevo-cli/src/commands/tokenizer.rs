//! `internevo tokenizer train|encode|decode`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use internevo_core::config::{HUGGING_FACE, TokenizerConfig};
use internevo_data::tokenizer::{self, EncodeRequest, Tokenizer, TrainProgress};
use serde_json::json;

use crate::{config_args, context::Context, corpus::texts, error::OrUser as _, terminal, user_bail};

/// Trains, applies or undoes a tokenizer.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE
    Train(TrainTokenizer),
    /// Turn text into token ids, or documents into a token store
    Encode(Encode),
    /// Turn token ids into text
    Decode(Decode),
}

/// Trains a byte-level BPE.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo tokenizer train --input corpus/quality/kept --output tokenizer.json --vocab-size 32000"
)]
pub struct TrainTokenizer {
    /// JSONL(.gz/.zst) documents, HTML, Markdown, text or source files, or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// The `tokenizer.json` to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Size of the vocabulary, special tokens included
    #[arg(long, default_value_t = 4096, value_name = "N")]
    pub vocab_size: usize,
    /// A pair must occur this often to be merged
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub min_frequency: u64,
    /// Most bytes of text to train on; 0 = all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub max_bytes: u64,
}

/// Turns text into token ids, or documents into a token store.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo tokenizer encode --tokenizer tokenizer.json --text \"pub fn main\"\n  internevo tokenizer encode --tokenizer tokenizer.json --input kept --output tokens --format internevo\n  internevo tokenizer encode --tokenizer tokenizer.json --input kept --output tokens --format jsonl --setting 'compression = \"zst\"'\n\nFormats are token sinks, kinds are tokenizers: `internevo plugins` lists both, with their settings under --json."
)]
pub struct Encode {
    /// A Hugging Face `tokenizer.json`, or the file of another kind of tokenizer
    #[arg(long, value_name = "FILE", required_unless_present = "kind")]
    pub tokenizer: Option<PathBuf>,
    /// Kind of tokenizer: hugging_face, or one of another crate
    #[arg(long, default_value = HUGGING_FACE, value_name = "NAME")]
    pub kind: String,
    /// A setting of the tokenizer, as a line of TOML
    #[arg(long, value_name = "KEY = VALUE")]
    pub tokenizer_setting: Vec<String>,
    /// Print the ids of this text
    #[arg(long, conflicts_with_all = ["input", "output"], required_unless_present = "input")]
    pub text: Option<String>,
    /// JSONL(.gz/.zst) documents, HTML, Markdown, text or source files, or folders of them
    #[arg(long, num_args = 1.., requires = "output", value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// Folder of the token store
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Name of the store: `train.bin` or `valid.bin`
    #[arg(long, value_enum, default_value_t = SplitName::Train)]
    pub split: SplitName,
    /// Form of the store: megatron, internevo, jsonl, parquet or a token sink of another crate
    #[arg(long, default_value = "megatron", value_name = "NAME")]
    pub format: String,
    /// A setting of the form, as a line of TOML
    #[arg(long, value_name = "KEY = VALUE")]
    pub setting: Vec<String>,
}

/// Turns token ids into text.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo tokenizer decode --tokenizer tokenizer.json 5 310 17")]
pub struct Decode {
    /// A Hugging Face `tokenizer.json`
    #[arg(long, value_name = "FILE")]
    pub tokenizer: PathBuf,
    /// Token ids
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<u32>,
}

/// Name of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// `train.bin`
    Train,
    /// `valid.bin`
    Valid,
}

impl SplitName {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
        }
    }
}

impl TokenizerCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is not what it should be.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        match self {
            Self::Train(c) => c.run(cx),
            Self::Encode(c) => c.run(cx),
            Self::Decode(c) => c.run(cx),
        }
    }
}

impl TrainTokenizer {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let config = TokenizerConfig {
            vocab_size: self.vocab_size,
            min_frequency: self.min_frequency,
            max_train_bytes: self.max_bytes,
            ..TokenizerConfig::default()
        };
        let files = texts::files(&self.input)?;
        let tokenizer = train_on(cx, &files, &config)?;
        tokenizer.save(&self.output)?;
        let size = tokenizer.vocab_size();
        cx.emit(&json!({ "tokenizer": self.output, "vocab_size": size }), || {
            format!("{} tokens written to {}", terminal::count(size as u64), self.output.display())
        })
    }
}

/// Trains a tokenizer on the documents of `files`, with progress.
///
/// # Errors
/// When a file cannot be read, or the vocabulary is too small.
pub fn train_on(cx: &Context, files: &[PathBuf], config: &TokenizerConfig) -> anyhow::Result<Tokenizer> {
    let progress = cx.console.progress("tokenizer", None, "tokens");
    let report = |p: TrainProgress| match p {
        TrainProgress::Counting { bytes } => progress.message(format!("counting words, {}", terminal::bytes(bytes))),
        TrainProgress::Merging { done, wanted } => {
            progress.set_total(wanted as u64);
            progress.message(String::new());
            progress.set(done as u64);
        }
    };
    let failure = std::cell::RefCell::new(None);
    let documents = texts::documents(files).map_while(|document| match document {
        Ok(document) => Some(document.text),
        Err(error) => {
            *failure.borrow_mut() = Some(error);
            None
        }
    });
    let trained = tokenizer::train(documents, config, &report);
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(trained?),
    }
}

impl Encode {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let file = self.tokenizer.as_ref().map_or_else(String::new, |path| path.display().to_string());
        let own = config_args::settings("--tokenizer-setting", &self.tokenizer_setting)?;
        let settings = toml::Table::from_iter([(self.kind.clone(), own.into())]);
        let config = TokenizerConfig { kind: self.kind, file, settings, ..TokenizerConfig::default() };
        let tokenizer = tokenizer::load(&config).or_user()?;
        let Some(folder) = &self.output else {
            let tokens = tokenizer.encode(self.text.as_deref().unwrap_or_default())?;
            return cx.emit(&json!({ "tokens": tokens }), || {
                tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            });
        };
        let files = texts::files(&self.input)?;
        let split = self.split.name();
        let settings = config_args::settings("--setting", &self.setting)?;
        let request = EncodeRequest {
            inputs: &files,
            tokenizer: &*tokenizer,
            folder,
            sink: &self.format,
            sink_settings: &settings,
            split_of: &|_| split,
        };
        let progress = cx.console.progress("encode", None, "bytes");
        let report = tokenizer::encode_corpus(&request, &|bytes| progress.set(bytes))?;
        progress.finish();
        let Some(stats) = report.splits.get(split) else { user_bail!("there is no document to encode") };
        let document = json!({
            "store": folder.join(split), "documents": stats.documents, "tokens": stats.tokens, "bytes": stats.bytes,
            "bytes_per_token": stats.bytes_per_token, "unigram_entropy_nats": stats.unigram_entropy_nats,
        });
        cx.emit(&document, || {
            let (documents, tokens) = (terminal::count(stats.documents), terminal::count(stats.tokens));
            format!(
                "{documents} documents, {tokens} tokens ({:.2} bytes each) in {}",
                stats.bytes_per_token,
                folder.display()
            )
        })
    }
}

impl Decode {
    fn run(self, cx: &Context) -> anyhow::Result<()> {
        let text = Tokenizer::load(&self.tokenizer).or_user()?.decode(&self.ids).or_user()?;
        cx.emit(&json!({ "text": text }), || text.clone())
    }
}
