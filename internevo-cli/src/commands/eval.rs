//! `internevo eval --model runs/tiny/latest --data held_out.jsonl`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use internevo_core::batch::{IGNORE_INDEX, PackedBatch};
use internevo_data::{
    loader::{LoaderConfig, PackedLoader},
    store::TokenStore,
    tokenizer::Tokenizer,
};
use internevo_model::{Decoder, EvalSums, evaluate};
use serde_json::json;

use crate::{context::Context, corpus::texts, error::OrUser as _, model_source, user_bail};

/// Loss, perplexity and bits per byte.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo eval --model runs/tiny/latest --data held_out.jsonl\n  internevo eval --model exported --data tokens/valid.idx --limit 100 --json"
)]
pub struct Eval {
    /// A Hugging Face folder, a run directory or a checkpoint
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// JSONL(.gz/.zst) documents (a file or a folder of them), or a token store (`X.idx`, or a folder of them)
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Most documents (or rows of a token store) to read; 0 = all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub limit: usize,
    /// A `tokenizer.json`, if there is none in the model's folder
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

impl Eval {
    /// Runs the command.
    ///
    /// # Errors
    /// When model or data cannot be read, or the data holds nothing to score.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        if !self.data.exists() {
            user_bail!("{} does not exist", self.data.display());
        }
        let source = model_source::load(&self.model)?;
        let vocab = source.spec.vocab;
        let sums = if let Some(store) = open_store(&self.data)? {
            let tokenizer = self.tokenizer.clone().or(source.tokenizer_json.clone());
            let tokenizer = tokenizer.map(Tokenizer::load).transpose().or_user()?;
            let lengths = tokenizer.map(|t| token_lengths(&t, vocab));
            self.rows(cx, &source.decoder()?, store, lengths.as_deref())?
        } else {
            let model = source.with_text(self.tokenizer.as_deref())?;
            self.documents(cx, &model.decoder, &model.tokenizer)?
        };
        let Some(result) = sums.finish() else { user_bail!("{}: there is no token to score", self.data.display()) };
        let document = json!({
            "model": self.model, "data": self.data, "loss": result.loss, "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte, "accuracy": result.accuracy, "tokens": result.tokens,
        });
        cx.emit(&document, || {
            let bits = result.bits_per_byte.map_or_else(String::new, |b| format!(", {b:.4} bits per byte"));
            let (loss, perplexity) = (result.loss, result.perplexity);
            format!("loss {loss:.4} nats per token, perplexity {perplexity:.2}{bits} over {} tokens", result.tokens)
        })
    }

    fn rows(
        &self,
        cx: &Context,
        decoder: &Decoder,
        store: TokenStore,
        lengths: Option<&[u32]>,
    ) -> anyhow::Result<EvalSums> {
        let shape = LoaderConfig {
            seq_len: decoder.spec().max_positions,
            micro_bsz: 1,
            seed: 0,
            min_length: 1,
            pack_sample_into_one: false,
            shuffle: false,
        };
        let loader = PackedLoader::new(Arc::new(store), shape).or_user()?.with_vocab_size(decoder.spec().vocab);
        let rows = loader.rows_per_epoch().min(if self.limit == 0 { u64::MAX } else { self.limit as u64 });
        let progress = cx.console.progress("eval", Some(rows), "rows");
        let mut sums = EvalSums::default();
        for row in 0..rows {
            sums = sums.merge(evaluate(decoder, [&loader.micro_batch(row).or_user()?], lengths));
            progress.set(row + 1);
        }
        Ok(sums)
    }

    fn documents(&self, cx: &Context, decoder: &Decoder, tokenizer: &Tokenizer) -> anyhow::Result<EvalSums> {
        let lengths = token_lengths(tokenizer, decoder.spec().vocab);
        let progress = cx.console.progress("eval", None, "documents");
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let (mut sums, mut seen) = (EvalSums::default(), 0u64);
        let files = texts::files(std::slice::from_ref(&self.data))?;
        for document in texts::documents(&files).take(limit) {
            let tokens = tokenizer.encode(&document?.text)?;
            for batch in windows(&tokens, tokenizer.eos_id(), decoder.spec().max_positions) {
                sums = sums.merge(evaluate(decoder, [&batch], Some(&lengths)));
            }
            seen += 1;
            progress.set(seen);
        }
        Ok(sums)
    }
}

/// A document in windows of at most `width` tokens, every token of it scored once. It stands between two end-of-document
/// tokens, as in training; each window's last token predicts the next window's first.
fn windows(tokens: &[u32], eos: u32, width: usize) -> Vec<PackedBatch> {
    let stream: Vec<u32> = [eos].into_iter().chain(tokens.iter().copied()).chain([eos]).collect();
    let inputs = stream.len() - 1;
    let window = |start: usize| {
        let end = (start + width).min(inputs);
        let mut batch = PackedBatch::single(&stream[start..end]);
        *batch.labels.last_mut().expect("a window has a token") = stream[end] as i32;
        debug_assert!(!batch.labels.contains(&IGNORE_INDEX));
        batch
    };
    (0..inputs).step_by(width.max(1)).map(window).collect()
}

/// Bytes of text behind each token id; padding rows of the vocabulary have none.
fn token_lengths(tokenizer: &Tokenizer, vocab: usize) -> Vec<u32> {
    (0..vocab as u32).map(|id| tokenizer.token_bytes(id).len() as u32).collect()
}

/// The token store that `path` means, if it means one.
fn open_store(path: &Path) -> anyhow::Result<Option<TokenStore>> {
    let endings = [".idx", ".bin.meta", ".bin"];
    if path.is_file() {
        let name = path.to_string_lossy();
        let Some(prefix) = endings.iter().find_map(|ending| name.strip_suffix(ending)) else { return Ok(None) };
        if !Path::new(&format!("{prefix}.idx")).is_file() {
            user_bail!("{} has no .idx beside it; name the folder of an InternEvo store", path.display());
        }
        return Ok(Some(TokenStore::open_prefix(prefix).or_user()?));
    }
    let is_store = |name: &str| endings.iter().any(|ending| name.ends_with(ending));
    let holds_store =
        std::fs::read_dir(path)?.filter_map(Result::ok).any(|e| is_store(&e.file_name().to_string_lossy()));
    if holds_store { Ok(Some(TokenStore::open_folder(path, "valid").or_user()?)) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_score_every_token_of_a_document_once_whatever_their_width() {
        let tokens: Vec<u32> = (10..31).collect();
        for width in [1, 2, 5, 21, 22, 100] {
            let batches = windows(&tokens, 2, width);
            let labels: Vec<i32> = batches.iter().flat_map(|b| b.labels.clone()).collect();
            let expected: Vec<i32> = (10..31).chain([2]).collect();
            assert_eq!(labels, expected, "width {width}");
            assert!(batches.iter().all(|b| b.tokens.len() <= width));
        }
    }
}
