//! What a finished run leaves behind: the Hugging Face export, samples, `summary.json`, `report.html`, and the table of paths.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::Device;
use internevo_core::{
    layout::{GroupKind, ParallelLayout, ZeroStage},
    storage,
};
use internevo_data::tokenizer::Tokenizer;
use internevo_model::{Decoder, Sampling, generate, hf};
use serde_json::json;

use super::{
    evaluate,
    job::{Job, Trained},
    state::Progress,
};
use crate::{
    context::Context,
    corpus::Prepared,
    model_source,
    phases::{Outcome, Phases},
    report::{self, RunSummary, Sample},
    run_dir, terminal,
};

/// How samples are drawn: a small model repeats itself when it always takes the likeliest token.
const SAMPLING: Sampling = Sampling { temperature: 0.7, top_k: 0, top_p: 0.95, seed: 0 };

/// Writes the outputs of one run.
pub struct Outputs<'a> {
    /// Terminal.
    pub cx: &'a Context,
    /// The run.
    pub job: &'a Job<'a>,
    /// Its data.
    pub data: &'a Prepared,
    /// Threads of the pool.
    pub threads: usize,
}

impl Outputs<'_> {
    /// Export, samples, summary, report, and the result on stdout.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn finish(&self, phases: &mut Phases, trained: &Trained) -> anyhow::Result<()> {
        phases.run("export", || self.export(trained))?;
        let samples = phases.run("samples", || self.samples(trained))?;
        self.write_summary(phases, &trained.progress, true, &samples)?;
        show(self.cx, self.job.run_dir, &self.job.checkpoints)
    }

    fn export(&self, trained: &Trained) -> anyhow::Result<Outcome<()>> {
        let folder = self.job.run_dir.join(run_dir::EXPORT);
        let tokenizer = self.data.tokenizer.as_deref().map(model_source::tokenizer_files).transpose()?;
        hf::export_llama(&folder, &self.job.spec, &trained.params, tokenizer)?;
        Ok(Outcome::fresh((), format!("LlamaForCausalLM in {}", folder.display())))
    }

    fn samples(&self, trained: &Trained) -> anyhow::Result<Outcome<Vec<Sample>>> {
        let Some(path) = &self.data.tokenizer else {
            return Ok(Outcome::fresh(Vec::new(), "no tokenizer, no samples"));
        };
        let tokenizer = Tokenizer::load(path)?;
        let decoder = Decoder::from_flat(&self.job.spec, &trained.params, &Device::flex())?;
        let monitor = &self.job.config.monitor;
        let sampling = Sampling { seed: self.job.config.seed, ..SAMPLING };
        let mut samples = Vec::new();
        for prompt in &monitor.prompts {
            let mut ids = tokenizer.encode(prompt)?;
            if ids.is_empty() {
                ids.push(tokenizer.eos_id());
            }
            let stop = [tokenizer.eos_id()];
            let tokens = generate(&decoder, &ids, monitor.sample_tokens, &sampling, &stop)?;
            samples.push(Sample { prompt: prompt.clone(), text: model_source::decode(&tokenizer, &tokens)? });
        }
        storage::write_atomic(self.job.run_dir.join(run_dir::SAMPLES_FILE), serde_json::to_vec_pretty(&samples)?)?;
        Ok(Outcome::fresh(samples, format!("temperature {}, top-p {}", SAMPLING.temperature, SAMPLING.top_p)))
    }

    /// Writes `summary.json` and `report.html`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write_summary(
        &self,
        phases: &Phases,
        progress: &Progress,
        finished: bool,
        samples: &[Sample],
    ) -> anyhow::Result<()> {
        let job = self.job;
        let micro_batches = job.config.data.valid_micro_num as u64;
        let entropy = job.valid.as_ref().map(|valid| evaluate::unigram_entropy(valid, micro_batches)).transpose()?;
        let summary = RunSummary {
            job_name: job.config.job_name.clone(),
            finished,
            steps: progress.step,
            total_steps: job.total_steps(),
            parameters: job.spec.parameter_count() as u64,
            vocab_size: job.spec.vocab as u64,
            ranks: job.layout.world() as u64,
            layout: format!(
                "{}, {} threads",
                layout_in_words(&job.layout, &job.config.parallel.tensor.mode),
                self.threads
            ),
            tokens: progress.consumed_tokens,
            loss: progress.last.as_ref().map(|r| r.loss),
            valid_loss: progress.last.as_ref().and_then(|r| r.valid_loss),
            unigram_entropy: entropy.flatten(),
            phases: phases.done().to_vec(),
            funnel: self.data.funnel.clone(),
            sources: self.data.sources.clone(),
            missing: self.data.missing.clone(),
            samples: samples.to_vec(),
        };
        summary.write(job.run_dir)?;
        report::write(job.run_dir).context("cannot write the report")?;
        Ok(())
    }
}

/// `dp 2, zero1 2`.
pub fn layout_in_words(layout: &ParallelLayout, mode: &str) -> String {
    let size = |kind| layout.size(kind);
    let mut words = vec![format!("dp {}", size(GroupKind::Data))];
    match (size(GroupKind::SequenceHead), size(GroupKind::SequenceContext)) {
        _ if size(GroupKind::Tensor) == 1 => {}
        (_, 1) => words.push(format!("{mode} {}", size(GroupKind::Tensor))),
        (head, context) => words.push(format!("{mode} {head} x {context}")),
    }
    if size(GroupKind::Weight) > 1 {
        words.push(format!("weight {}", size(GroupKind::Weight)));
    }
    let stage = match layout.zero_stage() {
        ZeroStage::Optimizer => 1,
        ZeroStage::Gradients => 2,
        ZeroStage::Weights => 3,
    };
    words.push(format!("zero{stage} {}", size(GroupKind::Zero1)));
    words.join(", ")
}

/// The result of a run that was finished before.
///
/// # Errors
/// When its summary cannot be read.
pub fn show_finished(cx: &Context, run: &Path) -> anyhow::Result<()> {
    show(cx, run, &run.join(run_dir::CHECKPOINTS))
}

/// Prints losses, samples and paths of a run.
fn show(cx: &Context, run: &Path, checkpoints: &Path) -> anyhow::Result<()> {
    let summary = RunSummary::read(run)?;
    let places = places(run, checkpoints);
    let paths: serde_json::Map<_, _> = places.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect();
    let document = json!({ "run_dir": run, "summary": summary, "paths": paths });
    cx.emit(&document, || {
        let mut text = String::new();
        for sample in &summary.samples {
            text.push_str(&format!("--- {}\n{}{}\n", sample.prompt.trim_end(), sample.prompt, sample.text));
        }
        if !summary.samples.is_empty() {
            text.push_str("---\n\n");
        }
        text.push_str(&losses(&summary));
        let rows: Vec<[String; 2]> = places.iter().map(|(n, p)| [(*n).to_owned(), p.display().to_string()]).collect();
        text.push_str(&terminal::table(&rows));
        text
    })
}

fn losses(summary: &RunSummary) -> String {
    let mut text = format!("{} steps, {} tokens", summary.steps, terminal::count(summary.tokens));
    if let Some(loss) = summary.loss {
        text.push_str(&format!(", training loss {loss:.4} nats per token"));
    }
    text.push('\n');
    if let (Some(valid), Some(entropy)) = (summary.valid_loss, summary.unigram_entropy) {
        let (relation, perplexity) = (if valid < entropy { "<" } else { ">=" }, valid.exp());
        text.push_str(&format!(
            "validation loss {valid:.4} nats {relation} unigram entropy {entropy:.4} nats (perplexity {perplexity:.2})\n"
        ));
    }
    text.push('\n');
    text
}

fn places(run: &Path, checkpoints: &Path) -> Vec<(&'static str, PathBuf)> {
    let all = [
        ("run", run.to_owned()),
        ("report", run.join(report::REPORT_FILE)),
        ("metrics", run.join(run_dir::METRICS_FILE)),
        ("tensorboard", run.join("tb")),
        ("checkpoints", checkpoints.to_owned()),
        ("export", run.join(run_dir::EXPORT)),
        ("samples", run.join(run_dir::SAMPLES_FILE)),
        ("config", run.join(run_dir::CONFIG_FILE)),
        ("logs", run.join("logs")),
    ];
    all.into_iter().filter(|(_, path)| path.exists()).collect()
}
