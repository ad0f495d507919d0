//! `internevo train`, `internevo train --preset small`, `internevo train --config my.toml --set data.micro_num=4`

use std::path::PathBuf;

use clap::Args;

use crate::{
    config_args::ConfigArgs,
    context::Context,
    train::{self, ResumeRequest},
};

/// Trains a model; without data, builds the corpus first.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  internevo train                                   preset `tiny`: the whole job in minutes\n  internevo train --preset small --run-dir /data/runs\n  internevo train --config my.toml --set data.micro_num=4 --set launch.ranks=2\n  internevo train --steps 500                       goes on with a finished run\n  internevo train --resume never                    starts a new run\n\nThe same command again continues an interrupted run."
)]
pub struct Train {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// `auto`: continue the newest run with the same settings; `never`: start anew; or a run or checkpoint to continue
    #[arg(long, value_name = "auto|never|PATH")]
    pub resume: Option<ResumeRequest>,
    /// Optimizer steps of the run (`data.total_steps`)
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Folder that holds the run directories (`run_dir`)
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

impl Train {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever stopped the job; see `train::run`.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let mut args = self.config;
        if let Some(steps) = self.steps {
            args.sets.push(format!("data.total_steps={steps}"));
        }
        if let Some(run_dir) = &self.run_dir {
            args.sets.push(format!("run_dir={}", toml::Value::from(run_dir.to_string_lossy().as_ref())));
        }
        let resolved = args.load_or_default_preset()?;
        let configured = if resolved.config.ckpt.auto_resume { ResumeRequest::Auto } else { ResumeRequest::Never };
        train::run(cx, &resolved, &self.resume.unwrap_or(configured))
    }
}
