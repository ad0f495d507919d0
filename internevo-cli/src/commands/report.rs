//! `internevo report runs/tiny/latest`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{context::Context, error::OrUser as _, report, run_dir};

/// Writes report.html of a run.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  internevo report runs/tiny/latest")]
pub struct Report {
    /// A run directory
    #[arg(value_name = "RUN_DIR")]
    pub run_dir: PathBuf,
}

impl Report {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder is not a run directory or the page cannot be written.
    pub fn run(self, cx: &Context) -> anyhow::Result<()> {
        let run_dir = run_dir::resolve(&self.run_dir).or_user()?;
        let path = report::write(&run_dir)?;
        cx.emit(&json!({ "report": path }), || path.display().to_string())
    }
}
