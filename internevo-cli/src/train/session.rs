//! One launch of a job on the process that leads it: from the data and the choice of a run to the outputs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use internevo_core::{
    config::{Config, Resolved},
    layout::{GroupKind, ParallelLayout},
    storage,
};
use internevo_data::loader::{LoaderConfig, PackedLoader};
use internevo_model::ModelSpec;

use super::{
    ResumeRequest, checkpoints_folder, command_line, configured_warm_start,
    job::{Job, Trained, WarmStart},
    model_in_words,
    outputs::{self, Outputs},
    plugins_in_use,
    resume::{self, Start},
    valid_loader,
};
use crate::{
    context::Context,
    corpus::{self, Prepared},
    error::OrUser as _,
    interrupt::Interrupt,
    phases::{Outcome, Phases},
    run_dir, system, terminal,
};

/// A launch.
pub struct Session<'a> {
    cx: &'a Context,
    config: &'a Config,
    data: Prepared,
    settings: serde_json::Value,
    /// What the launch does.
    pub start: Start,
    /// The run directory.
    pub run: PathBuf,
    threads: usize,
    interrupt: Interrupt,
    phases: Phases,
    /// Keeps other processes out of the run directory.
    _lock: Option<run_dir::Lock>,
}

impl<'a> Session<'a> {
    /// Prepares the data and the run directory.
    ///
    /// # Errors
    /// The user's mistakes, or what stopped the pipeline.
    pub fn begin(
        cx: &'a Context,
        resolved: &'a Resolved,
        request: &ResumeRequest,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let config = &resolved.config;
        let interrupt = Interrupt::install(&cx.console, "the same command continues where it stopped");
        let mut phases = Phases::new(&cx.console);
        let data = corpus::prepare(cx, config, &interrupt, &mut phases)?;
        let settings = resume::settings(config, &data.identity);
        let job_folder = Path::new(&config.run_dir).join(&config.job_name);
        let start = resume::decide(request, &job_folder, &settings, config.data.total_steps)?;
        let run = match &start {
            Start::Continue(run) | Start::Finished(run) => run.clone(),
            _ => run_dir::create(&job_folder)?,
        };
        let mut session = Self { cx, config, data, settings, start, run, threads, interrupt, phases, _lock: None };
        if !matches!(session.start, Start::Finished(_)) {
            session._lock = Some(run_dir::lock(&session.run)?);
            session.prepare_run(resolved)?;
        }
        Ok(session)
    }

    /// The launch of another rank's process, which has prepared everything.
    #[cfg(feature = "mpi")]
    pub fn joined(
        cx: &'a Context,
        resolved: &'a Resolved,
        data: Prepared,
        run: PathBuf,
        start: Start,
        threads: usize,
        interrupt: Interrupt,
    ) -> Self {
        let settings = resume::settings(&resolved.config, &data.identity);
        let phases = Phases::new(&cx.console);
        Self { cx, config: &resolved.config, data, settings, start, run, threads, interrupt, phases, _lock: None }
    }

    fn prepare_run(&self, resolved: &Resolved) -> anyhow::Result<()> {
        let run = &self.run;
        if let Some(tokenizer) = &self.data.tokenizer {
            crate::model_source::copy_tokenizer(tokenizer, run)?;
        }
        let environment = serde_json::to_vec_pretty(&system::environment(self.threads))?;
        storage::write_atomic(run.join(run_dir::ENV_FILE), environment)?;
        storage::write_atomic(run.join(resume::SETTINGS_FILE), serde_json::to_vec_pretty(&self.settings)?)?;
        // Last: a folder with this file is a run.
        storage::write_atomic(run.join(run_dir::CONFIG_FILE), resolved.to_commented_toml())?;
        run_dir::mark_latest(run)
    }

    /// The phases so far, to be gone on with.
    pub fn take_phases(&mut self) -> Phases {
        std::mem::replace(&mut self.phases, Phases::new(&self.cx.console))
    }

    /// What all ranks share.
    ///
    /// # Errors
    /// A model that does not fit the data, or a start that cannot be found.
    pub fn job(&self, layout: ParallelLayout) -> anyhow::Result<Job<'_>> {
        let (cx, config, data) = (self.cx, self.config, &self.data);
        let spec = ModelSpec::from_config(&config.model, data.vocab_size, config.data.seq_len).or_user()?;
        let shape = LoaderConfig {
            seq_len: config.data.seq_len,
            micro_bsz: config.data.micro_bsz,
            seed: config.seed,
            min_length: config.data.min_length,
            pack_sample_into_one: config.data.pack_sample_into_one,
            shuffle: true,
        };
        let train = PackedLoader::new(Arc::clone(&data.train), shape.clone()).or_user()?.with_vocab_size(spec.vocab);
        let valid = valid_loader(cx, data, shape, spec.vocab)?;
        let warm_start = match &self.start {
            Start::NewFrom(checkpoint) => Some(WarmStart { checkpoint: checkpoint.clone(), everything: true }),
            Start::New => configured_warm_start(config)?,
            _ => None,
        };
        Ok(Job {
            checkpoints: checkpoints_folder(config, &self.run),
            console: cx.console.clone(),
            run_dir: &self.run,
            config,
            layout,
            spec,
            train: Arc::new(train),
            valid,
            warm_start,
            settings_hash: blake3::hash(self.settings.to_string().as_bytes()).to_hex().to_string(),
            plugins: plugins_in_use(config)?,
            interrupt: self.interrupt.clone(),
        })
    }

    /// Says what will be trained.
    pub fn announce(&self, job: &Job<'_>) {
        let data = &job.config.data;
        let layout = outputs::layout_in_words(&job.layout, &job.config.parallel.tensor.mode);
        let batch = format!(
            "{} tokens per step ({} rows of {} x {} micro-batches x {} data-parallel ranks)",
            terminal::count(job.tokens_per_step()),
            data.micro_bsz,
            data.seq_len,
            data.micro_num,
            job.layout.size(GroupKind::Data)
        );
        let length = format!(
            "{} steps, {} tokens; one epoch is {} tokens",
            job.total_steps(),
            terminal::count(job.total_steps() * job.tokens_per_step()),
            terminal::count(job.train.tokens())
        );
        let start = match &self.start {
            Start::New => "new run".to_owned(),
            Start::NewFrom(checkpoint) => format!("new run from {}", checkpoint.display()),
            Start::Continue(_) | Start::Finished(_) => "continues this run".to_owned(),
        };
        let rows = [
            ("run", job.run_dir.display().to_string()),
            ("model", model_in_words(&job.spec)),
            ("layout", format!("{layout} on {} threads", rayon::current_num_threads())),
            ("batch", batch),
            ("length", length),
            ("start", start),
        ];
        let rows: Vec<[String; 2]> = rows.map(|(name, value)| [name.to_owned(), value]).into();
        self.cx.console.note(terminal::table(&rows).trim_end());
    }

    /// The phase of training: `ranks` runs them.
    ///
    /// # Errors
    /// What stopped a rank.
    pub fn train(
        &self,
        job: &Job<'_>,
        phases: &mut Phases,
        ranks: impl FnOnce() -> anyhow::Result<Trained>,
    ) -> anyhow::Result<Trained> {
        phases.run("training", || {
            let _polling = job.interrupt.polling();
            let trained = ranks()?;
            let note = match &trained.progress.last {
                Some(last) => format!("step {} of {}, loss {:.4} nats", last.step, job.total_steps(), last.loss),
                None => "no step was made".to_owned(),
            };
            Ok(Outcome::fresh(trained, note))
        })
    }

    /// The outputs of a run that has ended, or how to continue one that was stopped.
    ///
    /// # Errors
    /// A stopped run, or an output that cannot be written.
    pub fn finish(&self, job: &Job<'_>, phases: &mut Phases, trained: &Trained) -> anyhow::Result<()> {
        let outputs = Outputs { cx: self.cx, job, data: &self.data, threads: self.threads };
        if !trained.stopped {
            return outputs.finish(phases, trained);
        }
        outputs.write_summary(phases, &trained.progress, false, &[])?;
        anyhow::bail!(
            "stopped after step {} of {}, everything is saved; continue with: {}",
            trained.progress.step,
            job.total_steps(),
            command_line()
        )
    }

    /// The outputs of a run that had ended before.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn show_finished(&self, run: &Path) -> anyhow::Result<()> {
        self.cx.console.note(&format!(
            "all {} steps were done before; --steps N goes on, --resume never starts anew",
            self.config.data.total_steps
        ));
        outputs::show_finished(self.cx, run)
    }
}
