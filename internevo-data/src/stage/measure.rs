//! What the filters of a stage measure of every document, without judging: the material for choosing thresholds.

use std::{collections::BTreeMap, io::Write, path::Path};

use internevo_core::storage::{AtomicFile, StorageError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Strategies,
    input::{InputFile, find_inputs},
    progress::Progress,
    reader::{Chunk, ChunkReader, Item, in_chunks},
    request::StageRequest,
    writer::Position,
};
use crate::{DataError, features::Features, quality::VALUES};

/// Bytes of input per chunk.
const CHUNK_BYTES: usize = 4 << 20;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasureReport {
    /// Documents written.
    pub documents: u64,
    /// Lines that are no documents; they are left out.
    pub broken: u64,
    /// Of each value: documents that have it, the least and the greatest.
    pub values: BTreeMap<String, (u64, f64, f64)>,
}

/// Writes every document of `request.input` to `out` (JSONL) with a field `values`: what the rules of the stage measure, by reason
/// ([`Filter::measure`](crate::Filter::measure)), strategies included. `request.output` is not used. The bytes do not depend on the
/// number of threads.
///
/// # Errors
/// As a run of the stage.
pub fn measure(request: &StageRequest<'_>, out: &Path, progress: &dyn Progress) -> Result<MeasureReport, DataError> {
    let strategies = request.strategies()?;
    let inputs = find_inputs(&request.input, out)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build();
    let pool = pool.map_err(|e| DataError::Threads { threads: request.threads, reason: e.to_string() })?;
    progress.start("score", inputs.iter().map(|file| file.bytes).sum());
    let report = pool.install(|| write_all(&strategies, &inputs, out, progress))?;
    progress.finish();
    Ok(report)
}

fn write_all(
    strategies: &Strategies,
    inputs: &[InputFile],
    out: &Path,
    progress: &dyn Progress,
) -> Result<MeasureReport, DataError> {
    let mut report = MeasureReport::default();
    let mut file = AtomicFile::create(out)?;
    let mut reader = ChunkReader::new(inputs, Position::default(), CHUNK_BYTES);
    let measure = |chunk: &Chunk| {
        let found = chunk.items.par_iter().map(|item| measured(item, chunk, inputs, strategies)).collect();
        strategies.check()?;
        Ok(found)
    };
    in_chunks(&mut reader, measure, |chunk, found: Vec<Option<Measured>>| {
        let before = report.documents;
        for measured in found {
            let Some(Measured { line, values }) = measured else {
                report.broken += 1;
                continue;
            };
            report.documents += 1;
            for (name, value) in values {
                let (count, least, greatest) = report.values.entry(name).or_insert((0, value, value));
                (*count, *least, *greatest) = (*count + 1, least.min(value), greatest.max(value));
            }
            file.write_all(&line).map_err(StorageError::at("write", out))?;
        }
        progress.advance(chunk.stored, report.documents - before, report.documents - before);
        if progress.cancelled() { Err(DataError::Interrupted { stage: "score".into() }) } else { Ok(()) }
    })?;
    file.commit()?;
    Ok(report)
}

/// A document with its values.
struct Measured {
    line: Vec<u8>,
    values: Vec<(String, f64)>,
}

fn measured(item: &Item, chunk: &Chunk, inputs: &[InputFile], strategies: &Strategies) -> Option<Measured> {
    let (mut document, _) = chunk.document(item, inputs).ok()?;
    let found = strategies.of(&document).measure(&Features::new(&document));
    let mut values: Vec<(String, f64)> = found.into_iter().map(|(_, m)| (m.reason.into_owned(), m.value)).collect();
    // A rule with two limits measures once.
    values.dedup_by(|next, kept| next.0 == kept.0);
    let object = values.iter().map(|(name, value)| (name.clone(), Value::from(*value))).collect();
    document.meta.insert(VALUES.into(), Value::Object(object));
    let mut line = Vec::new();
    document.write_line(&mut line);
    Some(Measured { line, values })
}
