//! TensorBoard event files, written without TensorFlow: scalars under InternEvo's tags in `tb/` of the run directory.
//!
//! A resumed run adds a file that starts with a session-start event at the first step to come; TensorBoard then hides what the
//! interrupted attempt wrote from that step on (`purge_step`). The byte format is in `event`.

mod event;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::event::Event;
use super::{MetricSink, SinkContext, SinkPlugin, StepRecord};
use crate::{
    plugin::{Plugin, PluginError},
    storage::{self, StorageError},
};

/// Folder in the run directory.
const FOLDER: &str = "tb";
/// What TensorBoard recognises event files by.
const PREFIX: &str = "events.out.tfevents.";

/// The `tensorboard` sink.
#[derive(Debug)]
pub struct TensorBoard {
    file: BufWriter<File>,
}

/// The `tensorboard` sink has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TensorBoardConfig {}

impl Plugin for TensorBoard {
    const NAME: &'static str = "tensorboard";
    const ABOUT: &'static str = "Writes TensorBoard event files with InternEvo's tags to tb/ in the run directory.";
    type Config = TensorBoardConfig;
}

impl SinkPlugin for TensorBoard {
    fn build(_config: TensorBoardConfig, cx: &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError> {
        let failed = |e: StorageError| PluginError::Build { plugin: Self::NAME, reason: e.to_string() };
        Self::create(&cx.run_dir.join(FOLDER), cx.resumed_step).map(|s| Box::new(s) as _).map_err(failed)
    }
}

crate::register_sink!(TensorBoard);

impl TensorBoard {
    /// Starts a new event file in `folder`, later in TensorBoard's order than those already there.
    fn create(folder: &Path, resumed_step: u64) -> Result<Self, StorageError> {
        storage::create_dir_all(folder)?;
        let newest = newest_second(folder)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // TensorBoard reads files in the order of their names, and a session-start event only hides what it has read before.
        let second = newest.map_or(now, |newest| now.max(newest + 1));
        let path = folder.join(format!("{PREFIX}{second:010}.{}.{}.0", host_name(), std::process::id()));
        let file = File::create_new(&path).map_err(StorageError::at("create", &path))?;
        let mut sink = Self { file: BufWriter::new(file) };
        let mut start = || {
            sink.write(0, &Event::FileVersion("brain.Event:2"))?;
            if newest.is_some() {
                sink.write(resumed_step + 1, &Event::SessionStart)?;
            }
            sink.flush()
        };
        start().map_err(StorageError::at("write", &path))?;
        Ok(sink)
    }

    fn write(&mut self, step: u64, event: &Event<'_>) -> io::Result<()> {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        self.file.write_all(&event::frame(&event.encode(wall_time, step)))
    }
}

impl MetricSink for TensorBoard {
    fn record(&mut self, record: &StepRecord) -> io::Result<()> {
        self.write(record.step, &Event::Scalars(&scalars(record)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()
    }
}

/// The tags of `record_current_batch_training_metrics` and of InternEvo's evaluation, and the numbers that only we have.
fn scalars(record: &StepRecord) -> Vec<(&'static str, f32)> {
    let mut scalars = vec![
        ("tflops", record.tflops),
        ("step", record.step as f64),
        ("loss", record.loss),
        ("tgs (tokens/gpu/second)", record.tgs),
        ("tgs/last_tgs_1", record.tgs),
        ("lr", record.lr),
        ("grad_norm", record.grad_norm),
        ("num_consumed_tokens", record.num_consumed_tokens as f64),
        ("inf_nan_skip_batches", record.inf_nan_skip_batches as f64),
        ("fwd_bwd_time", record.fwd_bwd_time),
        ("acc", record.acc),
        ("perplexity", record.perplexity),
        ("tokens", record.tokens as f64),
        ("data_time", record.data_time),
        ("mem_gib", record.mem_gib),
        ("time", record.time),
    ];
    scalars.extend(record.mfu.map(|mfu| ("mfu", mfu)));
    if let Some(loss) = record.valid_loss {
        scalars.extend([("val/valid_loss", loss), ("val/valid_plex", loss.exp())]);
    }
    scalars.into_iter().map(|(tag, value)| (tag, value as f32)).collect()
}

/// The latest second in the names of the event files of `folder`.
fn newest_second(folder: &Path) -> Result<Option<u64>, StorageError> {
    let second = |path: PathBuf| -> Option<u64> {
        path.file_name().and_then(OsStr::to_str)?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
    };
    let mut newest = None;
    for entry in fs::read_dir(folder).map_err(StorageError::at("list", folder))? {
        newest = newest.max(second(entry.map_err(StorageError::at("list", folder))?.path()));
    }
    Ok(newest)
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    let name: String = name.unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests;
