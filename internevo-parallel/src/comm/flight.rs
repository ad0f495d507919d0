//! The flight recorder: the last calls of every rank, kept in memory and written down when the world fails.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{CommError, call::Record};

/// One rank's line of the flight recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankTrace {
    /// Rank in the world.
    pub rank: usize,
    /// How many calls it has made.
    pub made: u64,
    /// The last of them, oldest first: `all_reduce(sum, f32 x 1024) #17 of ranks [0, 1]`.
    pub calls: Vec<String>,
}

/// The last calls of one rank.
#[derive(Debug)]
pub(crate) struct Recorder {
    records: VecDeque<Record>,
    kept: usize,
    made: u64,
}

impl Recorder {
    /// A recorder that keeps the last `kept` calls, at least one.
    pub(crate) fn new(kept: usize) -> Self {
        Self { records: VecDeque::new(), kept: kept.max(1), made: 0 }
    }

    pub(crate) fn record(&mut self, record: Record) {
        if self.records.len() == self.kept {
            self.records.pop_front();
        }
        self.records.push_back(record);
        self.made += 1;
    }

    /// What was recorded of `rank`, whose recorder this is.
    pub(crate) fn trace(&self, rank: usize) -> RankTrace {
        RankTrace { rank, made: self.made, calls: self.records.iter().map(Record::to_string).collect() }
    }

    /// [`Recorder::trace`] with the last call alone: what other ranks are told all the time.
    #[cfg(feature = "mpi")]
    pub(crate) fn last(&self, rank: usize) -> RankTrace {
        RankTrace { rank, made: self.made, calls: self.records.back().map(Record::to_string).into_iter().collect() }
    }
}

/// Writes `flight-rank-N.jsonl` into `folder`, which is made when it is missing: the failure as rank `rank` saw it, if there is
/// one, then one line for every recorded call, `{"rank", "number", "call"}`. The file appears whole or not at all.
///
/// # Errors
/// What the file system says.
pub fn write_flight(
    folder: &Path,
    rank: usize,
    flight: &[RankTrace],
    failure: Option<&CommError>,
) -> io::Result<PathBuf> {
    let mut text = String::new();
    let mut line = |value: serde_json::Value| text.push_str(&format!("{value}\n"));
    if let Some(error) = failure {
        line(serde_json::json!({ "rank": rank, "failure": error.cause().to_string() }));
    }
    for trace in flight {
        let first = trace.made - trace.calls.len() as u64;
        for (number, call) in (first..).zip(&trace.calls) {
            line(serde_json::json!({ "rank": trace.rank, "number": number, "call": call }));
        }
    }
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("flight-rank-{rank}.jsonl"));
    let beside = folder.join(format!(".flight-rank-{rank}.jsonl.partial"));
    fs::write(&beside, text)?;
    fs::rename(&beside, &path)?;
    Ok(path)
}
