//! One rank of a training run: load, forward and backward, step, record, maybe evaluate and save. Every rank executes this
//! file; whatever only the logging rank does asks for `self.recorder`.

use std::{sync::Arc, time::Instant};

use burn::tensor::Device;
use internevo_core::{batch::PackedBatch, metrics::StepRecord, plugin::Registry};
use internevo_data::loader::Prefetcher;
use internevo_model::Decoder;
use internevo_parallel::{
    ParameterSource as _, ProcessGroups, ShardedOptimizer, ZeroConfig,
    comm::{Buffer, Communicator, ReduceOp},
    lr::{self, Beta2Schedule, LrSchedule},
    optimizer::OptimizerChoice,
};

use super::{
    control::{Control, Decision},
    evaluate,
    job::{Job, Trained},
    record::Recorder,
    state::{self, Progress},
};
use crate::system;

/// So many steps without a finite gradient in a row mean that the run has diverged for good.
const MAX_SKIPS_IN_A_ROW: u64 = 100;

/// Steps whose micro-batches are packed ahead.
const STEPS_AHEAD: usize = 2;

/// Trains on this rank until the last step or until someone stops the run.
///
/// # Errors
/// A damaged file, a full disk, a failed world, or a run that diverged.
pub fn train(job: &Job, world: Arc<dyn Communicator>) -> anyhow::Result<Trained> {
    let mut rank = Rank::start(job, world)?;
    while rank.progress.step < job.total_steps() {
        let record = rank.step()?;
        let decision = rank.control.decide(job, &rank.groups, record.step)?;
        rank.finish_step(record, decision)?;
        if decision.stop {
            return Ok(rank.outcome(true));
        }
    }
    Ok(rank.outcome(false))
}

struct Rank<'a> {
    job: &'a Job<'a>,
    groups: ProcessGroups,
    decoder: Decoder,
    optimizer: ShardedOptimizer,
    schedule: Box<dyn LrSchedule>,
    beta2: Beta2Schedule,
    batches: Prefetcher,
    progress: Progress,
    skips_in_a_row: u64,
    control: Control,
    recorder: Option<Recorder>,
}

/// Per micro-batch: negative log-likelihood, labelled tokens, right predictions.
type Sums = [f64; 3];

impl<'a> Rank<'a> {
    fn start(job: &'a Job<'a>, world: Arc<dyn Communicator>) -> anyhow::Result<Self> {
        let config = job.config;
        let groups = ProcessGroups::new(&job.layout, world)?;
        let mut decoder = Decoder::init(&job.spec, config.seed, &Device::flex().autodiff())?;
        let mut initial = vec![0.0; job.spec.parameter_count()];
        decoder.write_flat(&mut initial);
        let choice = OptimizerChoice::from_config(&Registry::collect()?, config)?;
        let zero = ZeroConfig::from_config(config)?;
        let mut optimizer = ShardedOptimizer::new(decoder.specs(), initial, groups.clone(), &choice, zero)?;
        let progress = state::load(job, &groups, &mut optimizer)?;
        decoder.read_flat(optimizer.params());

        let micro_num = config.data.micro_num;
        let (first, per_step) = (progress.consumed_micro_batches, groups.data.size() * micro_num);
        let offset = groups.data.rank() * micro_num;
        let indices = (0u64..).flat_map(move |step| {
            let start = first + step * per_step as u64 + offset as u64;
            start..start + micro_num as u64
        });
        let logs = groups.world.rank() == 0;
        let open =
            || Recorder::open(&job.console, &config.monitor, job.run_dir, progress.step, job.total_steps(), micro_num);
        Ok(Self {
            job,
            recorder: logs.then(open).transpose()?,
            schedule: lr::from_config(&Registry::collect()?, config)?,
            beta2: Beta2Schedule::from_config(config),
            batches: job.train.prefetch(indices, STEPS_AHEAD * micro_num)?,
            control: Control::default(),
            skips_in_a_row: 0,
            groups,
            decoder,
            optimizer,
            progress,
        })
    }

    /// One optimizer step.
    fn step(&mut self) -> anyhow::Result<StepRecord> {
        let started = Instant::now();
        let batches = self.load()?;
        let labelled = self.global_labels(&batches)?;
        let data_time = started.elapsed().as_secs_f64();
        let mut sums = Vec::with_capacity(batches.len());
        for batch in &batches {
            sums.push(self.forward_backward(batch, 1.0 / labelled.max(1) as f64));
        }
        let fwd_bwd_time = started.elapsed().as_secs_f64() - data_time;
        let lr = self.schedule.lr(self.progress.step);
        let outcome = self.optimizer.step(lr, self.beta2.beta2(self.progress.step))?;
        self.count_skip(outcome.skipped)?;
        self.decoder.read_flat(self.optimizer.params());
        let [nll, tokens, correct] = self.gather(&sums)?;
        let loss = nll / tokens.max(1.0);
        self.progress.advance(self.job);
        Ok(StepRecord {
            step: self.progress.step,
            loss,
            lr,
            grad_norm: outcome.grad_norm,
            tokens: self.job.tokens_per_step(),
            num_consumed_tokens: self.progress.consumed_tokens,
            acc: correct / tokens.max(1.0),
            perplexity: loss.exp(),
            fwd_bwd_time,
            data_time,
            mem_gib: system::resident_gib(),
            inf_nan_skip_batches: self.optimizer.skipped_steps(),
            ..self.job.speed(&batches, started.elapsed().as_secs_f64())
        })
    }

    fn load(&mut self) -> anyhow::Result<Vec<PackedBatch>> {
        let next = || self.batches.next().expect("the loader has no end");
        Ok(std::iter::repeat_with(next).take(self.job.config.data.micro_num).collect::<Result<_, _>>()?)
    }

    /// Labelled tokens of the step on all ranks: the denominator of its loss.
    fn global_labels(&self, batches: &[PackedBatch]) -> anyhow::Result<i64> {
        let own: usize = batches.iter().map(PackedBatch::label_count).sum();
        let sum = self.groups.data.all_reduce(Buffer::I64(vec![own as i64]), ReduceOp::Sum)?.wait()?.into_i64();
        Ok(sum[0])
    }

    fn forward_backward(&mut self, batch: &PackedBatch, scale: f64) -> Sums {
        let loss = self.decoder.loss(batch, self.job.config.loss.label_smoothing, scale);
        let mut gradients = loss.loss_sum.backward();
        self.optimizer.accumulate(|flat| self.decoder.take_grads(&mut gradients, flat));
        [loss.nll_sum, loss.labelled as f64, loss.correct as f64]
    }

    /// Sums over all micro-batches of the step, added in their global order: the same bits for every layout.
    fn gather(&self, own: &[Sums]) -> anyhow::Result<Sums> {
        let all = self.groups.data.all_gather(Buffer::F64(own.concat()))?.wait()?.into_f64();
        Ok(evaluate::add_in_order(all.chunks_exact(3)))
    }

    fn count_skip(&mut self, skipped: bool) -> anyhow::Result<()> {
        self.skips_in_a_row = if skipped { self.skips_in_a_row + 1 } else { 0 };
        anyhow::ensure!(
            self.skips_in_a_row < MAX_SKIPS_IN_A_ROW,
            "the run has diverged: the gradients of the last {MAX_SKIPS_IN_A_ROW} steps were not finite; \
             continue from an earlier checkpoint with a lower adam.lr"
        );
        Ok(())
    }

    /// Evaluates, records and saves where it is time to.
    fn finish_step(&mut self, mut record: StepRecord, decision: Decision) -> anyhow::Result<()> {
        let (step, last) = (record.step, record.step == self.job.total_steps());
        let every = self.job.config.data.valid_every as u64;
        let due = last || (every > 0 && step.is_multiple_of(every));
        if let (Some(valid), true) = (&self.job.valid, due) {
            record.valid_loss = evaluate::validate(self.job, valid, &self.decoder, &*self.groups.data)?;
        }
        self.progress.last = Some(record.clone());
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&record)?;
        }
        let every = self.job.config.ckpt.checkpoint_every as u64;
        if self.job.config.ckpt.enable_save_ckpt && (last || decision.save || (every > 0 && step.is_multiple_of(every)))
        {
            self.save()?;
        } else if let (Some(recorder), true) = (&mut self.recorder, last || decision.stop) {
            recorder.flush()?;
        }
        Ok(())
    }

    fn save(&mut self) -> anyhow::Result<()> {
        // The metrics up to this step must survive whatever the checkpoint survives.
        if let Some(recorder) = &mut self.recorder {
            recorder.flush()?;
        }
        state::save(self.job, &self.groups, &self.optimizer, &self.progress)
    }

    fn outcome(self, stopped: bool) -> Trained {
        let params = if self.recorder.is_some() { self.optimizer.params().to_vec() } else { Vec::new() };
        Trained { params, progress: self.progress, stopped }
    }
}
