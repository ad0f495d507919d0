//! `metrics.jsonl`: one JSON object per step, the record that everything else can be rebuilt from.
//!
//! A resumed run continues the file: what an interrupted attempt wrote after the resumed step, and a last line that a killed
//! process left half written, are cut off first.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricSink, SinkContext, SinkPlugin, StepRecord};
use crate::{
    plugin::{Plugin, PluginError},
    storage::{self, StorageError},
};

/// Name of the file in the run directory.
const FILE_NAME: &str = "metrics.jsonl";

/// The `jsonl` sink.
#[derive(Debug)]
pub struct Jsonl {
    file: File,
    /// Bytes of whole lines; a failed write is taken back to here.
    length: u64,
}

/// The `jsonl` sink has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JsonlConfig {}

impl Plugin for Jsonl {
    const NAME: &'static str = "jsonl";
    const ABOUT: &'static str = "Appends one JSON object per step to metrics.jsonl in the run directory.";
    type Config = JsonlConfig;
}

impl SinkPlugin for Jsonl {
    fn build(_config: JsonlConfig, cx: &SinkContext<'_>) -> Result<Box<dyn MetricSink>, PluginError> {
        let failed = |e: StorageError| PluginError::Build { plugin: Self::NAME, reason: e.to_string() };
        Self::open(&cx.run_dir.join(FILE_NAME), cx.resumed_step).map(|s| Box::new(s) as _).map_err(failed)
    }
}

crate::register_sink!(Jsonl);

impl Jsonl {
    /// Opens `path` to continue after `resumed_step`.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a line before its last is not a record; the message names the line.
    fn open(path: &Path, resumed_step: u64) -> Result<Self, StorageError> {
        if let Some(parent) = path.parent() {
            storage::create_dir_all(parent)?;
        }
        let length = if path.exists() { length_up_to(path, resumed_step)? } else { 0 };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(StorageError::at("open", path))?;
        file.set_len(length)
            .and_then(|()| file.seek(SeekFrom::Start(length)))
            .and_then(|_| file.sync_all())
            .map_err(StorageError::at("truncate", path))?;
        storage::sync_parent(path)?;
        Ok(Self { file, length })
    }
}

impl MetricSink for Jsonl {
    fn record(&mut self, record: &StepRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // The first failure is what matters; a file that cannot be cut either is repaired when the run resumes.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// All whole records of a `metrics.jsonl`, in order. A half-written last line is left out.
///
/// # Errors
/// When the file cannot be read, or a line before its last is not a record; the message names the line.
pub fn read_jsonl(path: impl AsRef<Path>) -> Result<Vec<StepRecord>, StorageError> {
    Ok(parse::<StepRecord>(path.as_ref())?.into_iter().map(|(record, _)| record).collect())
}

/// The part of a record that decides whether it stays.
#[derive(Deserialize)]
struct Step {
    step: u64,
}

/// Bytes up to the first record after `resumed_step`.
fn length_up_to(path: &Path, resumed_step: u64) -> Result<u64, StorageError> {
    let records = parse::<Step>(path)?;
    Ok(records.iter().take_while(|(record, _)| record.step <= resumed_step).last().map_or(0, |(_, end)| *end))
}

/// The records of a file, each with the offset after its line.
fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<(T, u64)>, StorageError> {
    let bytes = storage::read(path)?;
    let mut records = Vec::new();
    let mut end = 0;
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        end += line.len() as u64;
        if !line.ends_with(b"\n") {
            break;
        }
        let record = serde_json::from_slice(line).map_err(|e| broken_line(path, index + 1, &e))?;
        records.push((record, end));
    }
    Ok(records)
}

fn broken_line(path: &Path, line: usize, error: &serde_json::Error) -> StorageError {
    let place = PathBuf::from(format!("{}:{line}", path.display()));
    StorageError::at("read", place)(io::Error::new(io::ErrorKind::InvalidData, format!("not a step record: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord { step, loss: 9.0 / step as f64, tokens: 512, ..StepRecord::default() }
    }

    fn write(dir: &Path, resumed_step: u64, steps: std::ops::RangeInclusive<u64>) {
        let mut sink = Jsonl::build(JsonlConfig {}, &SinkContext { run_dir: dir, resumed_step }).expect("open");
        for step in steps {
            sink.record(&record(step)).expect("record");
        }
        sink.flush().expect("flush");
    }

    #[test]
    fn a_resumed_run_reads_as_if_it_had_never_stopped() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(FILE_NAME);
        write(dir.path(), 0, 1..=25);
        // Killed in the middle of a line.
        let mut bytes = storage::read(&path).expect("read");
        bytes.extend_from_slice(b"{\"step\":26,\"loss\":0.3");
        std::fs::write(&path, bytes).expect("write");
        assert_eq!(read_jsonl(&path).expect("torn last line").len(), 25);
        write(dir.path(), 20, 21..=30);
        assert_eq!(read_jsonl(&path).expect("whole"), (1..=30).map(record).collect::<Vec<_>>());
        write(dir.path(), 0, 1..=2);
        assert_eq!(read_jsonl(&path).expect("restarted").len(), 2);
    }

    #[test]
    fn a_torn_last_line_goes_even_when_nothing_after_it_is_dropped() {
        let dir = tempfile::tempdir().expect("temporary folder");
        write(dir.path(), 0, 1..=3);
        let path = dir.path().join(FILE_NAME);
        let whole = storage::read(&path).expect("read");
        for cut in 1..40 {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("write");
            write(dir.path(), 3, 3..=3);
            assert_eq!(storage::read(&path).expect("read"), whole, "cut by {cut}");
        }
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_null_and_does_not_stop_a_resume() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(FILE_NAME);
        let mut sink = Jsonl::open(&path, 0).expect("open");
        sink.record(&StepRecord { loss: f64::NAN, grad_norm: f64::INFINITY, ..record(1) }).expect("record");
        assert!(storage::read_to_string(&path).expect("read").contains("\"loss\":null"));
        assert!(read_jsonl(&path).expect("read")[0].loss.is_nan());
        write(dir.path(), 1, 2..=2);
        assert_eq!(read_jsonl(&path).expect("read").len(), 2);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, "{\"step\":1}\n{\"stp\":2}\n{\"step\":3}\n").expect("write");
        let message = Jsonl::open(&path, 3).expect_err("line 2").to_string();
        assert!(message.contains("metrics.jsonl:2"), "{message}");
    }
}
