//! `internevo import HF_DIR OUT`, then `internevo train --set ckpt.load_ckpt_folder=OUT …`

use std::path::PathBuf;

use clap::Args;
use internevo_model::hf;
use serde_json::json;

use crate::{context::Context, error::OrUser as _, model_source, terminal, train::state, user_bail};

/// Reads a Hugging Face folder into a checkpoint.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  internevo import internlm2-1_8b imported\n  internevo train --config sft.toml --set ckpt.load_ckpt_folder=imported --set 'ckpt.load_ckpt_content=[\"model\"]'"
)]
pub struct Import {
    /// A folder with `config.json` (`llama` or `internlm2`) and safetensors
    #[arg(value_name = "HF_DIR")]
    pub from: PathBuf,
    /// The checkpoint folder to write
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

impl Import {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder holds no such model, or the checkpoint cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        if !self.from.join("config.json").is_file() {
            user_bail!("{} is not a Hugging Face model: it has no config.json", self.from.display());
        }
        if self.out.exists() && std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some()) {
            user_bail!("{} is not empty; name a new folder", self.out.display());
        }
        let imported = hf::import(&self.from).or_user()?;
        if imported.tied {
            cx.console.warn("the head was tied to the embedding; from here on the two are separate parameters");
        }
        let checkpoint = state::write_weights(&self.out, &imported.spec, &imported.params)?;
        if let Some(tokenizer) = &imported.tokenizer_json {
            model_source::copy_tokenizer(tokenizer, &self.out)?;
        }
        let parameters = imported.params.len();
        cx.emit(&json!({ "checkpoint": checkpoint, "parameters": parameters, "model": imported.spec }), || {
            format!("{} parameters written to {}", terminal::count(parameters as u64), checkpoint.display())
        })
    }
}
