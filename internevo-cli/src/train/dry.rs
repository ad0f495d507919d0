//! `launch.communicator = "dry"`: one step of rank 0 in a world of any size, of which nothing is sent; prints what would be, next
//! to the closed formulas. Losses mean nothing here.

use internevo_core::{
    batch::PackedBatch,
    config::Config,
    estimate::{self, Step, TensorMode},
    layout::ParallelLayout,
    volume::VolumeRow,
};
use internevo_model::{Engine, ModelSpec};
use internevo_parallel::comm::{DryOptions, dry_world};
use serde_json::json;

use crate::{context::Context, error::OrUser as _, terminal, user_bail};

/// Runs the step and prints its communication.
///
/// # Errors
/// A model whose part of one rank does not fit this machine, or settings that make no sense.
pub fn run(cx: &Context, config: &Config, layout: &ParallelLayout) -> anyhow::Result<()> {
    let spec = ModelSpec::from_config(&config.model, config.tokenizer.vocab_size, config.data.seq_len).or_user()?;
    let mode = &config.parallel.tensor.mode;
    if TensorMode::named(mode).is_none() {
        user_bail!("launch.communicator = \"dry\": there are no formulas for the strategy `{mode}` of another crate");
    }
    let step = Step::from_config(config, layout.clone(), spec.vocab);
    let memory = estimate::memory(&step, 0);
    let (world, recorder) = dry_world(0, layout.world(), DryOptions::default());
    let mut engine = Engine::new(&spec, config, layout, world)?;
    recorder.reset();
    let batches: Vec<PackedBatch> = (0..config.data.micro_num).map(|_| made_up(config, spec.vocab)).collect();
    let labels = engine.global_labels(&batches)?;
    engine.forward_backward(&batches, labels)?;
    engine.update(config.adam.lr, config.adam.adam_beta2)?;
    let rows = recorder.report();
    let terms = estimate::volumes(&step, 0);
    let document = json!({ "world": layout.world(), "rank": 0, "sent": rows, "predicted": terms, "memory": memory });
    cx.emit(&document, || {
        let total: u64 = rows.iter().map(|r| r.sent).sum();
        let predicted: u64 = terms.iter().map(estimate::Term::sent).sum();
        format!(
            "rank 0 of {} in one step\n\n{}\nsent in all: {} ({} by the formulas)\nmemory of a rank by the formulas: {}",
            layout.world(),
            table(&rows),
            terminal::bytes(total),
            terminal::bytes(predicted),
            terminal::bytes(memory.total())
        )
    })
}

/// Two documents per row; what they say does not matter.
fn made_up(config: &Config, vocab: usize) -> PackedBatch {
    let (rows, length) = (config.data.micro_bsz, config.data.seq_len);
    let mut batch = PackedBatch { cu_seqlens: vec![0], ..PackedBatch::default() };
    for row in 0..rows {
        for part in [0..length / 2, length / 2..length] {
            let start = row * length;
            batch.position_ids.extend(0..part.len() as u32);
            batch.tokens.extend(part.clone().map(|i| ((start + i) * 7 % vocab) as u32));
            batch.labels.extend(part.clone().map(|i| ((start + i + 1) * 7 % vocab) as i32));
            if !part.is_empty() {
                batch.cu_seqlens.push((start + part.end) as u32);
            }
        }
    }
    batch
}

fn table(rows: &[VolumeRow]) -> String {
    let head = ["group", "ranks", "verb", "calls", "bytes", "sent"].map(str::to_owned);
    let row = |r: &VolumeRow| {
        [
            r.group.clone(),
            r.ranks.len().to_string(),
            r.verb.to_string(),
            r.calls.to_string(),
            terminal::bytes(r.bytes),
            terminal::bytes(r.sent),
        ]
    };
    terminal::table(&[head].into_iter().chain(rows.iter().map(row)).collect::<Vec<_>>())
}
