//! One rank of a training run: load, forward and backward, step, record, maybe evaluate and save. Every rank executes this
//! file; whatever only the logging rank does asks for `self.recorder`.

use std::{sync::Arc, time::Instant};

use internevo_core::{batch::PackedBatch, metrics::StepRecord, plugin::Registry};
use internevo_data::loader::Prefetcher;
use internevo_model::Engine;
use internevo_parallel::{
    comm::Communicator,
    lr::{self, Beta2Schedule, LrSchedule},
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
        let decision = rank.control.decide(job, rank.engine.groups(), record.step)?;
        rank.finish_step(record, decision)?;
        if decision.stop {
            return rank.outcome(true);
        }
    }
    rank.outcome(false)
}

struct Rank<'a> {
    job: &'a Job<'a>,
    engine: Engine,
    schedule: Box<dyn LrSchedule>,
    beta2: Beta2Schedule,
    batches: Prefetcher,
    progress: Progress,
    skips_in_a_row: u64,
    control: Control,
    recorder: Option<Recorder>,
}

impl<'a> Rank<'a> {
    fn start(job: &'a Job<'a>, world: Arc<dyn Communicator>) -> anyhow::Result<Self> {
        let config = job.config;
        let mut engine = Engine::new(&job.spec, config, &job.layout, world)?;
        let groups = engine.groups().clone();
        let progress = state::load(job, &groups, engine.optimizer_mut())?;
        engine.refresh();

        let (micro_num, order) = (config.data.micro_num, engine.order());
        let (first, data_rank) = (progress.consumed_micro_batches, groups.data.rank());
        let indices = (0u64..).flat_map(move |step| {
            let start = first + step * order.per_step() as u64;
            (0..micro_num).map(move |local| start + order.index(data_rank, local) as u64)
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
            engine,
            progress,
        })
    }

    /// One optimizer step.
    fn step(&mut self) -> anyhow::Result<StepRecord> {
        let started = Instant::now();
        let batches = self.load()?;
        let labels = self.engine.global_labels(&batches)?;
        let data_time = started.elapsed().as_secs_f64();
        let sums = self.engine.forward_backward(&batches, labels)?;
        let fwd_bwd_time = started.elapsed().as_secs_f64() - data_time;
        let lr = self.schedule.lr(self.progress.step);
        let outcome = self.engine.update(lr, self.beta2.beta2(self.progress.step))?;
        self.count_skip(outcome.skipped)?;
        let loss = sums.loss();
        self.progress.advance(self.job);
        Ok(StepRecord {
            step: self.progress.step,
            loss,
            lr,
            grad_norm: outcome.grad_norm,
            tokens: self.job.tokens_per_step(),
            num_consumed_tokens: self.progress.consumed_tokens,
            acc: sums.accuracy(),
            perplexity: loss.exp(),
            fwd_bwd_time,
            data_time,
            mem_gib: system::resident_gib(),
            inf_nan_skip_batches: self.engine.optimizer().skipped_steps(),
            ..self.job.speed(&batches, started.elapsed().as_secs_f64())
        })
    }

    fn load(&mut self) -> anyhow::Result<Vec<PackedBatch>> {
        let next = || self.batches.next().expect("the loader has no end");
        Ok(std::iter::repeat_with(next).take(self.job.config.data.micro_num).collect::<Result<_, _>>()?)
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
            record.valid_loss = evaluate::validate(self.job, valid, &self.engine)?;
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
        state::save(self.job, self.engine.groups(), self.engine.optimizer(), &self.progress)
    }

    /// What the run ends with. Collective: at its end the parameters come together on the logging rank.
    fn outcome(self, stopped: bool) -> anyhow::Result<Trained> {
        let first_copy = self.engine.groups().zero1_replica.rank() == 0;
        let params = if first_copy && !stopped { self.engine.optimizer().whole_params()?.concat() } else { Vec::new() };
        Ok(Trained { params, progress: self.progress, stopped })
    }
}
