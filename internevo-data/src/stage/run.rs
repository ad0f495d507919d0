//! The run of a stage over its input: chunk by chunk, the documents of a chunk in parallel, the output in the input's order.

use std::{collections::HashSet, ops::Range, time::Duration};

use rayon::prelude::*;

use super::{
    input::{InputFile, find_inputs},
    output::{ChunkOutput, Rejection},
    progress::Progress,
    reader::{Chunk, ChunkReader, Item, in_chunks},
    report::StageReport,
    request::{Plan, StageRequest},
    writer::{StageWriter, finished, write_report},
};
use crate::{
    DataError,
    document::{Document, LineFault},
    filter::{FilterChain, Judgement},
    format::{self, Extractor},
};

/// How large the steps of a run are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    /// Bytes of input per chunk.
    pub chunk_bytes: usize,
    /// Bytes of input between two records of progress. Each costs two syncs of the disk.
    pub checkpoint_bytes: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { chunk_bytes: 4 << 20, checkpoint_bytes: 64 << 20 }
    }
}

/// Runs a stage, or continues a killed run of the same request, or reuses its finished output.
///
/// The files of the output are the same bytes for any number of threads and any number of interruptions. A broken line does not
/// stop the run: it goes to `rejected/`.
///
/// # Errors
/// An unknown stage or filter, settings that do not fit, an input without documents, a file that cannot be read or written (a full
/// disk among them), or the caller's wish to stop. After the last two the same request continues where this one stopped.
pub fn run_stage(request: &StageRequest<'_>, progress: &dyn Progress) -> Result<StageReport, DataError> {
    run_in_steps(request, progress, Steps::default())
}

pub(super) fn run_in_steps(
    request: &StageRequest<'_>,
    progress: &dyn Progress,
    steps: Steps,
) -> Result<StageReport, DataError> {
    let plan = request.plan()?;
    let inputs = find_inputs(&request.input, &request.output)?;
    let hash = request.hash(&plan, &inputs);
    if let Some(report) = finished(&request.output, &hash) {
        progress.message(&format!("{}: reusing {}", request.stage, request.output.display()));
        return Ok(report);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build();
    let pool = pool.map_err(|e| DataError::Threads { threads: request.threads, reason: e.to_string() })?;
    progress.start(request.stage, inputs.iter().map(|file| file.bytes).sum());
    let report = pool.install(|| match &plan {
        Plan::Dedup => deduplicate(request, &inputs, &hash, progress),
        Plan::Format(_) | Plan::Filter(_) => Run::new(request, &plan, &inputs).all(&hash, progress, steps),
    })?;
    progress.finish();
    Ok(report)
}

fn deduplicate(
    request: &StageRequest<'_>,
    inputs: &[InputFile],
    hash: &str,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let mut report = crate::dedup::run(inputs, &request.output, &request.pipeline.dedup, progress)?;
    if report.documents_in == 0 {
        return Err(DataError::EmptyInput { path: request.input.clone() });
    }
    report.request = hash.to_owned();
    write_report(&request.output, &report)?;
    Ok(report)
}

/// A stage that treats every document by itself.
struct Run<'a> {
    request: &'a StageRequest<'a>,
    plan: &'a Plan,
    inputs: &'a [InputFile],
}

impl<'a> Run<'a> {
    fn new(request: &'a StageRequest<'a>, plan: &'a Plan, inputs: &'a [InputFile]) -> Self {
        Self { request, plan, inputs }
    }

    fn all(&self, hash: &str, progress: &dyn Progress, steps: Steps) -> Result<StageReport, DataError> {
        let (mut writer, position) = StageWriter::resume(&self.request.output, self.request.stage, hash)?;
        if position != Default::default() {
            let name = &self.inputs[position.file.min(self.inputs.len() - 1)].name;
            progress.message(&format!("{}: continuing at {name}:{}", self.request.stage, position.line + 1));
            progress.advance(self.inputs[..position.file].iter().map(|file| file.bytes).sum(), 0, 0);
        }
        let mut reader = ChunkReader::new(self.inputs, position, steps.chunk_bytes);
        let mut warned = HashSet::new();
        let mut since_checkpoint = 0;
        let judge = |chunk: &Chunk| self.chunk(chunk);
        in_chunks(&mut reader, judge, |chunk, tasks| {
            writer.begin_part(chunk.part)?;
            for Judged { lines, faults } in &tasks {
                writer.append(lines)?;
                self.warn(faults, &mut warned, progress);
            }
            writer.tell(progress, chunk.stored);
            since_checkpoint += chunk.items.iter().map(|item| chunk.bytes(item).len()).sum::<usize>();
            let cancelled = progress.cancelled();
            if cancelled || since_checkpoint >= steps.checkpoint_bytes {
                writer.checkpoint(chunk.next)?;
                since_checkpoint = 0;
            }
            if cancelled { Err(DataError::Interrupted { stage: self.request.stage.to_owned() }) } else { Ok(()) }
        })?;
        if writer.documents_in() == 0 {
            return Err(DataError::EmptyInput { path: self.request.input.clone() });
        }
        writer.finish()
    }

    /// Judges the documents of a chunk.
    fn chunk(&self, chunk: &Chunk) -> Result<Vec<Judged>, DataError> {
        let window = if let Plan::Filter(strategies) = self.plan { strategies.window() } else { 1 };
        let judge = |items: Range<usize>| {
            let mut judged = Judged::default();
            chunk.items[items].chunks(window).for_each(|items| self.items(items, chunk, &mut judged));
            judged
        };
        let tasks = chunk.tasks(window).into_par_iter().map(judge).collect();
        if let Plan::Filter(strategies) = self.plan {
            strategies.check()?;
        }
        Ok(tasks)
    }

    /// Documents that are judged at once.
    fn items(&self, items: &[Item], chunk: &Chunk, judged: &mut Judged) {
        let read: Vec<_> = items.iter().map(|item| chunk.document(item, self.inputs)).collect();
        let mut judgements = match self.plan {
            Plan::Filter(strategies) => {
                let documents: Vec<&Document> = read.iter().flatten().map(|(document, _)| document).collect();
                strategies.judge_all(&documents)
            }
            Plan::Format(_) => Vec::new(),
            Plan::Dedup => unreachable!("deduplication does not come here"),
        }
        .into_iter();
        for (item, read) in items.iter().zip(read) {
            let (file, bytes) = (&self.inputs[item.file], chunk.bytes(item));
            let place = format!("{}:{}", file.name, item.line.max(1));
            match (read, self.plan) {
                (Err(fault), _) => {
                    judged.lines.reject_broken(bytes, &place, &fault);
                    judged.faults.push((item.file, item.line.max(1), fault));
                }
                (Ok((document, _)), Plan::Format(extractor)) => {
                    self.format(document, &**extractor, &file.name, &place, &mut judged.lines);
                }
                (Ok((document, named)), _) => {
                    let (chain, judgement) = judgements.next().expect("every document was judged");
                    let line = named.then_some(bytes);
                    write(chain, judgement, document, line, &place, &mut judged.lines);
                }
            }
        }
    }

    fn format(
        &self,
        mut document: Document,
        extractor: &dyn Extractor,
        source: &str,
        place: &str,
        lines: &mut ChunkOutput,
    ) {
        let original = document.text.len();
        format::convert(&mut document, extractor, self.request.lang, source);
        if document.text.trim().is_empty() {
            lines.reject(&Rejection::of(&document, place, "format", "no_text", original as f64));
            return;
        }
        keep(&document, None, lines);
    }

    /// One warning per file; the other lines are in `rejected/` and counted.
    fn warn(&self, faults: &[(usize, u64, LineFault)], warned: &mut HashSet<usize>, progress: &dyn Progress) {
        for (file, line, fault) in faults {
            if warned.insert(*file) {
                let path = self.inputs[*file].path.display();
                let text = format!("{path}:{line}: {fault}; such lines go to rejected/ and the run goes on");
                progress.warning(&text);
            }
        }
    }
}

/// What came of some items.
#[derive(Default)]
struct Judged {
    lines: ChunkOutput,
    faults: Vec<(usize, u64, LineFault)>,
}

/// `line` is the document as it came, where it came as a line with an id. A rejected document is written with the text that it
/// came with, whatever was edited before.
fn write(
    chain: &FilterChain,
    judgement: Judgement,
    mut document: Document,
    line: Option<&[u8]>,
    place: &str,
    lines: &mut ChunkOutput,
) {
    let dropped = judgement.dropped.as_ref().map(|(index, ..)| *index);
    for (index, (name, time)) in chain.names().zip(&judgement.times).enumerate() {
        let edited = judgement.edits.iter().any(|(own, _)| *own == index);
        lines.charge(name, Duration::as_secs_f64(time), dropped == Some(index), edited);
    }
    match (judgement.dropped, judgement.text) {
        (Some((index, reason, value)), _) => {
            let name = chain.names().nth(index).expect("a filter of this chain dropped it");
            lines.reject(&Rejection::of(&document, place, name, &reason, value));
        }
        (None, Some(text)) => {
            let before = std::mem::replace(&mut document.text, text).len();
            lines.keep_edited(&document, before, judgement.edits.iter().flat_map(|(_, changes)| changes));
        }
        (None, None) => keep(&document, line, lines),
    }
}

/// A kept line keeps its bytes, whatever JSON's freedoms were used to write it; only a document without an id gets one.
fn keep(document: &Document, line: Option<&[u8]>, lines: &mut ChunkOutput) {
    match line {
        Some(line) => lines.keep(line, document.text.len()),
        None => {
            let mut own = Vec::with_capacity(document.text.len() + 256);
            document.write_line(&mut own);
            lines.keep(&own[..own.len() - 1], document.text.len());
        }
    }
}
