//! The `dedup` stage over files: three passes, none of which holds the texts.
//!
//! 1. read every document, keep its identity and band keys (8 bytes per band);
//! 2. read the candidates again, keep their shingle sets, decide;
//! 3. read every line again: kept ones are copied byte for byte, rejected ones get `exact_duplicate` or
//!    `near_duplicate` as reason, the true Jaccard similarity as value and the id of the kept copy as detail.
//!
//! `duplicates.json` beside `report.json` says what was compared and shows the largest clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use internevo_core::{
    config::DedupConfig,
    storage::{self, StorageError},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    decide::{Date, Deduplicator, DocumentView, Duplicate, Outcome},
    shingle::ShingleSet,
    tokens::TokenRule,
};
use crate::{
    DataError, Document,
    corpus::{is_source_type, kind_of},
    document::{LineFault, default_id},
    format::{LineReader, RawLine},
    stage::{ChunkOutput, InputFile, Progress, Rejection, StageReport, StageWriter},
};

/// Name of the stage, and of the "filter" in its rejections.
const STAGE: &str = "dedup";
/// Name of the file with the clusters.
pub const DUPLICATES: &str = "duplicates.json";
/// Lines are handed to the threads in batches of about this many bytes.
const BATCH_BYTES: usize = 8 << 20;
/// Clusters shown in `duplicates.json`.
const LARGEST_CLUSTERS: usize = 20;
/// Removed documents shown per cluster.
const CLUSTER_EXAMPLES: usize = 5;

/// What was compared and found; the content of `duplicates.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DuplicateReport {
    /// Sets of exact copies.
    pub exact_groups: u64,
    /// Clusters of near duplicates (each set of exact copies counts as one document).
    pub near_clusters: u64,
    /// Pairs whose shingle sets were compared.
    pub candidate_pairs: u64,
    /// Pairs among them whose true Jaccard similarity reaches the threshold.
    pub verified_pairs: u64,
    /// Candidate groups too large for every pair to be considered.
    pub truncated_groups: u64,
    /// Kept documents with the most removed copies, largest first.
    pub largest: Vec<Cluster>,
}

/// A kept document and those removed for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Id of the kept document.
    pub kept: String,
    /// Documents removed for it.
    pub removed: u64,
    /// Ids of the first of them.
    pub examples: Vec<String>,
}

impl Cluster {
    fn add(&mut self, kept: &str, removed: String) {
        if self.removed == 0 {
            self.kept = kept.to_owned();
        }
        self.removed += 1;
        if self.examples.len() < CLUSTER_EXAMPLES {
            self.examples.push(removed);
        }
    }
}

/// Runs the stage on `inputs`, writes `output/kept`, `output/rejected` and `output/report.json`.
///
/// Uses the current rayon pool; the output is the same for any number of threads.
///
/// # Errors
/// A wrong setting by its key, a file that cannot be read or written, an input that changes while it is read, a stop
/// request. A broken line is no error: it is rejected with its reason.
pub fn run(
    inputs: &[InputFile],
    output: &Path,
    config: &DedupConfig,
    progress: &dyn Progress,
) -> Result<StageReport, DataError> {
    let mut writer = StageWriter::create(output, STAGE)?;
    let deduplicator = Deduplicator::new(config)?;
    let mut run = Run { inputs, progress, deduplicator, broken: BTreeMap::new(), without_id: BTreeSet::new() };
    run.first_pass()?;
    let (outcome, ids) = run.second_pass()?;
    let clusters = run.third_pass(&outcome, &ids, &mut writer)?;
    let report = DuplicateReport {
        exact_groups: outcome.exact_groups,
        near_clusters: outcome.components.clusters.len() as u64,
        candidate_pairs: outcome.components.candidate_pairs,
        verified_pairs: outcome.components.verified_pairs,
        truncated_groups: outcome.components.truncated_groups,
        largest: largest(clusters),
    };
    let bytes = serde_json::to_vec_pretty(&report).expect("numbers and strings are JSON");
    storage::write_atomic(output.join(DUPLICATES), bytes)?;
    writer.finish()
}

/// How a document is cut into tokens: code by its `type` (`code`, `rust`, …) or `lang`, prose otherwise.
pub fn token_rule(document: &Document) -> TokenRule {
    let is_code = document.is_code() || document.field("type").is_some_and(is_source_type);
    if is_code { TokenRule::Code } else { TokenRule::Prose }
}

/// Place of a line: index of its file, number of the line.
type Place = (usize, u64);

struct Run<'a> {
    inputs: &'a [InputFile],
    progress: &'a dyn Progress,
    deduplicator: Deduplicator,
    /// Lines that are no documents; all others are numbered in order, from 0.
    broken: BTreeMap<Place, LineFault>,
    /// Documents whose line has no id: theirs is written out, because a copied line would get another one later.
    without_id: BTreeSet<u32>,
}

/// A line of an input (or a whole file that is one document), as stored.
struct Line {
    place: Place,
    bytes: Vec<u8>,
}

impl Run<'_> {
    fn first_pass(&mut self) -> Result<(), DataError> {
        for file in 0..self.inputs.len() {
            self.for_batches(file, |run, lines| {
                let parsed: Vec<_> = lines.par_iter().map(|line| run.parse(line)).collect();
                let mut documents = Vec::with_capacity(parsed.len());
                for (line, result) in lines.iter().zip(parsed) {
                    match result {
                        Ok((document, has_id)) => {
                            if !has_id {
                                run.without_id.insert((run.deduplicator.len() + documents.len()) as u32);
                            }
                            documents.push(document);
                        }
                        Err(fault) => drop(run.broken.insert(line.place, fault)),
                    }
                }
                let views: Vec<DocumentView<'_>> = documents.iter().map(view).collect();
                run.deduplicator.add(&views);
                Ok(())
            })?;
            self.progress.advance(self.inputs[file].bytes / 2, 0, 0);
        }
        Ok(())
    }

    /// Decides, and gives the ids of all documents that may be named as the kept copy.
    fn second_pass(&mut self) -> Result<(Outcome, BTreeMap<u32, String>), DataError> {
        let candidates = self.deduplicator.candidates();
        let named: BTreeSet<u32> = candidates.needed().iter().copied().chain(candidates.exact_leaders()).collect();
        let needed: BTreeSet<u32> = candidates.needed().iter().copied().collect();
        let (mut sets, mut ids) = (BTreeMap::new(), BTreeMap::new());
        let mut number = 0u32;
        for file in 0..self.inputs.len() {
            self.for_batches(file, |run, lines| {
                let wanted: Vec<(u32, &Line)> = run
                    .numbered(lines, &mut number)
                    .filter_map(|(document, line)| document.filter(|d| named.contains(d)).map(|d| (d, line)))
                    .collect();
                let read = |(document, line): &(u32, &Line)| {
                    let (content, _) = run.parse(line).map_err(|_| run.changed(line.place))?;
                    let set = needed
                        .contains(document)
                        .then(|| run.deduplicator.shingle_set(&content.text, token_rule(&content)));
                    Ok((*document, content.id, set))
                };
                let found: Vec<(u32, String, Option<ShingleSet>)> =
                    wanted.par_iter().map(read).collect::<Result<_, DataError>>()?;
                for (document, id, set) in found {
                    ids.insert(document, id);
                    sets.extend(set.map(|set| (document, set)));
                }
                Ok(())
            })?;
        }
        if number as usize != self.deduplicator.len() {
            return Err(self.changed((self.inputs.len() - 1, 0)));
        }
        Ok((candidates.decide(&self.deduplicator, &sets), ids))
    }

    /// Writes; gives the clusters by their kept document.
    fn third_pass(
        &mut self,
        outcome: &Outcome,
        ids: &BTreeMap<u32, String>,
        writer: &mut StageWriter,
    ) -> Result<BTreeMap<u32, Cluster>, DataError> {
        let mut clusters: BTreeMap<u32, Cluster> = BTreeMap::new();
        let mut number = 0u32;
        for file in 0..self.inputs.len() {
            writer.begin_part(file)?;
            let mut counts = (0, 0);
            self.for_batches(file, |run, lines| {
                let mut chunk = ChunkOutput::default();
                let numbered: Vec<_> = run.numbered(lines, &mut number).collect();
                for (document, line) in numbered {
                    match document {
                        None => run.reject_broken(line, &mut chunk),
                        Some(document) => match outcome.removed.get(&document) {
                            None => run.keep(document, line, &mut chunk)?,
                            Some(duplicate) => {
                                let kept = &ids[&duplicate.of];
                                let id = run.reject_duplicate(line, duplicate, kept, &mut chunk)?;
                                let cluster = clusters.entry(duplicate.of).or_default();
                                cluster.add(kept, id);
                            }
                        },
                    }
                }
                writer.append(&chunk)?;
                let (documents, kept) = chunk.documents();
                counts = (counts.0 + documents, counts.1 + kept);
                Ok(())
            })?;
            let bytes = self.inputs[file].bytes;
            self.progress.advance(bytes - bytes / 2, counts.0, counts.1);
        }
        Ok(clusters)
    }

    fn keep(&self, document: u32, line: &Line, chunk: &mut ChunkOutput) -> Result<(), DataError> {
        let text_bytes = self.deduplicator.text_bytes(document) as usize;
        if !self.without_id.contains(&document) {
            chunk.keep(&line.bytes, text_bytes);
            return Ok(());
        }
        let (content, _) = self.parse(line).map_err(|_| self.changed(line.place))?;
        let mut bytes = Vec::new();
        content.write_line(&mut bytes);
        chunk.keep(bytes.trim_ascii_end(), text_bytes);
        Ok(())
    }

    /// Rejects the document of a line for a kept one; gives its id.
    fn reject_duplicate(
        &self,
        line: &Line,
        duplicate: &Duplicate,
        kept: &str,
        chunk: &mut ChunkOutput,
    ) -> Result<String, DataError> {
        let (content, _) = self.parse(line).map_err(|_| self.changed(line.place))?;
        let place = self.place(line.place);
        let rejection = Rejection::of(&content, &place, STAGE, duplicate.kind.reason(), duplicate.jaccard);
        chunk.reject(&Rejection { detail: kept, ..rejection });
        Ok(content.id)
    }

    fn reject_broken(&self, line: &Line, chunk: &mut ChunkOutput) {
        let fault = &self.broken[&line.place];
        let text = String::from_utf8_lossy(&line.bytes).into_owned();
        let place = self.place(line.place);
        let document = Document::new("", text);
        let rejection = Rejection::of(&document, &place, STAGE, fault.reason, 0.0);
        chunk.reject(&Rejection { detail: &fault.detail, ..rejection });
    }

    /// Lines with their documents' numbers; `None` for broken ones. `next` is the number of the next document.
    fn numbered<'l>(&self, lines: &'l [Line], next: &mut u32) -> impl Iterator<Item = (Option<u32>, &'l Line)> {
        lines.iter().map(|line| {
            if self.broken.contains_key(&line.place) {
                return (None, line);
            }
            *next += 1;
            (Some(*next - 1), line)
        })
    }

    /// The document of a line, and whether the line itself names its id.
    fn parse(&self, line: &Line) -> Result<(Document, bool), LineFault> {
        let input = &self.inputs[line.place.0];
        if !input.is_jsonl() {
            let text = String::from_utf8(line.bytes.clone()).map_err(|e| LineFault {
                reason: LineFault::INVALID_UTF8,
                detail: format!("byte {} of the file is not UTF-8", e.utf8_error().valid_up_to() + 1),
            })?;
            let mut document = Document::new(&input.name, text);
            if let Some(kind) = kind_of(&input.name) {
                document.meta.insert("type".into(), kind.name.into());
            }
            return Ok((document, false));
        }
        let mut has_id = true;
        let document = Document::from_line(&line.bytes, || {
            has_id = false;
            default_id(&input.path, line.place.1)
        })?;
        Ok((document, has_id))
    }

    /// Reads a file in batches of lines. A damaged end of an archive is noted as a broken line.
    fn for_batches(
        &mut self,
        file: usize,
        mut take: impl FnMut(&mut Self, &[Line]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let input = &self.inputs[file];
        if !input.is_jsonl() {
            let line = Line { place: (file, 1), bytes: storage::read(&input.path)? };
            return take(self, &[line]);
        }
        let mut reader = LineReader::open(&input.path)?;
        let (mut lines, mut size, mut ended) = (Vec::new(), 0, false);
        while !ended {
            let mut bytes = Vec::new();
            let found = reader.next_line(&mut bytes)?;
            let place = (file, reader.line());
            if let RawLine::Damaged(fault) = &found {
                self.broken.insert(place, fault.clone());
            }
            ended = found == RawLine::End;
            if !ended {
                size += bytes.len();
                lines.push(Line { place, bytes });
            }
            if size >= BATCH_BYTES || ended {
                if self.progress.cancelled() {
                    return Err(DataError::Interrupted { stage: STAGE.into() });
                }
                take(self, &lines)?;
                lines.clear();
                size = 0;
            }
        }
        Ok(())
    }

    fn place(&self, (file, line): Place) -> String {
        format!("{}:{line}", self.inputs[file].name)
    }

    fn changed(&self, (file, line): Place) -> DataError {
        let source = std::io::Error::other(format!("it changed while it was deduplicated (near line {line})"));
        StorageError::at("read", &self.inputs[file].path)(source).into()
    }
}

fn view(document: &Document) -> DocumentView<'_> {
    let date = ["date", "timestamp", "dump"].iter().find_map(|key| document.meta.get(*key));
    DocumentView { text: &document.text, rule: token_rule(document), date: Date::of(date) }
}

fn largest(clusters: BTreeMap<u32, Cluster>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = clusters.into_values().collect();
    // Stable: equally large ones stay in input order.
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.removed));
    clusters.truncate(LARGEST_CLUSTERS);
    clusters
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::Value;

    use super::*;
    use crate::stage::find_inputs;

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
