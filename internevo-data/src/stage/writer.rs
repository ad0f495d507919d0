//! The output folder of a stage: `kept/part-NNNNN.jsonl`, `rejected/part-NNNNN.jsonl`, and `report.json` as the mark of
//! completion.
//!
//! While a stage runs, `progress.json` says up to where the output is complete and on disk, and which place of the input that
//! answers to. A killed run leaves more output than that; the next one cuts it off and goes on from the place.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use internevo_core::storage::{self, StorageError};
use serde::{Deserialize, Serialize};

use super::{
    output::ChunkOutput,
    progress::Progress,
    report::StageReport,
    usage::{cpu_seconds, peak_rss_bytes},
};
use crate::DataError;

/// Name of the report, written last.
pub const REPORT: &str = "report.json";
const JOURNAL: &str = "progress.json";
const LOCK: &str = ".lock";
const FOLDERS: [&str; 2] = ["kept", "rejected"];

/// A place between two lines of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Index of the file.
    pub file: usize,
    /// Lines of it that are done.
    pub line: u64,
    /// Bytes of it that are done, after decompression.
    pub offset: u64,
}

/// Content of `progress.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    request: String,
    position: Position,
    part: usize,
    lengths: [u64; 2],
    report: StageReport,
}

/// The files that are being written.
struct Part {
    index: usize,
    files: [File; 2],
    lengths: [u64; 2],
}

/// Writes the results of one stage.
pub struct StageWriter {
    output: PathBuf,
    report: StageReport,
    part: Option<Part>,
    /// Documents, and kept ones, that a progress heard of.
    told: [u64; 2],
    started: Instant,
    cpu_started: f64,
    /// Held as long as the writer lives; the system drops it with the process.
    _lock: File,
}

/// The report in `output`, if the stage is complete there, answers to `request`, and its kept files are whole.
pub fn finished(output: &Path, request: &str) -> Option<StageReport> {
    let mut report: StageReport = serde_json::from_slice(&storage::read(output.join(REPORT)).ok()?).ok()?;
    let whole = |(index, bytes): (usize, &u64)| {
        fs::metadata(part_path(output, FOLDERS[0], index)).is_ok_and(|metadata| metadata.len() == *bytes)
    };
    if report.request != request || !report.kept_files.iter().enumerate().all(whole) {
        return None;
    }
    report.reused = true;
    Some(report)
}

impl StageWriter {
    /// A writer of `stage` into `output` from the beginning. Results of an earlier run there are removed, its report first.
    ///
    /// # Errors
    /// A folder that cannot be written, or that another process writes.
    pub fn create(output: &Path, stage: &str) -> Result<Self, DataError> {
        let writer = Self::open(output, StageReport::new(stage, ""))?;
        writer.remove(REPORT)?;
        writer.remove(JOURNAL)?;
        for folder in FOLDERS {
            let path = output.join(folder);
            for entry in fs::read_dir(&path).map_err(StorageError::at("list", &path))? {
                let entry = entry.map_err(StorageError::at("list", &path))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with("part-") && name.ends_with(".jsonl") {
                    fs::remove_file(entry.path()).map_err(StorageError::at("remove", entry.path()))?;
                }
            }
        }
        Ok(writer)
    }

    /// A writer that goes on where a killed run of the same request stopped, and the input's place; else one from the beginning.
    pub(super) fn resume(output: &Path, stage: &str, request: &str) -> Result<(Self, Position), DataError> {
        let journal = storage::read(output.join(JOURNAL)).ok();
        let journal = journal.and_then(|bytes| serde_json::from_slice::<Journal>(&bytes).ok());
        if let Some(journal) = journal.filter(|journal| journal.request == request) {
            let mut writer = Self::open(output, journal.report)?;
            writer.remove(REPORT)?;
            if writer.reopen(journal.part, journal.lengths)? {
                return Ok((writer, journal.position));
            }
        }
        let mut writer = Self::create(output, stage)?;
        writer.report.request = request.to_owned();
        Ok((writer, Position::default()))
    }

    fn open(output: &Path, report: StageReport) -> Result<Self, DataError> {
        for folder in FOLDERS {
            storage::create_dir_all(output.join(folder))?;
        }
        let lock_path = output.join(LOCK);
        let lock = File::create(&lock_path).map_err(StorageError::at("create", &lock_path))?;
        // Some file systems know no locks; the stage runs there all the same.
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(DataError::Busy { path: output.to_owned() });
        }
        let (started, cpu_started) = (Instant::now(), cpu_seconds());
        let told = [report.documents_in, report.documents_kept];
        Ok(Self { output: output.to_owned(), report, part: None, told, started, cpu_started, _lock: lock })
    }

    /// Reopens a part and cuts it to `lengths`; false when it is shorter than that.
    fn reopen(&mut self, index: usize, lengths: [u64; 2]) -> Result<bool, DataError> {
        let mut files = Vec::new();
        for (folder, length) in FOLDERS.into_iter().zip(lengths) {
            let path = part_path(&self.output, folder, index);
            let Ok(mut file) = OpenOptions::new().write(true).open(&path) else { return Ok(false) };
            let found = file.metadata().map_err(StorageError::at("read", &path))?.len();
            if found < length {
                return Ok(false);
            }
            file.set_len(length).map_err(StorageError::at("write", &path))?;
            file.seek(SeekFrom::End(0)).map_err(StorageError::at("write", &path))?;
            files.push(file);
        }
        let files = files.try_into().expect("one file per folder");
        self.part = Some(Part { index, files, lengths });
        Ok(true)
    }

    /// Begins part `index` (an index per input file, ascending), empty, and makes the one before durable. Does nothing if it is
    /// the current part.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn begin_part(&mut self, index: usize) -> Result<(), DataError> {
        if self.part.as_ref().is_some_and(|part| part.index == index) {
            return Ok(());
        }
        self.close_part()?;
        let open = |folder| {
            let path = part_path(&self.output, folder, index);
            File::create(&path).map_err(StorageError::at("create", path))
        };
        let files = [open(FOLDERS[0])?, open(FOLDERS[1])?];
        self.part = Some(Part { index, files, lengths: [0; 2] });
        Ok(())
    }

    /// Appends a chunk to the current part.
    ///
    /// # Errors
    /// A file that cannot be written; what [`StageWriter`] recorded before stays valid.
    ///
    /// # Panics
    /// If no part was begun.
    pub fn append(&mut self, chunk: &ChunkOutput) -> Result<(), DataError> {
        let part = self.part.as_mut().expect("a part is begun before the first chunk");
        for (at, bytes) in [&chunk.kept, &chunk.rejected].into_iter().enumerate() {
            let path = || part_path(&self.output, FOLDERS[at], part.index);
            part.files[at].write_all(bytes).map_err(|e| StorageError::at("write", path())(e))?;
            part.lengths[at] += bytes.len() as u64;
        }
        self.report.add(&chunk.counts);
        Ok(())
    }

    /// Tells `progress` of `stored` bytes of the input that are done, and of the documents appended since the last call.
    pub(crate) fn tell(&mut self, progress: &dyn Progress, stored: u64) {
        let now = [self.report.documents_in, self.report.documents_kept];
        progress.advance(stored, now[0] - self.told[0], now[1] - self.told[1]);
        self.told = now;
    }

    /// Documents appended so far, those of interrupted attempts included.
    pub(super) fn documents_in(&self) -> u64 {
        self.report.documents_in
    }

    /// Makes the output durable and records that the input is done up to `position`.
    pub(super) fn checkpoint(&mut self, position: Position) -> Result<(), DataError> {
        let Some((part, lengths)) = self.part.as_ref().map(|part| (part.index, part.lengths)) else { return Ok(()) };
        self.sync()?;
        self.report.kept_files.truncate(part);
        self.take_times();
        let journal =
            Journal { request: self.report.request.clone(), position, part, lengths, report: self.report.clone() };
        let bytes = serde_json::to_vec(&journal).expect("numbers and strings are JSON");
        Ok(storage::write_atomic(self.output.join(JOURNAL), bytes)?)
    }

    /// Completes the stage: everything durable, `report.json` in place, the journal gone.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(mut self) -> Result<StageReport, DataError> {
        self.close_part()?;
        self.take_times();
        self.report.peak_rss_bytes = peak_rss_bytes();
        write_report(&self.output, &self.report)?;
        self.remove(JOURNAL)?;
        self.remove(LOCK)?;
        Ok(self.report)
    }

    fn take_times(&mut self) {
        let (now, cpu) = (Instant::now(), cpu_seconds());
        self.report.wall_seconds += (now - self.started).as_secs_f64();
        self.report.cpu_seconds += cpu - self.cpu_started;
        (self.started, self.cpu_started) = (now, cpu);
    }

    fn close_part(&mut self) -> Result<(), DataError> {
        self.sync()?;
        if let Some(part) = self.part.take() {
            self.report.kept_files.resize(part.index, 0);
            self.report.kept_files.push(part.lengths[0]);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DataError> {
        let Some(part) = &self.part else { return Ok(()) };
        for (file, folder) in part.files.iter().zip(FOLDERS) {
            let path = part_path(&self.output, folder, part.index);
            file.sync_data().map_err(StorageError::at("write", &path))?;
        }
        Ok(storage::sync_parent(part_path(&self.output, FOLDERS[0], part.index))?)
    }

    fn remove(&self, name: &str) -> Result<(), DataError> {
        let path = self.output.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::at("remove", path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

/// Writes `report.json`.
pub(super) fn write_report(output: &Path, report: &StageReport) -> Result<(), DataError> {
    let mut bytes = serde_json::to_vec_pretty(report).expect("numbers and strings are JSON");
    bytes.push(b'\n');
    Ok(storage::write_atomic(output.join(REPORT), bytes)?)
}

fn part_path(output: &Path, folder: &str, index: usize) -> PathBuf {
    output.join(folder).join(format!("part-{index:05}.jsonl"))
}
