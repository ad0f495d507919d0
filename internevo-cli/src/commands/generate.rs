//! `internevo generate --model runs/tiny/latest --prompt "pub fn " --max-tokens 64`

use std::path::PathBuf;

use clap::Args;
use internevo_model::{Generator, Sampling};
use serde_json::json;

use crate::{
    context::Context,
    error::OrUser as _,
    model_source::{self, TextModel},
    user_bail,
};

/// Generates text.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo generate --model runs/tiny/latest --prompt \"pub fn \" --prompt \"This crate\"\n  internevo generate --model runs/tiny/latest/export/hf --prompt \"Permission is\" --temperature 0.8 --top-p 0.95 --seed 7"
)]
pub struct Generate {
    /// A Hugging Face folder, a run directory or a checkpoint
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What the text begins with; may be given several times
    #[arg(long, required = true, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Most tokens to generate per prompt
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_tokens: usize,
    /// 0 = always the most likely token
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f64,
    /// Draw from the K most likely tokens; 0 = all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Draw from the most likely tokens that together have probability P
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub top_p: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Put the tokenizer's begin-of-sequence token before the prompt, as models trained elsewhere may expect
    #[arg(long)]
    pub bos: bool,
    /// Go on after the end-of-document token
    #[arg(long)]
    pub ignore_eos: bool,
    /// A `tokenizer.json`, if there is none in the model's folder
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl Generate {
    /// Runs the command.
    ///
    /// # Errors
    /// When the model cannot be loaded or the flags make no sense.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let sampling =
            Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed };
        sampling.validate().or_user()?;
        let model = model_source::load(&self.model)?.with_text(self.tokenizer.as_deref())?;
        let mut samples = Vec::new();
        for prompt in &self.prompt {
            let tokens = self.one(cx, &model, prompt, &sampling)?;
            samples.push(json!({ "prompt": prompt, "text": model.decode(&tokens)?, "tokens": tokens }));
        }
        if cx.json {
            cx.console.print(&serde_json::to_string_pretty(&json!({ "model": self.model, "samples": samples }))?);
        }
        Ok(())
    }

    /// Generates after one prompt, printing as it goes unless the result is JSON.
    fn one(&self, cx: &Context, model: &TextModel, prompt: &str, sampling: &Sampling) -> anyhow::Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        if self.bos {
            let Some(bos) = model.tokenizer.bos_id() else {
                user_bail!("the tokenizer has no begin-of-sequence token")
            };
            ids.push(bos);
        }
        ids.extend(model.tokenizer.encode(prompt)?);
        if ids.is_empty() {
            // Nothing to begin with: a document begins after the end of another.
            ids.push(model.tokenizer.eos_id());
        }
        let generator = Generator::new(&model.decoder, &ids, self.max_tokens, sampling).or_user()?;
        let (mut out, mut shown) = (Vec::new(), 0);
        if !cx.json {
            cx.console.print_part(prompt);
        }
        for token in generator.take(self.max_tokens) {
            let token = token?;
            if token == model.tokenizer.eos_id() && !self.ignore_eos {
                break;
            }
            out.push(token);
            if !cx.json {
                let text = model.decode(&out)?;
                // A character may be spread over several tokens: wait for the rest of it.
                if !text.ends_with('\u{fffd}') {
                    cx.console.print_part(text.get(shown..).unwrap_or_default());
                    shown = text.len();
                }
            }
        }
        if !cx.json {
            cx.console.print_part("\n");
        }
        Ok(out)
    }
}
