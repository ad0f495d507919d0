//! `internevo export --to hf-llama runs/tiny/latest OUT`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use internevo_model::hf::{self, ExportOptions, Format};
use serde_json::json;

use crate::{context::Context, error::OrUser as _, model_source, terminal};

/// Writes a checkpoint as a Hugging Face folder.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo export --to hf-llama runs/tiny/latest exported\n  internevo export --to hf-internlm2 runs/tiny/latest/checkpoints/step-00000100 exported"
)]
pub struct Export {
    /// Layout of the folder
    #[arg(long, value_enum, default_value_t = Target::HfLlama)]
    pub to: Target,
    /// A run directory, a checkpoint or another Hugging Face folder
    #[arg(value_name = "CKPT")]
    pub from: PathBuf,
    /// The folder to write; an earlier export there is replaced
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// A `tokenizer.json`, if there is none in the model's folder
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

/// Layout of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// `LlamaForCausalLM`: loads everywhere without remote code
    HfLlama,
    /// `InternLM2ForCausalLM`: InternLM2's names and fused `wqkv`
    HfInternlm2,
}

impl Target {
    fn format(self) -> Format {
        match self {
            Self::HfLlama => Format::Llama,
            Self::HfInternlm2 => Format::InternLm2,
        }
    }
}

impl Export {
    /// Runs the command.
    ///
    /// # Errors
    /// When the model cannot be read or the folder cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let source = model_source::load(&self.from)?;
        let tokenizer = self.tokenizer.or(source.tokenizer_json.clone());
        if tokenizer.is_none() {
            cx.console
                .warn("there is no tokenizer.json beside the model; the export has none either (--tokenizer FILE)");
        }
        let files = tokenizer.as_deref().map(model_source::tokenizer_files).transpose().or_user()?;
        let options = ExportOptions::new(self.to.format()).with_tokenizer(files);
        hf::export(&self.out, &source.spec, &source.params, &options).or_user()?;
        let parameters = source.params.len();
        cx.emit(&json!({ "export": self.out, "format": self.to.format().name(), "parameters": parameters, "from": source.origin }), || {
            format!("{} parameters of {} written to {}", terminal::count(parameters as u64), source.origin.display(), self.out.display())
        })
    }
}
