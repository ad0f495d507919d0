//! The deduplication of documents over files: three passes, none of which holds the texts.
//!
//! 1. read every document, keep facts, its identity and its band keys;
//! 2. read the candidates again, keep their shingle sets, decide (skipped where nothing but equality counts and no id is needed);
//! 3. read every line again: kept ones are copied byte for byte, rejected ones get `exact_duplicate` or
//!    `near_duplicate` as reason, the true Jaccard similarity as value and the id of the kept copy as detail.
//!
//! `duplicates.json` beside `report.json` says what was compared and shows the largest clusters. A killed run starts again: its
//! temporary files, in `.scratch` of the output, are removed first.

use std::{ops::Range, path::Path};

use internevo_core::storage::StorageError;
use rayon::prelude::*;

use super::{
    catalog::Catalog,
    decide::{Candidates, Deduplicator, DocumentView, Duplicate, HashBuffers, Hashed, Hasher, Outcome, advance_to},
    index::{Index, SegmentWriter, encode},
    report::{Clusters, DuplicateReport, write_duplicates},
    settings::Settings,
    shingle::ShingleSet,
    tokens::TokenRule,
};
use crate::{
    DataError, Document,
    corpus::is_source_type,
    spill::{Scratch, Store},
    stage::{
        Chunk, ChunkOutput, ChunkReader, InputFile, Item, Position, Progress, Rejection, StageReport, StageWriter,
        in_chunks,
    },
};

/// Name of the stage, and of the "filter" in its rejections.
pub(super) const STAGE: &str = "dedup";
/// Folder of the temporary files, in the output.
pub(super) const SCRATCH: &str = ".scratch";

/// Runs on `inputs`, writes `output/kept`, `output/rejected`, `output/duplicates.json` and `output/report.json`.
///
/// # Errors
/// A file that cannot be read or written, an input that changes while it is read, a stop request. A broken line is no error: it is
/// rejected with its reason.
pub(super) fn run(
    inputs: &[InputFile],
    mut writer: StageWriter,
    output: &Path,
    settings: &Settings,
    index: Option<&Index>,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let scratch = Scratch::new(output.join(SCRATCH))?;
    let run = Run { inputs, progress, settings, scratch: &scratch, hasher: Hasher::new(settings), index };
    let candidates = run.first_pass()?;
    let (outcome, ids) = run.second_pass(&candidates)?;
    let mut clusters = Clusters::new(&outcome, &scratch, settings.memory / 16)?;
    let mut segment = index.map(Index::write).transpose()?;
    let shown = clusters.kept().collect();
    let passing = Passing { catalog: candidates.catalog(), outcome: &outcome, ids: &ids, shown };
    run.third_pass(&passing, &mut clusters, &mut writer, segment.as_mut())?;
    let report = DuplicateReport {
        exact_groups: outcome.exact_groups,
        near_clusters: outcome.near_clusters,
        candidate_pairs: outcome.candidate_pairs,
        verified_pairs: outcome.verified_pairs,
        truncated_groups: outcome.truncated_groups,
        indexed: u64::from(candidates.catalog().indexed()),
        largest: clusters.finish(),
        ..DuplicateReport::default()
    };
    write_duplicates(output, &report)?;
    segment.map_or(Ok(()), SegmentWriter::commit)?;
    tracing::debug!(files = scratch.files(), memory = settings.memory, "temporary files of the deduplication");
    writer.finish()
}

/// How a document is cut into tokens: code by its `type` (`code`, `rust`, …) or `lang`, prose otherwise.
pub fn token_rule(document: &Document) -> TokenRule {
    let is_code = document.is_code() || document.field("type").is_some_and(is_source_type);
    if is_code { TokenRule::Code } else { TokenRule::Prose }
}

struct Run<'a> {
    inputs: &'a [InputFile],
    progress: &'a dyn Progress,
    settings: &'a Settings,
    scratch: &'a Scratch,
    hasher: Hasher,
    index: Option<&'a Index>,
}

/// What the third pass looks up.
struct Passing<'a> {
    catalog: &'a Catalog<'a>,
    outcome: &'a Outcome,
    ids: &'a Store<'a, Box<str>>,
    /// Kept documents whose clusters are shown.
    shown: Vec<u32>,
}

/// One item of the third pass: its number, and the kept document that it goes for.
struct Fate<'a> {
    item: &'a Item,
    number: u32,
    duplicate: Option<Duplicate>,
}

/// What becomes of some items.
#[derive(Default)]
struct Passed {
    lines: ChunkOutput,
    /// Kept and removed documents of the clusters that are shown.
    examples: Vec<(u32, Box<str>, String)>,
    /// For the index.
    encoded: Vec<u8>,
}

impl<'a> Run<'a> {
    fn first_pass(&self) -> Result<Candidates<'a>, DataError> {
        let mut deduplicator = Deduplicator::new(self.settings, self.scratch);
        if let Some(index) = self.index {
            index.for_each(|document| deduplicator.push(Some(&document.hashed)))?;
            deduplicator.end_index();
        }
        let hash = |chunk: &Chunk| {
            let hash = |buffers: &mut HashBuffers, item| self.hash(chunk, item, buffers);
            Ok(chunk.items.par_iter().map_init(HashBuffers::default, hash).collect())
        };
        for_chunks(
            self.inputs,
            self.settings.chunk_bytes(),
            self.progress,
            hash,
            |chunk, hashed: Vec<Option<Hashed>>| {
                hashed.iter().try_for_each(|hashed| deduplicator.push(hashed.as_ref()))?;
                self.progress.advance(chunk.stored / 2, 0, 0);
                Ok(())
            },
        )?;
        Ok(deduplicator.candidates()?)
    }

    fn hash(&self, chunk: &Chunk, item: &Item, buffers: &mut HashBuffers) -> Option<Hashed> {
        let (document, named) = chunk.document(item, self.inputs).ok()?;
        Some(self.hasher.hash(buffers, &self.view(&document, named)))
    }

    fn view<'d>(&self, document: &'d Document, named: bool) -> DocumentView<'d> {
        let rank = self.settings.keep.rank(document);
        DocumentView { text: &document.text, rule: token_rule(document), rank, named }
    }

    /// Decides, and gives the ids of all documents that may be named as the kept copy.
    fn second_pass(&self, candidates: &Candidates<'a>) -> Result<(Outcome, Store<'a, Box<str>>), DataError> {
        let mut sets = candidates.sets();
        let mut ids = Store::new(self.scratch, self.settings.memory / 16);
        let mut number = 0u32;
        if let Some(index) = self.index {
            index.for_each(|document| {
                if candidates.may_be_kept_copy(number) {
                    ids.insert(number, document.id)?;
                }
                if candidates.needs_set(number) {
                    sets.insert(number, document.set)?;
                }
                number += 1;
                Ok(())
            })?;
        }
        let read = |chunk: &Chunk| {
            let wanted = (number..).zip(&chunk.items).filter(|(number, _)| candidates.may_be_kept_copy(*number));
            let wanted: Vec<(u32, &Item)> = wanted.collect();
            number += chunk.items.len() as u32;
            let read = |buffers: &mut HashBuffers, &(number, item): &(u32, &Item)| {
                let (document, _) = chunk.document(item, self.inputs).map_err(|_| self.changed(item))?;
                let rule = token_rule(&document);
                let set = candidates.needs_set(number).then(|| self.hasher.shingle_set(buffers, &document.text, rule));
                Ok((number, Box::from(document.id), set))
            };
            wanted.par_iter().map_init(HashBuffers::default, read).collect()
        };
        for_chunks(
            self.inputs,
            self.settings.chunk_bytes(),
            self.progress,
            read,
            |_, found: Vec<(u32, Box<str>, Option<ShingleSet>)>| {
                for (number, id, set) in found {
                    ids.insert(number, id)?;
                    set.map_or(Ok(()), |set| sets.insert(number, set))?;
                }
                Ok(())
            },
        )?;
        if number != candidates.catalog().items() {
            return Err(changed(&self.inputs[self.inputs.len() - 1], 0));
        }
        ids.flush()?;
        sets.flush()?;
        Ok((candidates.decide(&sets)?, ids))
    }

    fn third_pass(
        &self,
        passing: &Passing<'_>,
        clusters: &mut Clusters,
        writer: &mut StageWriter,
        mut segment: Option<&mut SegmentWriter>,
    ) -> Result<(), DataError> {
        let mut removed = passing.outcome.removed()?.peekable();
        let mut number = passing.catalog.indexed();
        let pass = |chunk: &Chunk| -> Result<Vec<Passed>, DataError> {
            let mut fates = Vec::with_capacity(chunk.items.len());
            for item in &chunk.items {
                fates.push(Fate { item, number, duplicate: advance_to(&mut removed, number)? });
                number += 1;
            }
            let pass = |task: Range<usize>| {
                let mut passed = Passed::default();
                fates[task].iter().try_for_each(|fate| self.pass(chunk, fate, passing, &mut passed))?;
                Ok(passed)
            };
            chunk.tasks(1).into_par_iter().map(pass).collect()
        };
        for_chunks(self.inputs, self.settings.chunk_bytes(), self.progress, pass, |chunk, tasks| {
            writer.begin_part(chunk.part)?;
            for task in tasks {
                writer.append(&task.lines)?;
                task.examples.into_iter().for_each(|(kept, id, removed)| clusters.add_example(kept, &id, removed));
                segment.as_mut().map_or(Ok(()), |segment| segment.write(&task.encoded))?;
            }
            writer.tell(self.progress, chunk.stored - chunk.stored / 2);
            Ok(())
        })
    }

    /// Keeps or rejects one item.
    fn pass(
        &self,
        chunk: &Chunk,
        fate: &Fate<'_>,
        passing: &Passing<'_>,
        passed: &mut Passed,
    ) -> Result<(), DataError> {
        let facts = passing.catalog.get(fate.number)?;
        let item = fate.item;
        if facts.broken {
            let fault = chunk.document(item, self.inputs).err().ok_or_else(|| self.changed(item))?;
            passed.lines.reject_broken(chunk.bytes(item), &self.place(item), &fault);
            return Ok(());
        }
        if fate.duplicate.is_none() && facts.named && self.index.is_none() {
            passed.lines.keep(chunk.bytes(item), facts.text_bytes as usize);
            return Ok(());
        }
        let (document, named) = chunk.document(item, self.inputs).map_err(|_| self.changed(item))?;
        if let Some(duplicate) = &fate.duplicate {
            let (place, kept) = (self.place(item), passing.ids.get(duplicate.of)?);
            let rejection = Rejection::of(&document, &place, STAGE, duplicate.kind.reason(), duplicate.jaccard);
            passed.lines.reject(&Rejection { detail: &kept, ..rejection });
            if passing.shown.contains(&duplicate.of) {
                passed.examples.push((duplicate.of, (*kept).clone(), document.id));
            }
            return Ok(());
        }
        if named {
            passed.lines.keep(chunk.bytes(item), document.text.len());
        } else {
            keep_document(&document, document.text.len(), &mut passed.lines);
        }
        if self.index.is_some() {
            let mut buffers = HashBuffers::default();
            let view = self.view(&document, named);
            let hashed = self.hasher.hash(&mut buffers, &view);
            let set = self.hasher.shingle_set(&mut buffers, view.text, view.rule);
            passed.encoded.extend(encode(&document.id, &hashed, &set));
        }
        Ok(())
    }

    fn place(&self, item: &Item) -> String {
        place(self.inputs, item)
    }

    fn changed(&self, item: &Item) -> DataError {
        changed(&self.inputs[item.file], item.line)
    }
}

/// [`in_chunks`] over all inputs, unless the run shall stop.
pub(super) fn for_chunks<T: Send>(
    inputs: &[InputFile],
    chunk_bytes: usize,
    progress: &dyn Progress,
    mut work: impl FnMut(&Chunk) -> Result<T, DataError> + Send,
    take: impl FnMut(&Chunk, T) -> Result<(), DataError> + Send,
) -> Result<(), DataError> {
    let mut reader = ChunkReader::new(inputs, Position::default(), chunk_bytes);
    let unless_cancelled = |chunk: &Chunk| {
        if progress.cancelled() { Err(DataError::Interrupted { stage: STAGE.into() }) } else { work(chunk) }
    };
    in_chunks(&mut reader, unless_cancelled, take)
}

/// Keeps a document as a line of its own making.
pub(super) fn keep_document(document: &Document, text_bytes: usize, lines: &mut ChunkOutput) {
    let mut own = Vec::with_capacity(document.text.len() + 256);
    document.write_line(&mut own);
    lines.keep(own.trim_ascii_end(), text_bytes);
}

/// `file:line` of an item.
pub(super) fn place(inputs: &[InputFile], item: &Item) -> String {
    format!("{}:{}", inputs[item.file].name, item.line.max(1))
}

/// The input is not what it was in an earlier pass.
pub(super) fn changed(file: &InputFile, line: u64) -> DataError {
    let source = std::io::Error::other(format!("it changed while it was deduplicated (near line {line})"));
    StorageError::at("read", &file.path)(source).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use internevo_core::{config::DedupConfig, storage};
    use serde_json::Value;

    use super::*;
    use crate::{
        dedup::{Cluster, DUPLICATES, run},
        stage::find_inputs,
    };

    fn prose(seed: u64, words: u64) -> String {
        let rng = internevo_core::rng::CounterRng::new(seed, "prose");
        let word = |i| -> String { (0..4).map(|k| char::from(b'a' + rng.below(4 * i + k, 26) as u8)).collect() };
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    }

    fn lines(folder: PathBuf) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
        files.sort();
        let text: String = files.iter().map(|f| fs::read_to_string(f).expect("part")).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn deduplicate(input: &Path, output: &Path) -> StageReport {
        let config = DedupConfig { keep: "first".into(), ..DedupConfig::default() };
        run(&find_inputs(input, output).expect("inputs"), output, &config, &()).expect("stage")
    }

    #[test]
    fn every_line_is_kept_unchanged_or_rejected_with_the_kept_copy() {
        let dir = tempfile::tempdir().expect("folder");
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        fs::create_dir_all(&input).expect("folder");
        let (a, b) = (prose(1, 200), prose(2, 200));
        let near = format!("{a} with a few more words");
        let first = [
            format!(r#"{{"id":"a","z":[1,2],"text":"{a}"}}"#),
            format!(r#"{{"id":"near","text":"{near}"}}"#),
            r#"{"id":"broken","text":"#.to_owned(),
        ];
        let second = [format!(r#"{{"text":"{b}"}}"#), format!(r#"{{"id":"copy","text":"{}"}}"#, a.to_uppercase())];
        fs::write(input.join("1.jsonl"), first.join("\n")).expect("input");
        fs::write(input.join("2.jsonl"), second.join("\n")).expect("input");
        let report = deduplicate(&input, &output);

        let kept = lines(output.join("kept"));
        assert_eq!(kept.iter().map(|d| d["id"].as_str().expect("id")).collect::<Vec<_>>(), ["a", "2:1"]);
        let part = fs::read_to_string(output.join("kept/part-00000.jsonl")).expect("part");
        assert_eq!(part.trim_end(), first[0], "a kept line is copied byte for byte");
        let rejected: Vec<(Value, Value, Value)> = lines(output.join("rejected"))
            .into_iter()
            .map(|r| (r["id"].clone(), r["reason"].clone(), r["detail"].clone()))
            .collect();
        assert_eq!(rejected[0], ("near".into(), "near_duplicate".into(), "a".into()));
        assert_eq!((&rejected[1].0, &rejected[1].1), (&Value::from(""), &Value::from("broken_json")));
        assert_eq!(rejected[2], ("copy".into(), "exact_duplicate".into(), "a".into()));
        assert_eq!((report.documents_in, report.documents_kept), (5, 2));
        assert_eq!(report.bytes_kept as usize, a.len() + b.len());
        let duplicates: DuplicateReport =
            serde_json::from_slice(&storage::read(output.join(DUPLICATES)).expect("file")).expect("JSON");
        assert_eq!((duplicates.exact_groups, duplicates.near_clusters, duplicates.verified_pairs), (1, 1, 1));
        let expected = Cluster { kept: "a".into(), removed: 2, examples: vec!["near".into(), "copy".into()] };
        assert_eq!(duplicates.largest, [expected]);
    }

    #[test]
    fn a_second_run_on_what_was_kept_removes_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let input = dir.path().join("in.jsonl");
        let text: String = (0..60)
            .map(|i| format!("{{\"id\":\"{i}\",\"text\":\"{} {}\"}}\n", prose(i / 4, 150), prose(1000 + i, i % 4 * 10)))
            .collect();
        fs::write(&input, text).expect("input");
        let first = deduplicate(&input, &dir.path().join("one"));
        assert!(first.documents_kept < 40, "{first:?}");
        let second = deduplicate(&dir.path().join("one"), &dir.path().join("two"));
        assert_eq!(second.documents_kept, first.documents_kept);
    }
}
